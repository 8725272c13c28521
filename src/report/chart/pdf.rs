//! Drawings as PDF, one page of the drawing's size, in Helvetica, which no file needs to bring along.
//!
//! Written here because a chart is lines, circles and words: a converter from SVG brings 77 packages, and 90 seconds of compiling on two cores.

use std::fmt::Write;

use super::drawing::{Anchor, Drawing, Paint, Shape, TEXT};
use super::font;
use super::palette::Rgb;

const POINTS_PER_MM: f64 = 72.0 / 25.4;
/// Control points of a quarter circle.
const ROUND: f64 = 0.552_285;

/// A PDF file of `drawing`, `mm` wide.
pub fn write(drawing: &Drawing, title: &str, mm: f64) -> Vec<u8> {
    let scale = mm * POINTS_PER_MM / drawing.width;
    let mut page =
        Page { out: format!("q {scale:.5} 0 0 {scale:.5} 0 0 cm 1 j\n").into_bytes(), height: drawing.height, opacities: Vec::new() };
    drawing.shapes.iter().for_each(|shape| page.shape(shape));
    page.put("Q\n");
    let states: String = page.opacities.iter().enumerate().map(|(at, opacity)| format!("/G{at} << /ca {opacity} >> ")).collect();
    let (width, height) = (drawing.width * scale, drawing.height * scale);
    let font = |name: &str| format!("<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>").into_bytes();
    let mut stream = format!("<< /Length {} >>\nstream\n", page.out.len()).into_bytes();
    stream.extend_from_slice(&page.out);
    stream.extend_from_slice(b"endstream");
    let mut information = b"<< /Title (".to_vec();
    information.extend(encoded(title));
    information.extend_from_slice(b") /Producer (biodist) >>");
    file(&[
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:.2} {height:.2}] /Contents 4 0 R \
             /Resources << /Font << /F0 5 0 R /F1 6 0 R >> /ExtGState << {states}>> >> >>"
        )
        .into_bytes(),
        stream,
        font("Helvetica"),
        font("Helvetica-Bold"),
        information,
    ])
}

/// Objects, numbered from 1, of which the first is the catalogue and the last the file's description.
fn file(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (number, object) in (1..).zip(objects) {
        let _ = writeln!(table, "{:010} 00000 n ", out.len());
        out.extend_from_slice(format!("{number} 0 obj\n").as_bytes());
        out.extend_from_slice(object);
        out.extend_from_slice(b"\nendobj\n");
    }
    let start = out.len();
    let trailer =
        format!("trailer\n<< /Size {0} /Root 1 0 R /Info {1} 0 R >>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1, objects.len());
    out.extend_from_slice((table + &trailer).as_bytes());
    out
}

struct Page {
    out: Vec<u8>,
    height: f64,
    opacities: Vec<f64>,
}

impl Page {
    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// PDF's y grows upward.
    fn at(&self, (x, y): (f64, f64)) -> String {
        format!("{x:.2} {:.2}", self.height - y)
    }

    fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Path { points, closed, paint, .. } => {
                let mut path = String::new();
                for (index, point) in points.iter().enumerate() {
                    let _ = write!(path, "{} {} ", self.at(*point), if index == 0 { 'm' } else { 'l' });
                }
                self.painted(&(path + if *closed { "h " } else { "" }), paint);
            }
            Shape::Circle { at: (x, y), radius: r, paint, .. } => {
                let k = ROUND * r;
                let mut path = format!("{} m ", self.at((x + r, *y)));
                for [a, b, to] in [
                    [(*r, k), (k, *r), (0.0, *r)],
                    [(-k, *r), (-r, k), (-r, 0.0)],
                    [(-r, -k), (-k, -r), (0.0, -r)],
                    [(k, -r), (*r, -k), (*r, 0.0)],
                ] {
                    let point = |(dx, dy): (f64, f64)| self.at((x + dx, y + dy));
                    let _ = write!(path, "{} {} {} c ", point(a), point(b), point(to));
                }
                self.painted(&(path + "h "), paint);
            }
            Shape::Text { at: (x, y), anchor, colour, bold, upward, words } => {
                let before = match anchor {
                    Anchor::Start => 0.0,
                    Anchor::Middle => 0.5,
                    Anchor::End => 1.0,
                } * font::width(words, TEXT);
                let place = if *upward {
                    format!("0 1 -1 0 {}", self.at((*x, y + before)))
                } else {
                    format!("1 0 0 1 {}", self.at((x - before, *y)))
                };
                self.put(&format!("BT {} rg /F{} {TEXT} Tf {place} Tm (", number(*colour), u8::from(*bold)));
                self.out.extend(encoded(words));
                self.put(") Tj ET\n");
            }
            Shape::Clip(area) => {
                let corner = self.at((area.left, area.bottom));
                self.put(&format!("q {corner} {:.2} {:.2} re W n\n", area.right - area.left, area.bottom - area.top));
            }
            Shape::Unclip => self.put("Q\n"),
        }
    }

    fn painted(&mut self, path: &str, paint: &Paint) {
        let mut state = String::new();
        if let Some(opacity) = paint.opacity {
            let known = self.opacities.iter().position(|known| *known == opacity);
            let at = known.unwrap_or_else(|| {
                self.opacities.push(opacity);
                self.opacities.len() - 1
            });
            let _ = write!(state, "/G{at} gs ");
        }
        if let Some(colour) = paint.fill {
            let _ = write!(state, "{} rg ", number(colour));
        }
        if let Some((colour, width)) = paint.stroke {
            let _ = write!(state, "{} RG {width} w [{}] 0 d ", number(colour), paint.dashes);
        }
        let operator = match (paint.fill.is_some(), paint.stroke.is_some()) {
            (true, true) => "B",
            (true, false) => "f",
            (false, true) => "S",
            (false, false) => "n",
        };
        self.put(&format!("q {state}{path}{operator} Q\n"));
    }
}

