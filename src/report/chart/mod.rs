//! Charts as SVG, written by hand.
//!
//! A plotting crate's SVG backend places text by metrics of its own fonts and knows neither tooltips nor legends outside of the plot. Here
//! text is the browser's, values show under the pointer without a script, and lines differ in colour, marker and dash, so that they can be
//! told apart without colours too.

mod axis;
mod histogram;
mod lines;
mod palette;

pub use axis::Axis;
pub use histogram::{Bars, Histogram};
pub use lines::{Line, LineChart, Stroke};
pub use palette::{of_layer, of_method};

use super::html::escaped;

/// Width of every chart, in the units that its text is 13 of.
const WIDTH: f64 = 900.0;
const INK: &str = "#1c2024";
const QUIET: &str = "#4a5158";
const GRID: &str = "#e3e6e9";
const TEXT: f64 = 13.0;
/// Width of a character, of the widest of the fonts, in names with wide ones.
const CHARACTER: f64 = 7.2;
const FONTS: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif";

/// A rectangle of a chart.
#[derive(Clone, Copy, Debug)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// An `<svg>` element of `height` round `content`.
fn document(title: &str, height: f64, content: &str) -> String {
    format!(
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         font-family=\"{FONTS}\" font-size=\"{TEXT}\" fill=\"{INK}\" aria-label=\"{0}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{content}</svg>",
        escaped(title)
    )
}

fn text(x: f64, y: f64, anchor: &str, colour: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>\n", escaped(words))
}

/// Text that reads upward, centred.
fn vertical(x: f64, y: f64, words: &str) -> String {
    let upright = text(x, y, "middle", INK, words);
    upright.replacen("<text ", &format!("<text transform=\"rotate(-90 {x:.1} {y:.1})\" "), 1)
}

fn segment(from: (f64, f64), to: (f64, f64), colour: &str) -> String {
    format!("<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{colour}\"/>\n", from.0, from.1, to.0, to.1)
}

/// Words in lines of at most `width` characters. No-break spaces stay within a word, unless that is longer than a line.
fn wrapped(words: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ').flat_map(|word| broken(word, width)) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A word in parts of at most `width` characters, at its no-break spaces where they are near enough.
fn broken(word: &str, width: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), word);
    while let Some((limit, _)) = rest.char_indices().nth(width) {
        let end = rest[..limit].rfind('\u{a0}').filter(|end| *end > 0).unwrap_or(limit);
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches('\u{a0}');
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_asked() {
        assert_eq!(wrapped("SDTP, parallel (sigma\u{a0}=\u{a0}0.5)", 14), ["SDTP, parallel", "(sigma\u{a0}=\u{a0}0.5)"]);
        let long = wrapped("SDTP (optimizer.inverse.learning_rate\u{a0}=\u{a0}0.0000136, sigma\u{a0}=\u{a0}0.5)", 24);
        assert_eq!(long, ["SDTP", "(optimizer.inverse.learn", "ing_rate\u{a0}=\u{a0}0.0000136,", "sigma\u{a0}=\u{a0}0.5)"]);
        assert_eq!(wrapped("(inverse.rate\u{a0}=\u{a0}0.0000136)", 16), ["(inverse.rate\u{a0}=", "0.0000136)"]);
        let path = "/ä".repeat(300);
        let lines = wrapped(&path, 28);
        assert!(lines.iter().all(|line| line.chars().count() <= 28) && lines.concat() == path, "{lines:?}");
    }
}
