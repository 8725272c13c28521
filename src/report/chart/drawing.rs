//! What charts are made of, before it has a format: [`super::svg`] and [`super::pdf`] write it.

use super::font;
use super::palette::Rgb;

pub const INK: Rgb = Rgb(0x1c, 0x20, 0x24);
pub const QUIET: Rgb = Rgb(0x4a, 0x51, 0x58);
pub const GRID: Rgb = Rgb(0xe3, 0xe6, 0xe9);
pub const PAPER: Rgb = Rgb(0xff, 0xff, 0xff);
/// Size of all text, in a drawing's units.
pub const TEXT: f64 = 13.0;

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// How a shape is filled and outlined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paint {
    pub fill: Option<Rgb>,
    pub opacity: Option<f64>,
    /// Colour and width.
    pub stroke: Option<(Rgb, f64)>,
    /// Lengths of strokes and gaps; empty for a whole line.
    pub dashes: &'static str,
}

impl Paint {
    pub fn line(colour: Rgb, width: f64) -> Paint {
        Paint { stroke: Some((colour, width)), ..Paint::default() }
    }

    pub fn filled(colour: Rgb) -> Paint {
        Paint { fill: Some(colour), ..Paint::default() }
    }
}

#[derive(Clone, Debug)]
pub enum Shape {
    /// A line through points; closed where it is an outline.
    Path {
        points: Vec<(f64, f64)>,
        closed: bool,
        paint: Paint,
        tip: String,
    },
    Circle {
        at: (f64, f64),
        radius: f64,
        paint: Paint,
        tip: String,
    },
    Text {
        at: (f64, f64),
        anchor: Anchor,
        colour: Rgb,
        bold: bool,
        upward: bool,
        words: String,
    },
    /// What follows shows within the area alone, up to [`Shape::Unclip`].
    Clip(Area),
    Unclip,
}

/// Shapes on a sheet; y grows downward.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
}

impl Drawing {
    pub fn new(width: f64, height: f64) -> Drawing {
        Drawing { width, height, shapes: Vec::new() }
    }

    pub fn path(&mut self, points: Vec<(f64, f64)>, closed: bool, paint: Paint, tip: &str) {
        self.shapes.push(Shape::Path { points, closed, paint, tip: tip.to_owned() });
    }

    pub fn segment(&mut self, from: (f64, f64), to: (f64, f64), colour: Rgb) {
        self.path(vec![from, to], false, Paint::line(colour, 1.0), "");
    }

    pub fn text(&mut self, at: (f64, f64), anchor: Anchor, colour: Rgb, words: &str) {
        self.shapes.push(Shape::Text { at, anchor, colour, bold: false, upward: false, words: words.to_owned() });
    }

    pub fn heading(&mut self, at: (f64, f64), words: &str) {
        self.shapes.push(Shape::Text { at, anchor: Anchor::Start, colour: INK, bold: true, upward: false, words: words.to_owned() });
    }

    /// Centred text that reads upward.
    pub fn upward(&mut self, at: (f64, f64), words: &str) {
        self.shapes.push(Shape::Text { at, anchor: Anchor::Middle, colour: INK, bold: false, upward: true, words: words.to_owned() });
    }

    /// What `draw` adds shows within `area` alone.
    pub fn clip(&mut self, area: Area, draw: impl FnOnce(&mut Drawing)) {
        self.shapes.push(Shape::Clip(area));
        draw(self);
        self.shapes.push(Shape::Unclip);
    }

    /// Puts another drawing into this one, with its corner at `(x, y)`.
    pub fn place(&mut self, other: Drawing, x: f64, y: f64) {
        let moved = |(a, b): (f64, f64)| (a + x, b + y);
        self.shapes.extend(other.shapes.into_iter().map(|shape| match shape {
            Shape::Path { points, closed, paint, tip } => {
                Shape::Path { points: points.into_iter().map(moved).collect(), closed, paint, tip }
            }
            Shape::Circle { at, radius, paint, tip } => Shape::Circle { at: moved(at), radius, paint, tip },
            Shape::Text { at, anchor, colour, bold, upward, words } => Shape::Text { at: moved(at), anchor, colour, bold, upward, words },
            Shape::Clip(Area { left, right, top, bottom }) => {
                Shape::Clip(Area { left: left + x, right: right + x, top: top + y, bottom: bottom + y })
            }
            Shape::Unclip => Shape::Unclip,
        }));
    }
}

/// Words in lines that are no wider than `width`. No-break spaces stay within a word, unless that is wider than a line.
pub fn wrapped(words: &str, width: f64) -> Vec<String> {
    let fits = |text: &str| font::width(text, TEXT) <= width;
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if fits(&format!("{line} {word}")) => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
        while let Some(line) = lines.pop_if(|line| !fits(line) && line.chars().count() > 1) {
            // One character at least, however narrow the lines are.
            let mut ends = line.char_indices().skip(1).map(|(end, _)| end);
            let one = ends.next().unwrap_or(line.len());
            let most = ends.take_while(|end| fits(&line[..*end])).last().unwrap_or(one);
            let end = line[..most].rfind('\u{a0}').filter(|end| *end > 0).unwrap_or(most);
            lines.push(line[..end].to_owned());
            lines.push(line[end..].trim_start_matches('\u{a0}').to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_asked() {
        assert_eq!(wrapped("SDTP, parallel (sigma\u{a0}=\u{a0}0.5)", 90.0), ["SDTP, parallel", "(sigma\u{a0}=\u{a0}0.5)"]);
        assert_eq!(wrapped("(inverse.rate\u{a0}=\u{a0}0.0000136)", 100.0), ["(inverse.rate\u{a0}=", "0.0000136)"]);
        let path = "/ä".repeat(300);
        let lines = wrapped(&path, 150.0);
        assert!(lines.iter().all(|line| font::width(line, TEXT) <= 150.0) && lines.concat() == path, "{lines:?}");
    }
}
