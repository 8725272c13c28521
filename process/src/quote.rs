//! What others wrote, such as names of files and values of configurations, as messages show it: in part where it is long, on one line, and
//! without characters that a terminal would obey.

/// Characters of a name or value in a message.
const SHOWN: usize = 200;
/// Characters of a message; one that is in order is shorter.
const MOST: usize = 4000;
/// Those of them that are its last, where the advice is.
const LAST: usize = 1000;

/// `text` as a part of a message, and how long it is where it is longer than names and values are.
pub fn excerpt(text: &str) -> String {
    let long = text.char_indices().nth(SHOWN).is_some();
    part(text, SHOWN) + &if long { format!(" ({} bytes)", text.len()) } else { String::new() }
}

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

/// On one line: the ends of lines are escaped as well.
pub fn plain(text: &str) -> String {
    escaped(text, obeyed, |character| character.escape_default().to_string())
}

/// A text of several lines, which stay lines.
pub fn lines(text: &str) -> String {
    escaped(text, |character| character != '\n' && obeyed(character), |character| character.escape_default().to_string())
}

/// JSON, which stays the same JSON: it has its own escapes, and leaves some of these characters as they are.
pub fn json(text: &str) -> String {
    escaped(text, obeyed, |character| format!("\\u{:04x}", u32::from(character)))
}

/// Whether a character would move the cursor, change colours, end the line, or turn the order of what follows.
fn obeyed(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns
}

fn escaped(text: &str, obeyed: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if obeyed(character) {
            shown.push_str(&escape(character));
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
        assert_eq!(lines("Größe\n\u{1b}[2J\r\n"), "Größe\n\\u{1b}[2J\\r\n");
    }

    #[test]
    fn long_texts_are_shown_in_part() {
        assert_eq!((part("ééé", 3), part("éééé", 3)), ("ééé".to_owned(), "ééé...".to_owned()));
        assert_eq!(excerpt(&"é".repeat(201)), format!("{}... (402 bytes)", "é".repeat(200)));
        let long = format!("begins {} ends", "é".repeat(1 << 20));
        let shown = message(&long);
        assert!(shown.starts_with("begins é") && shown.ends_with("é ends") && shown.chars().count() == MOST + 5, "{}", shown.len());
        let short = "é".repeat(MOST);
        assert_eq!(message(&short), short);
    }

    #[test]
    fn json_stays_the_same_json() {
        // serde_json, for one, leaves these as they are: they are no control characters to JSON.
        let shown = json("{\"name\": \"\u{9b}1m\u{7f}\u{202e}é\\n\"}");
        assert_eq!(shown, r#"{"name": "\u009b1m\u007f\u202eé\n"}"#);
    }
}
