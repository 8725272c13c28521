//! What others wrote, such as names of files and values of configurations, as messages show it: in part where it is long, on one line, and
//! without characters that a terminal would obey.

/// Characters of a message; one that is in order is shorter.
const MOST: usize = 4000;
/// Those of them that are its last, where the advice is.
const LAST: usize = 1000;

/// `text` as a part of a message, at most `most` characters of it.
pub fn part(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => plain(&text[..end]) + "...",
        None => plain(text),
    }
}

/// A whole message: what it has taken from others may be of any length and kind.
pub fn message(text: &str) -> String {
    let plain = plain(text);
    let length = plain.chars().count();
    if length <= MOST {
        return plain;
    }
    let place = |character: usize| plain.char_indices().nth(character).map_or(plain.len(), |(at, _)| at);
    format!("{} ... {}", &plain[..place(MOST - LAST)], &plain[place(length - LAST)..])
}

/// With the names of characters that would move the cursor, change colours, end the line, or turn the order of what follows.
fn plain(text: &str) -> String {
    let turns = |character| matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_given_nothing_to_obey() {
        assert_eq!(part("a \u{1b}[31mred\n\u{202e}\u{9b}é\"", 80), "a \\u{1b}[31mred\\n\\u{202e}\\u{9b}é\"");
        assert_eq!(message("\r\u{7}"), "\\r\\u{7}");
    }

    #[test]
    fn long_texts_are_shown_in_part() {
        assert_eq!((part("ééé", 3), part("éééé", 3)), ("ééé".to_owned(), "ééé...".to_owned()));
        let long = format!("begins {} ends", "é".repeat(1 << 20));
        let shown = message(&long);
        assert!(shown.starts_with("begins é") && shown.ends_with("é ends") && shown.chars().count() == MOST + 5, "{}", shown.len());
        let short = "é".repeat(MOST);
        assert_eq!(message(&short), short);
    }
}
