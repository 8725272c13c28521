//! Names from files and archives on a terminal: a control character in one could move the cursor or say what was never said.

/// The text with escapes in place of control characters, except for the ends of lines. JSON stays the same JSON.
pub fn printable(text: &str) -> String {
    escaped(text, |letter| letter.is_control() && letter != '\n')
}

/// The same for what must stay on one line.
pub fn one_line(text: &str) -> String {
    escaped(text, char::is_control)
}

fn escaped(text: &str, control: impl Fn(char) -> bool) -> String {
    let escape = |letter: char| match control(letter) {
        true => format!("\\u{:04x}", u32::from(letter)),
        false => letter.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_as_in_json() {
        assert_eq!(printable("Größe\n\u{1b}[2J\u{9b}1m\r"), "Größe\n\\u001b[2J\\u009b1m\\u000d");
        assert_eq!(one_line("a\nb\u{7f}"), "a\\u000ab\\u007f");
        let json = serde_json::json!({ "name": "\u{9b}1m\u{7f}\u{1b}" });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printable(&json.to_string())).unwrap(), json);
    }
}
