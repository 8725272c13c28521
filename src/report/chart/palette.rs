//! What lines look like: a method has the same colour, marker and dash in every chart.
//!
//! One hue and one shape for each rule, full and solid where its models learn in parallel, hollow and dashed where they alternate. The hues
//! were chosen by computation, so that the closest two lie as far apart as can be for eyes of any kind, on white and on dark; shape, filling
//! and dash alone tell all methods apart too, as on paper without colours. Variants of a method keep its hue, which says what they have in
//! common, and have other shapes and dots. Tests hold all of it.

use std::fmt;

use super::drawing::{Drawing, PAPER, Paint, Shape};
use crate::config::{Rule, Schedule};
use crate::report::paper::{METHODS, Method};
use crate::rules::definitions;

/// A colour as it is on white.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// The colours of a family of methods, or of what is drawn round them: on white, and on dark.
const PAIRS: [(Rgb, Rgb); 12] = [
    (DTP, Rgb(0x81, 0xb8, 0xfb)),
    (SDTP, Rgb(0xe9, 0x71, 0x05)),
    (AO_SDTP, Rgb(0x81, 0xde, 0xb2)),
    (FA, Rgb(0xaf, 0x47, 0x99)),
    (DFA, Rgb(0x7f, 0x51, 0xfa)),
    (TP, Rgb(0xe9, 0xdb, 0x11)),
    (BP, Rgb(0xff, 0xff, 0xff)),
    (CONVOLUTIONAL, Rgb(0x99, 0x99, 0x99)),
    (PAPER, DARK),
    (super::drawing::INK, Rgb(0xe6, 0xe8, 0xea)),
    (super::drawing::QUIET, Rgb(0xaa, 0xb1, 0xb8)),
    (super::drawing::GRID, Rgb(0x33, 0x38, 0x3d)),
];

const DTP: Rgb = Rgb(0x07, 0x63, 0xbf);
const SDTP: Rgb = Rgb(0xdd, 0x7a, 0x28);
const AO_SDTP: Rgb = Rgb(0x24, 0x76, 0x39);
const FA: Rgb = Rgb(0x7a, 0x05, 0x6b);
const DFA: Rgb = Rgb(0xc9, 0x68, 0xf9);
const TP: Rgb = Rgb(0x49, 0x3d, 0x00);
const BP: Rgb = Rgb(0x00, 0x00, 0x00);
const CONVOLUTIONAL: Rgb = Rgb(0x80, 0x80, 0x80);
/// The page behind a chart, on a dark screen.
pub const DARK: Rgb = Rgb(0x16, 0x19, 0x1c);

/// What `colour` becomes on a dark screen: its partner, or as much lighter as it takes to be seen.
pub fn on_dark(colour: Rgb) -> Rgb {
    if let Some((_, dark)) = PAIRS.iter().find(|(light, _)| *light == colour) {
        return *dark;
    }
    let mixed = |white: u32| {
        let mix = |value: u8| ((u32::from(value) * (16 - white) + 255 * white) / 16) as u8;
        Rgb(mix(colour.0), mix(colour.1), mix(colour.2))
    };
    (0..16).map(mixed).find(|mixed| contrast(*mixed, DARK) >= 4.0).unwrap_or(Rgb(255, 255, 255))
}

