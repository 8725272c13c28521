//! What lines look like: a method has the same colour and marker in every chart.
//!
//! Colours follow Okabe and Ito's palette, which people with any kind of colour vision can tell apart: one hue for each family, light
//! and hollow where its models learn in parallel, dark and filled where they alternate.

use crate::config::Schedule;
use crate::report::paper::Method;
use crate::rules::definitions;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    TriangleDown,
}

const MARKERS: [Marker; 5] = [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::TriangleDown];

/// Colour and marker of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub colour: String,
    pub marker: Marker,
    pub filled: bool,
}

impl Look {
    fn new(colour: &str, marker: Marker, filled: bool) -> Look {
        Look { colour: colour.to_owned(), marker, filled }
    }

    /// The marker at a place.
    pub(super) fn draw(&self, x: f64, y: f64, title: &str) -> String {
        let polygon = |corners: [(f64, f64); 4], count: usize| {
            let corners: Vec<String> = corners[..count].iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
            format!("polygon points=\"{}\"", corners.join(" "))
        };
        let shape = match self.marker {
            Marker::Circle => format!("circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\""),
            Marker::Square => polygon([(-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)], 4),
            Marker::Triangle => polygon([(0.0, -4.4), (4.2, 3.2), (-4.2, 3.2), (0.0, 0.0)], 3),
            Marker::Diamond => polygon([(0.0, -4.7), (4.7, 0.0), (0.0, 4.7), (-4.7, 0.0)], 4),
            Marker::TriangleDown => polygon([(0.0, 4.4), (4.2, -3.2), (-4.2, -3.2), (0.0, 0.0)], 3),
        };
        let element = shape.split(' ').next().unwrap_or_default();
        let fill = if self.filled { &self.colour } else { "#fff" };
        let title = if title.is_empty() { String::new() } else { format!("<title>{}</title>", super::escaped(title)) };
        format!("<{shape} fill=\"{fill}\" stroke=\"{}\" stroke-width=\"1.5\">{title}</{element}>\n", self.colour)
    }
}

/// The look of a method; `variant` counts the lines of the same method before this one in its chart.
pub fn of_method(method: Method, variant: usize) -> Look {
    const OTHERS: [&str; 6] = ["#882255", "#332288", "#117733", "#8a8a00", "#aa4499", "#7f4f24"];
    let alternating = method.schedule == Schedule::Alternating;
    let (parallel_colour, alternating_colour, marker) = match method.rule.name() {
        "dtp" => ("#56b4e9", "#0072b2", Marker::Circle),
        "sdtp" => ("#e69f00", "#d55e00", Marker::Square),
        "ao_sdtp" => ("#3fbf95", "#00684c", Marker::Triangle),
        "tp" => ("#b5a642", "#6b5f14", Marker::TriangleDown),
        "fa" => ("#cc79a7", "#cc79a7", Marker::Diamond),
        "dfa" => ("#7b3294", "#7b3294", Marker::TriangleDown),
        "bp" if method.convolutional => ("#808080", "#808080", Marker::Square),
        "bp" => ("#000000", "#000000", Marker::Circle),
        // Rules from elsewhere, by their place among all.
        name => {
            let place = definitions().position(|rule| rule.name == name).unwrap_or(0);
            (OTHERS[place % OTHERS.len()], OTHERS[(place + 1) % OTHERS.len()], Marker::Diamond)
        }
    };
    let filled = alternating || (!method.rule.trains_inverses() && !method.convolutional);
    let colour = match variant {
        0 if alternating => alternating_colour,
        0 => parallel_colour,
        // Of each method another one first, since several may have variants.
        variant => OTHERS[(variant - 1 + method.order()) % OTHERS.len()],
    };
    // With another number of markers than of colours, it takes thirty variants until two look alike.
    let place = MARKERS.iter().position(|known| *known == marker).unwrap_or(0);
    Look::new(colour, MARKERS[(place + variant) % MARKERS.len()], filled)
}

/// The look of layer `index` of `count`: from dark at the bottom to light at the top.
pub fn of_layer(index: usize, count: usize) -> Look {
    // Points of the viridis map, without its end that is too light on white.
    const STOPS: [[f64; 3]; 5] = [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [94.0, 201.0, 98.0], [170.0, 200.0, 40.0]];
    let at = if count > 1 { index as f64 / (count - 1) as f64 * (STOPS.len() - 1) as f64 } else { 0.0 };
    let below = (at as usize).min(STOPS.len() - 2);
    let mix = |channel: usize| {
        let [from, to] = [STOPS[below][channel], STOPS[below + 1][channel]];
        (from + (at - below as f64) * (to - from)).round() as u8
    };
    let colour = format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2));
    Look::new(&colour, MARKERS[index % MARKERS.len()], true)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::report::paper::METHODS;

    #[test]
    fn no_two_methods_look_alike() {
        let looks: HashSet<(String, bool)> =
            METHODS.iter().map(|method| of_method(*method, 0)).map(|look| (look.colour, look.filled)).collect();
        assert_eq!(looks.len(), METHODS.len());
        let variants: HashSet<String> = (0..30).map(|variant| format!("{:?}", of_method(METHODS[0], variant))).collect();
        assert_eq!(variants.len(), 30);
        let first: HashSet<String> = METHODS.iter().map(|method| format!("{:?}", of_method(*method, 1))).collect();
        assert_eq!(first.len(), METHODS.len());
        let layers: HashSet<String> = (0..8).map(|index| of_layer(index, 8).colour).collect();
        assert_eq!(layers.len(), 8);
        assert_eq!((of_layer(0, 1).colour, of_layer(7, 8).colour), ("#440154".to_owned(), "#aac828".to_owned()));
    }
}
