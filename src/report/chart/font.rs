//! Widths of text. Charts are laid out by those of Helvetica, which every reader of PDF has; a browser's fonts are near them.

/// Widths of the characters from space to ~, in thousandths of the size, as Adobe publishes them for Helvetica.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278,
    278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722,
    667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556,
    556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// Width of `text` in letters of `size`.
pub fn width(text: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        '\u{a0}' => 278,
        ' '..='~' => WIDTHS[c as usize - ' ' as usize],
        _ => 584,
    };
    text.chars().map(|c| f64::from(of(c))).sum::<f64>() * size / 1000.0
}
