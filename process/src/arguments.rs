//! Arguments that are not UTF-8, as messages show them.

use std::ffi::OsString;

/// A message of the command line's parser in which the bytes of such arguments can be read: the parser replaces them by signs that are all
/// alike. Where it objects to them without saying which they are, they are named at its end. None where all are UTF-8.
pub fn shown(message: &str, arguments: impl IntoIterator<Item = OsString>, objects: bool) -> Option<String> {
    let odd: Vec<OsString> = arguments.into_iter().filter(|argument| argument.to_str().is_none()).collect();
    let escaped = |argument: &OsString| format!("{argument:?}").trim_matches('"').to_owned();
    let mut text = odd.iter().fold(message.to_owned(), |text, argument| text.replace(&*argument.to_string_lossy(), &escaped(argument)));
    if objects {
        let named: Vec<String> = odd.iter().map(|argument| format!("'{}'", escaped(argument))).collect();
        text.push_str(&format!("Not UTF-8: {}\n", named.join(", ")));
    }
    (!odd.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn bytes_can_be_read() {
        let arguments = || ["train", "tr\u{fffd}in"].map(OsString::from).into_iter().chain([OsString::from_vec(b"tr\xffin".to_vec())]);
        assert_eq!(shown("error: no 'tr\u{fffd}in'\n", arguments(), false).unwrap(), "error: no 'tr\\xFFin'\n");
        assert_eq!(shown("error: invalid UTF-8\n", arguments(), true).unwrap(), "error: invalid UTF-8\nNot UTF-8: 'tr\\xFFin'\n");
        assert_eq!(shown("error: invalid UTF-8\n", [OsString::from("train")], true), None);
    }
}