fn number(Rgb(red, green, blue): Rgb) -> String {
    let part = |value: u8| f64::from(value) / 255.0;
    format!("{:.3} {:.3} {:.3}", part(red), part(green), part(blue))
}

/// Text between brackets, in the encoding of Windows' Western languages; "?" stands for what that has not.
fn encoded(words: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '(' | ')' | '\\' => out.extend([b'\\', c as u8]),
            ' '..='~' | '\u{a0}'..='\u{ff}' => out.push(c as u32 as u8),
            '–' => out.push(0x96),
            '—' => out.push(0x97),
            '’' => out.push(0x92),
            '“' => out.push(0x93),
            '”' => out.push(0x94),
            '…' => out.push(0x85),
            _ => out.push(b'?'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::drawing::INK;

    #[test]
    fn every_object_lies_where_the_table_says() {
        let mut drawing = Drawing::new(100.0, 50.0);
        drawing.segment((0.0, 0.0), (100.0, 50.0), INK);
        drawing.text((10.0, 10.0), Anchor::Start, INK, "a (b) \\ ± – α");
        let bytes = write(&drawing, "t", 85.0);
        let find = |what: &[u8]| bytes.windows(what.len()).position(|part| part == what).unwrap();
        // 85 mm are 240.94 points, and the height is half of that.
        find(b"/MediaBox [0 0 240.94 120.47]");
        find(b"(a \\(b\\) \\\\ \xb1 \x96 ?) Tj");
        // From the lower left corner up.
        find(b"0.00 50.00 m 100.00 0.00 l S");
        let start = find(b"startxref\n") + 10;
        let table: usize = std::str::from_utf8(&bytes[start..]).unwrap().lines().next().unwrap().parse().unwrap();
        let lines: Vec<&str> = std::str::from_utf8(&bytes[table..]).unwrap().lines().collect();
        assert_eq!(lines[..2], ["xref", "0 8"]);
        for number in 1..8 {
            let at: usize = lines[2 + number][..10].parse().unwrap();
            assert!(bytes[at..].starts_with(format!("{number} 0 obj\n").as_bytes()), "object {number}");
        }
        let length: usize = std::str::from_utf8(&bytes[find(b"/Length ") + 8..][..8]).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(find(b"endstream") - find(b"stream\n") - 7, length);
    }
}
