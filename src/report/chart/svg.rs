//! Drawings as SVG. Values show under the pointer without a script; colours are attributes, which a page can overrule for a dark screen.

use std::fmt::Write;

use super::drawing::{Anchor, Area, Drawing, PAPER, Paint, Shape, TEXT};
use super::palette::Rgb;
use crate::report::html::escaped;

const FONTS: &str = "Helvetica, Arial, 'Liberation Sans', system-ui, sans-serif";

/// An `<svg>` element; `size` are attributes that say how large it is, on paper or within a page.
pub fn write(drawing: &Drawing, title: &str, size: &str) -> String {
    let Drawing { width, height, shapes } = drawing;
    let mut out = format!(
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" {size} \
         font-family=\"{FONTS}\" font-size=\"{TEXT}\" aria-label=\"{}\">\n<rect width=\"100%\" height=\"100%\" fill=\"{PAPER}\"/>\n",
        escaped(title)
    );
    for shape in shapes {
        match shape {
            Shape::Path { points, closed, paint, tip } => {
                element(&mut out, &format!("path d=\"{}\"", commands(points, *closed)), paint, tip)
            }
            Shape::Circle { at, radius, paint, tip } => {
                element(&mut out, &format!("circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"", at.0, at.1), paint, tip);
            }
            Shape::Text { at: (x, y), anchor, colour, bold, upward, words } => {
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                let weight = if *bold { " font-weight=\"bold\"" } else { "" };
                let turn = if *upward { format!(" transform=\"rotate(-90 {x:.1} {y:.1})\"") } else { String::new() };
                let _ = writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\"{weight}{turn}>{}</text>",
                    escaped(words)
                );
            }
            Shape::Clip(Area { left, right, top, bottom }) => {
                let (width, height) = (right - left, bottom - top);
                let _ = writeln!(
                    out,
                    "<svg x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                     viewBox=\"{left:.1} {top:.1} {width:.1} {height:.1}\">"
                );
            }
            Shape::Unclip => out += "</svg>\n",
        }
    }
    out + "</svg>"
}

fn commands(points: &[(f64, f64)], closed: bool) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    if closed { path + "Z" } else { path }
}

fn element(out: &mut String, shape: &str, paint: &Paint, tip: &str) {
    let fill = paint.fill.map_or("none".to_owned(), |colour: Rgb| colour.to_string());
    let _ = write!(out, "<{shape} fill=\"{fill}\"");
    if let Some(opacity) = paint.opacity {
        let _ = write!(out, " fill-opacity=\"{opacity}\"");
    }
    if let Some((colour, width)) = paint.stroke {
        let _ = write!(out, " stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"");
    }
    if !paint.dashes.is_empty() {
        *out += &format!(" stroke-dasharray=\"{}\"", paint.dashes);
    }
    match tip {
        "" => *out += "/>\n",
        tip => {
            let element = shape.split(' ').next().unwrap_or_default();
            let _ = writeln!(out, "><title>{}</title></{element}>", escaped(tip));
        }
    }
}
