//! Numbers and tables for people, and words for their shells.

use indicatif::HumanCount;

/// A word of a command, as it is typed into a shell: in quotes where the shell would take it for something else.
/// The crate `shell-words` would put every KEY=VALUE into quotes.
pub fn shell_word(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "/._-+=:,@%".contains(c)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The ending of a noun that so many things have: "1 step", "2 steps".
pub fn plural(number: usize) -> &'static str {
    if number == 1 { "" } else { "s" }
}

/// 1234567 as "1,234,567".
pub fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A number with three figures and an SI prefix: 1863000000 as "1.86 G".
pub fn scaled(number: f64) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut number = number;
    let mut prefix = 0;
    while number >= 999.5 && prefix + 1 < PREFIXES.len() {
        number /= 1000.0;
        prefix += 1;
    }
    let decimals = if prefix == 0 || number >= 99.95 {
        0
    } else if number >= 9.995 {
        1
    } else {
        2
    };
    format!("{number:.decimals$} {}", PREFIXES[prefix])
}

/// Seconds as a person says them: "45 s", "12 min", "3 h 12 min", "2 d 4 h".
pub fn duration(seconds: f64) -> String {
    // As far as a clock goes; more is for ever.
    let seconds = seconds.clamp(0.0, 1e12).round() as u64;
    let (minutes, hours, days) = (seconds.div_ceil(60), seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{hours} h {} min", seconds % 3600 / 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Rows in columns as wide as their widest cell: the first `left` columns begin at the left, the rest end at the right.
pub fn table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                let space = " ".repeat(width - cell.chars().count());
                if column < left { format!("{cell}{space}") } else { format!("{space}{cell}") }
            })
            .collect();
        out.push_str(cells.join("   ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_a_person_says_them() {
        let cases = [(0.4, "0 s"), (119.4, "119 s"), (120.0, "2 min"), (121.0, "3 min"), (7199.0, "120 min"), (11_520.0, "3 h 12 min")];
        for (seconds, text) in [&cases[..], &[(187_200.0, "2 d 4 h"), (f64::INFINITY, "11574074 d 1 h"), (-1.0, "0 s")]].concat() {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn numbers_keep_their_value() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567"), (100000, "100,000")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        let cases = [
            (0.0, "0 "),
            (999.0, "999 "),
            (999.6, "1.00 k"),
            (1.863e9, "1.86 G"),
            (18.63e9, "18.6 G"),
            (186.3e9, "186 G"),
            (5e21, "5000 E"),
        ];
        for (number, text) in cases {
            assert_eq!(scaled(number), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "1,000".to_owned()]];
        assert_eq!(table(&rows, 1), "a         1\nbcd   1,000\n");
    }
}
