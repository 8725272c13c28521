//! Charts, drawn by hand: panels beside one another, and a legend below.
//!
//! A plotting crate places text by metrics of its own fonts and knows neither tooltips nor pages that grow narrow. Here a page lays out
//! panels and legends itself, values show under the pointer without a script, and for papers the same panels become one figure of a given
//! width, whose letters have the same size on paper whatever the width is.

mod axis;
pub mod drawing;
mod font;
mod histogram;
mod lines;
mod palette;
mod pdf;
mod svg;

use drawing::{Anchor, Drawing, INK, PAPER, Shape, TEXT, wrapped};

pub use axis::Axis;
pub use histogram::Histogram;
pub use lines::{Line, LineChart};
pub use palette::{DARK, Look, Rgb, of_layer, of_method, of_variant, on_dark};

/// Of a drawing's unit on paper: letters of 8 points.
const MM: f64 = 8.0 / TEXT * 25.4 / 72.0;
/// Width of a panel where there is room for two; where there are more panels, three find room.
const PANEL: [f64; 2] = [440.0, 320.0];
/// A line of a legend.
const LEGEND_LINE: f64 = 18.0;
const SWATCH: f64 = 30.0;

/// A figure.
pub struct Chart {
    pub panels: Vec<Panel>,
    /// Of what all panels share.
    pub legend: Vec<Entry>,
}

pub struct Panel {
    /// Empty where there is one panel.
    pub title: String,
    pub plot: Plot,
    /// Of what this panel has for itself.
    pub legend: Vec<Entry>,
}

pub enum Plot {
    Lines(LineChart),
    Histogram(Histogram),
}

/// An entry of a legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub look: Look,
}

impl Entry {
    /// One for each line, in their order.
    pub fn of(lines: &[Line]) -> Vec<Entry> {
        lines.iter().map(|line| Entry { name: line.name.clone(), look: line.look.clone() }).collect()
    }

    /// The look alone.
    fn swatch(&self) -> Drawing {
        let mut out = Drawing::new(SWATCH, 14.0);
        out.path(vec![(0.0, 7.0), (SWATCH, 7.0)], false, self.look.line(), "");
        self.look.mark((SWATCH / 2.0, 7.0), "", &mut out);
        out
    }

    pub fn swatch_svg(&self) -> String {
        svg::write(&self.swatch(), &self.name, &format!("width=\"{SWATCH}\" height=\"14\""))
    }
}

impl Plot {
    fn draw(&self, width: f64, left: f64) -> Drawing {
        match self {
            Plot::Lines(chart) => chart.draw(width, left),
            Plot::Histogram(chart) => chart.draw(width, left),
        }
    }

    fn breadth(&self) -> f64 {
        match self {
            Plot::Lines(chart) => chart.y.breadth(),
            Plot::Histogram(chart) => chart.y.breadth(),
        }
    }

    /// Headings of [`Plot::rows`].
    fn columns(&self) -> [&str; 4] {
        match self {
            Plot::Lines(chart) => ["line", chart.x_name.trim_end_matches(':'), "value", "deviation"],
            Plot::Histogram(_) => ["search", "value", "", ""],
        }
    }

    fn rows(&self) -> Vec<[String; 4]> {
        match self {
            Plot::Lines(chart) => {
                let of = |line: &Line| {
                    let row = |(x, y): &(f64, crate::report::Spread)| {
                        [line.name.clone(), x.to_string(), y.mean.to_string(), y.deviation.map_or(String::new(), |value| value.to_string())]
                    };
                    line.points.iter().map(row).collect::<Vec<_>>()
                };
                chart.lines.iter().flat_map(of).collect()
            }
            Plot::Histogram(chart) => {
                let row = |value: &f64| [chart.name.clone(), value.to_string(), String::new(), String::new()];
                chart.values.iter().map(row).collect()
            }
        }
    }
}

impl Chart {
    /// Width that a panel has in a page.
    fn panel_width(&self) -> f64 {
        PANEL[usize::from(self.panels.len() > 2)]
    }

    /// Room on the left of every plot: with as much as the widest marks take, all are equally wide and high, in whatever rows a page puts them.
    fn left(&self) -> f64 {
        self.panels.iter().map(|panel| panel.plot.breadth()).fold(0.0, f64::max)
    }

    /// The plots, each with its panel.
    pub fn panels_svg(&self, title: &str) -> impl Iterator<Item = (&Panel, String)> {
        let (width, left) = (self.panel_width(), self.left());
        self.panels.iter().map(move |panel| {
            let name = if panel.title.is_empty() { title.to_owned() } else { format!("{title}: {}", panel.title) };
            (panel, svg::write(&panel.plot.draw(width, left), &name, ""))
        })
    }