/// Of two colours, as the Web Content Accessibility Guidelines define it: 3 and more can be seen as lines.
pub fn contrast(a: Rgb, b: Rgb) -> f64 {
    let light = |colour: Rgb| {
        let [red, green, blue] = linear(colour);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (a, b) = (light(a), light(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Amounts of light.
fn linear(Rgb(red, green, blue): Rgb) -> [f64; 3] {
    [red, green, blue].map(|value| {
        let value = f64::from(value) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    TriangleDown,
    Cross,
    Plus,
}

const MARKERS: [Marker; 7] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::TriangleDown, Marker::Cross, Marker::Plus];

/// Colour, marker and dash of a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    pub colour: Rgb,
    pub marker: Marker,
    pub filled: bool,
    pub dashed: bool,
    /// Every second variant of a method.
    pub dotted: bool,
}

impl Look {
    /// The line's own paint.
    pub(super) fn line(&self) -> Paint {
        let dashes = match (self.dashed, self.dotted) {
            (false, false) => "",
            (true, false) => "6 3",
            (false, true) => "1.6 2.4",
            (true, true) => "9 2.4 1.6 2.4",
        };
        Paint { dashes, ..Paint::line(self.colour, 1.7) }
    }

    /// The marker at a place.
    pub(super) fn mark(&self, (x, y): (f64, f64), tip: &str, out: &mut Drawing) {
        let paint = Paint { fill: Some(if self.filled { self.colour } else { PAPER }), ..Paint::line(self.colour, 1.4) };
        let mut polygon = |corners: &[(f64, f64)]| {
            out.path(corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect(), true, paint, tip);
        };
        match self.marker {
            Marker::Circle => out.shapes.push(Shape::Circle { at: (x, y), radius: 3.4, paint, tip: tip.to_owned() }),
            Marker::Square => polygon(&[(-3.1, -3.1), (3.1, -3.1), (3.1, 3.1), (-3.1, 3.1)]),
            Marker::Triangle => polygon(&[(0.0, -4.2), (4.0, 3.0), (-4.0, 3.0)]),
            Marker::Diamond => polygon(&[(0.0, -4.5), (4.5, 0.0), (0.0, 4.5), (-4.5, 0.0)]),
            Marker::TriangleDown => polygon(&[(0.0, 4.2), (4.0, -3.0), (-4.0, -3.0)]),
            Marker::Cross => polygon(&star(std::f64::consts::FRAC_PI_4)),
            Marker::Plus => polygon(&star(0.0)),
        }
    }
}

/// Four thin rays, the first of which points into this direction.
fn star(direction: f64) -> Vec<(f64, f64)> {
    let corner = |at: usize| {
        let radius = if at.is_multiple_of(2) { 5.0 } else { 1.3 };
        let angle = direction + at as f64 * std::f64::consts::FRAC_PI_4;
        (radius * angle.cos(), radius * angle.sin())
    };
    (0..8).map(corner).collect()
}

/// Colours of lines that stand for no method of the paper: one for each rule that came after it and is built in, and one more.
const OTHERS: [Rgb; 10] = [
    Rgb(0x00, 0x83, 0x8f),
    Rgb(0xb0, 0x3a, 0x5b),
    Rgb(0x5e, 0x60, 0xce),
    Rgb(0x8d, 0x6e, 0x10),
    Rgb(0x60, 0x7d, 0x8b),
    Rgb(0x6d, 0x4c, 0x41),
    Rgb(0xf0, 0x00, 0x8c),
    Rgb(0x2d, 0x9a, 0x00),
    Rgb(0xd5, 0x10, 0x10),
    Rgb(0x2a, 0x1a, 0xe0),
];

/// The look of a method; `variant` counts the lines of the same method before this one in its chart.
pub fn of_method(method: Method, variant: usize) -> Look {
    let dashed = method.rule.has_inverses() && method.schedule == Schedule::Alternating;
    let (colour, marker) = match method.rule.name() {
        "dtp" => (DTP, Marker::Circle),
        "sdtp" => (SDTP, Marker::Square),
        "ao_sdtp" => (AO_SDTP, Marker::Triangle),
        "tp" => (TP, Marker::Plus),
        "fa" => (FA, Marker::Diamond),
        "dfa" => (DFA, Marker::TriangleDown),
        "bp" if method.convolutional => (CONVOLUTIONAL, Marker::Plus),
        "bp" => (BP, Marker::Cross),
        // Rules from elsewhere, by their place among such.
        name => {
            let mut elsewhere = definitions().filter(|rule| METHODS.iter().all(|method| method.rule.name() != rule.name));
            let place = elsewhere.position(|rule| rule.name == name).unwrap_or(0);
            (OTHERS[place % OTHERS.len()], MARKERS[place % MARKERS.len()])
        }
    };
    // The paper's convolutional network has a look of its own, and those of other rules are hollow.
    let hollow = dashed || method.convolutional && method.rule != Rule::BP;
    let first = MARKERS.iter().position(|known| *known == marker).unwrap_or(0);
    // Of an odd number of markers every second time round the other ones are dotted: twice as many until the filling changes too.
    let rounds = variant / (2 * MARKERS.len());
    Look {
        colour,
        marker: MARKERS[(first + variant) % MARKERS.len()],
        filled: hollow != rounds.is_multiple_of(2),
        dashed,
        dotted: !variant.is_multiple_of(2),
    }
}

/// The look of line `index` of those that differ in nothing that has a look.
pub fn of_variant(index: usize) -> Look {
    let (colour, marker) = (OTHERS[index % OTHERS.len()], MARKERS[index % MARKERS.len()]);
    Look { colour, marker, filled: !(index / OTHERS.len()).is_multiple_of(2), dashed: false, dotted: false }
}

/// The look of layer `index` of `count`: from dark at the bottom to light at the top.
pub fn of_layer(index: usize, count: usize) -> Look {
    // Points of the viridis map, without its end that is too light on white.
    const STOPS: [[f64; 3]; 5] = [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [78.0, 176.0, 88.0], [140.0, 165.0, 30.0]];
    let at = if count > 1 { index as f64 / (count - 1) as f64 * (STOPS.len() - 1) as f64 } else { 0.0 };
    let below = (at as usize).min(STOPS.len() - 2);
    let mix = |channel: usize| {
        let [from, to] = [STOPS[below][channel], STOPS[below + 1][channel]];
        (from + (at - below as f64) * (to - from)).round() as u8
    };
    Look { colour: Rgb(mix(0), mix(1), mix(2)), marker: MARKERS[index % MARKERS.len()], filled: true, dashed: false, dotted: false }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Colours as people without one kind of cone see them, in linear light (Machado, Oliveira and Fernandes 2009, full severity).
    const EYES: [(&str, [[f64; 3]; 3]); 3] = [
        ("normal", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("deuteranopia", [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
        ("protanopia", [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    ];

    /// Distance of two colours to an eye in Oklab, where 1 lies between black and white.
    fn distance(eye: &[[f64; 3]; 3], a: Rgb, b: Rgb) -> f64 {
        let dot = |row: &[f64; 3], value: &[f64; 3]| row.iter().zip(value).map(|(a, b)| a * b).sum::<f64>();
        let lab = |colour: Rgb| {
            let seen = eye.each_ref().map(|row| dot(row, &linear(colour)).clamp(0.0, 1.0));
            let cones = [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ];
            let cones = cones.each_ref().map(|row| dot(row, &seen).cbrt());
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
            .each_ref()
            .map(|row| dot(row, &cones))
        };
        lab(a).iter().zip(lab(b)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn every_eye_tells_the_rules_apart_on_white_and_on_dark() {
        let colours: HashSet<Rgb> = METHODS.iter().map(|method| of_method(*method, 0).colour).collect();
        let mut colours: Vec<Rgb> = colours.into_iter().collect();
        colours.sort();
        assert_eq!(colours.len(), 8, "a hue for each rule, and one for the convolutional network");
        for (at, a) in colours.iter().enumerate() {
            assert!(contrast(*a, PAPER) >= 3.0 && contrast(on_dark(*a), DARK) >= 3.5, "{a}");
            for b in &colours[..at] {
                for (eye, matrix) in &EYES {
                    let apart = [distance(matrix, *a, *b), distance(matrix, on_dark(*a), on_dark(*b))];
                    assert!(apart.iter().all(|distance| *distance >= 0.09), "{a} and {b}, {eye}: {apart:?}");
                }
            }
        }
        // The paper's own rule is not the palest.
        assert!(colours.iter().filter(|colour| contrast(**colour, PAPER) < contrast(DTP, PAPER)).count() >= 2);
    }

    #[test]
    fn without_colours_methods_differ_too() {
        let looks: HashSet<(Marker, bool, bool)> =
            METHODS[..10].iter().map(|method| of_method(*method, 0)).map(|look| (look.marker, look.filled, look.dashed)).collect();
        assert_eq!(looks.len(), 10, "the paper's");
        let convolutional = [Rule::FA, Rule::DFA].map(|rule| Method { rule, schedule: Schedule::Parallel, convolutional: true });
        let looks: HashSet<Look> = METHODS.iter().chain(&convolutional).map(|method| of_method(*method, 0)).collect();
        assert_eq!(looks.len(), METHODS.len() + 2);
        assert_eq!(convolutional.map(Method::name), ["FA ConvNet", "DFA ConvNet"]);
    }

    /// As many as a panel may hold, of every rule that there is.
    #[test]
    fn lines_of_several_methods_with_several_variants_look_different() {
        let mut methods: Vec<Method> = METHODS.to_vec();
        let known = |rule: &str| METHODS.iter().any(|method| method.rule.name() == rule);
        for rule in definitions().filter(|rule| !known(rule.name)) {
            let rule: Rule = serde_json::from_str(&format!("{:?}", rule.name)).unwrap();
            methods.push(Method { rule, schedule: Schedule::Parallel, convolutional: false });
        }
        assert_eq!(methods.len(), 21, "one line for each rule of the registry, and the paper's schedules and network");
        let mut looks: HashSet<(Rgb, Marker, bool, &str)> = HashSet::new();
        for method in &methods {
            for variant in 0..10 {
                let look = of_method(*method, variant);
                assert!(looks.insert((look.colour, look.marker, look.filled, look.line().dashes)), "{} {variant}", method.name());
                assert!(contrast(look.colour, PAPER) >= 3.0 && contrast(on_dark(look.colour), DARK) >= 3.5, "{}", look.colour);
            }
        }
    }

    #[test]
    fn variants_and_layers_look_different() {
        let variants: HashSet<Look> = (0..28).map(|variant| of_method(METHODS[0], variant)).collect();
        assert_eq!(variants.len(), 28);
        assert!(variants.iter().all(|look| look.colour == DTP), "the hue is the rule's");
        let layers: HashSet<Rgb> = (0..8).map(|index| of_layer(index, 8).colour).collect();
        assert_eq!(layers.len(), 8);
        for layer in layers {
            assert!(contrast(layer, PAPER) >= 2.7 && contrast(on_dark(layer), DARK) >= 4.0, "{layer}");
        }
    }
}