    /// Every colour in it.
    pub fn colours(&self) -> Vec<Rgb> {
        let shapes = self.compose(self.panel_width()).shapes.into_iter();
        let of = |shape| match shape {
            Shape::Path { paint, .. } | Shape::Circle { paint, .. } => vec![paint.fill, paint.stroke.map(|(colour, _)| colour)],
            Shape::Text { colour, .. } => vec![Some(colour)],
            Shape::Clip(_) | Shape::Unclip => vec![],
        };
        shapes.flat_map(of).flatten().chain([PAPER]).collect()
    }

    /// The whole figure, `mm` wide, as files: SVG and PDF.
    pub fn files(&self, title: &str, mm: f64) -> (String, Vec<u8>) {
        let drawing = self.compose(mm / MM);
        let height = drawing.height * mm / drawing.width;
        (svg::write(&drawing, title, &format!("width=\"{mm}mm\" height=\"{height:.2}mm\"")), pdf::write(&drawing, title, mm))
    }

    /// Every point, a line each.
    pub fn table(&self) -> Vec<Vec<String>> {
        let Some(first) = self.panels.first() else { return vec![] };
        let titles = std::iter::once("panel").chain(first.plot.columns()).filter(|title| !title.is_empty()).map(str::to_owned);
        let mut table = vec![titles.collect::<Vec<_>>()];
        let columns = table[0].len();
        for panel in &self.panels {
            let row = |row: [String; 4]| std::iter::once(panel.title.clone()).chain(row).take(columns).collect();
            table.extend(panel.plot.rows().into_iter().map(row));
        }
        table
    }

    /// Panels in rows, each with its title above and its legend below, and the common legend below all.
    fn compose(&self, width: f64) -> Drawing {
        let fit = (width / self.panel_width()).round().max(1.0) as usize;
        let columns = fit.min(self.panels.len().max(1));
        // A single panel is not stretched to the width of a page.
        let each = (width / columns as f64).min(1.4 * PANEL[0]);
        let mut out = Drawing::new(width, 0.0);
        for row in self.panels.chunks(columns) {
            let mut lowest = out.height;
            for (column, panel) in row.iter().enumerate() {
                let left = column as f64 * each;
                let mut y = out.height;
                if !panel.title.is_empty() {
                    out.heading((left + 10.0, y + 14.0), &panel.title);
                    y += 18.0;
                }
                let plot = panel.plot.draw(each, self.left());
                let below = y + plot.height;
                out.place(plot, left, y);
                lowest = f64::max(lowest, legend(&panel.legend, left + 10.0, left + each, below, &mut out));
            }
            out.height = lowest + 4.0;
        }
        out.height = legend(&self.legend, 10.0, width, out.height, &mut out) + 4.0;
        out
    }
}

/// Draws a legend from `left` to `right` below `top`, in as many lines as it takes; returns where it ends.
fn legend(entries: &[Entry], left: f64, right: f64, top: f64, out: &mut Drawing) -> f64 {
    let gap = SWATCH + 6.0;
    let (mut x, mut y) = (left, top);
    for entry in entries {
        let width = gap + font::width(&entry.name, TEXT) + 16.0;
        if x > left && x + width > right {
            (x, y) = (left, y + LEGEND_LINE);
        }
        out.place(entry.swatch(), x, y + 2.0);
        for (line, words) in wrapped(&entry.name, right - left - gap).iter().enumerate() {
            y += if line > 0 { LEGEND_LINE } else { 0.0 };
            out.text((x + gap, y + 13.5), Anchor::Start, INK, words);
        }
        x += width;
    }
    if entries.is_empty() { top } else { y + LEGEND_LINE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Spread;

    #[test]
    fn plots_of_a_row_stand_equally_high() {
        let panel = |high: f64| {
            let point = |x: f64, y: f64| (x, Spread { mean: y, deviation: None });
            let lines = vec![Line { name: "a".into(), look: of_layer(0, 1), points: vec![point(0.0, 0.0), point(1.0, high)] }];
            let (x, y) = (Axis::counting("Epoch", 0.0, 1.0), Axis::linear("Error", 0.0, high));
            Panel {
                title: "A".into(),
                plot: Plot::Lines(LineChart { x, y, x_name: "epoch".into(), unit: String::new(), lines }),
                legend: vec![],
            }
        };
        let chart = Chart { panels: vec![panel(5.0), panel(1e6)], legend: vec![] };
        let breadth = |at: usize| chart.panels[at].plot.breadth();
        assert!(breadth(1) > breadth(0) + 20.0, "{} and {}", breadth(0), breadth(1));
        let drawn = chart.compose(800.0);
        let plots: Vec<[f64; 3]> = drawn
            .shapes
            .iter()
            .filter_map(|shape| match shape {
                Shape::Clip(area) => Some([area.top, area.bottom, area.right - area.left]),
                _ => None,
            })
            .collect();
        assert!(plots.len() == 2 && plots[0] == plots[1], "{plots:?}");
        let sizes: Vec<String> =
            chart.panels_svg("").map(|(_, svg)| svg.split("viewBox=").nth(1).unwrap().split('>').next().unwrap().to_owned()).collect();
        assert_eq!(sizes[0], sizes[1]);
    }
}
