//! Line charts.

use super::axis::Axis;
use super::palette::Look;
use super::{Area, CHARACTER, INK, WIDTH, document, escaped, text, wrapped};
use crate::report::spread::Spread;

/// Markers on a line, at most.
const MARKERS: usize = 12;
/// Characters in a line of the legend.
const LEGEND_WIDTH: usize = 28;
const LEGEND_LINE: f64 = 17.0;
const PLOT_HEIGHT: f64 = 390.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    Solid,
    Dashed,
    Dotted,
}

impl Stroke {
    fn dashes(self) -> &'static str {
        match self {
            Stroke::Solid => "",
            Stroke::Dashed => " stroke-dasharray=\"7 4\"",
            Stroke::Dotted => " stroke-dasharray=\"2 3\"",
        }
    }
}

/// A line of a chart. Lines of one name share an entry of the legend.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    /// What of it is drawn: "test", "train". Says a stroke's meaning in the legend.
    pub part: String,
    pub look: Look,
    pub stroke: Stroke,
    /// Ascending in x. Where a value has a deviation, a band or a bar shows it.
    pub points: Vec<(f64, Spread)>,
}

pub struct LineChart {
    /// Told apart from the page's other charts by this.
    pub id: String,
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    /// What x counts, in tooltips: "epoch".
    pub x_name: String,
    pub unit: String,
    pub lines: Vec<Line>,
}

impl LineChart {
    pub fn svg(&self) -> String {
        let legend = self.legend();
        let widest = legend.iter().flat_map(|entry| &entry.words).map(|line| line.chars().count()).max().unwrap_or(0).min(LEGEND_WIDTH);
        let legend_width = 52.0 + CHARACTER * widest as f64;
        let area = Area { left: self.y.breadth(), right: WIDTH - legend_width - 22.0, top: 14.0, bottom: 14.0 + PLOT_HEIGHT };
        let legend_height: f64 = legend.iter().map(|entry| entry.height()).sum();
        let height = (area.bottom + 56.0).max(legend_height + 30.0);
        let mut out = self.x.below(area, true) + &self.y.left(area);
        let clip = format!("clip-{}", self.id);
        out += &format!(
            "<clipPath id=\"{clip}\"><rect x=\"{}\" y=\"{}\" width=\"{:.1}\" height=\"{:.1}\"/></clipPath>\n<g clip-path=\"url(#{clip})\">\n",
            area.left - 6.0,
            area.top - 6.0,
            area.right - area.left + 12.0,
            area.bottom - area.top + 12.0
        );
        for line in &self.lines {
            out += &self.band(line, area);
        }
        for line in &self.lines {
            out += &self.curve(line, area);
        }
        for (index, line) in self.lines.iter().enumerate() {
            out += &self.markers(line, index, area);
        }
        out += "</g>\n";
        let (x, mut y) = (area.right + 22.0, area.top + 8.0);
        for entry in &legend {
            out += &entry.draw(x, y);
            y += entry.height();
        }
        document(&self.title, height, &out)
    }

    fn at(&self, area: Area, x: f64, y: f64) -> (f64, f64) {
        (self.x.place(x, area.left, area.right), self.y.place(y, area.bottom, area.top))
    }

    /// Mean plus and minus the deviation, where any point has one.
    fn band(&self, line: &Line, area: Area) -> String {
        if line.points.len() < 2 || line.points.iter().all(|(_, y)| y.deviation.is_none()) {
            return String::new();
        }
        let edge = |(x, y): &(f64, Spread), side: f64| self.at(area, *x, y.mean + side * y.deviation.unwrap_or(0.0));
        let upper = line.points.iter().map(|point| edge(point, 1.0));
        let lower = line.points.iter().rev().map(|point| edge(point, -1.0));
        let corners: Vec<String> = upper.chain(lower).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        format!("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\".15\"/>\n", corners.join(" "), line.look.colour)
    }

    fn curve(&self, line: &Line, area: Area) -> String {
        let mut path = String::new();
        for (index, (x, y)) in line.points.iter().enumerate() {
            let (x, y) = self.at(area, *x, y.mean);
            path += &format!("{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        let Some((x, y)) = line.points.last() else { return String::new() };
        format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{}><title>{}</title></path>\n",
            line.look.colour,
            line.stroke.dashes(),
            escaped(&self.tooltip(line, *x, y))
        )
    }

    /// At points evenly chosen, shifted from line to line, so that lines on top of each other both show.
    fn markers(&self, line: &Line, index: usize, area: Area) -> String {
        let points = &line.points;
        let every = points.len().div_ceil(MARKERS).max(1);
        let first = index * every / self.lines.len().max(1);
        let chosen = (0..points.len()).filter(|at| at % every == first);
        chosen
            .map(|at| {
                let (x, y) = &points[at];
                let tooltip = self.tooltip(line, *x, y);
                let (x, y) = self.at(area, *x, y.mean);
                line.look.draw(x, y, &tooltip)
            })
            .collect()
    }

    fn tooltip(&self, line: &Line, x: f64, y: &Spread) -> String {
        let value = self.y.format(y.mean, 2);
        let deviation = y.deviation.map_or(String::new(), |deviation| format!(" ± {}", self.y.format(deviation, 2)));
        let part = if line.part.is_empty() { String::new() } else { format!(", {}", line.part) };
        format!("{}{part}, {} {x}: {value}{deviation}{}", line.name, self.x_name, self.unit)
    }

    fn legend(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for line in &self.lines {
            let words = wrapped(&line.name, LEGEND_WIDTH);
            if !entries.iter().any(|entry| entry.words == words && entry.look.as_ref() == Some(&line.look)) {
                entries.push(Entry { words, look: Some(line.look.clone()), stroke: Stroke::Solid, gap: 0.0 });
            }
        }
        let mut parts: Vec<(&str, Stroke)> = Vec::new();
        for line in self.lines.iter().filter(|line| !line.part.is_empty()) {
            if !parts.contains(&(&line.part, line.stroke)) {
                parts.push((&line.part, line.stroke));
            }
        }
        for (index, (part, stroke)) in parts.into_iter().enumerate() {
            entries.push(Entry { words: vec![part.to_owned()], look: None, stroke, gap: if index == 0 { 12.0 } else { 0.0 } });
        }
        entries
    }
}

/// A line of the legend: a look, or the meaning of a stroke.
struct Entry {
    words: Vec<String>,
    look: Option<Look>,
    stroke: Stroke,
    /// Above it.
    gap: f64,
}

impl Entry {
    fn height(&self) -> f64 {
        self.gap + LEGEND_LINE * self.words.len() as f64 + 5.0
    }

    fn draw(&self, x: f64, y: f64) -> String {
        let y = y + self.gap;
        let colour = self.look.as_ref().map_or(INK, |look| &look.colour);
        let mut out = format!("<path d=\"M{x:.1} {y:.1}h30\" stroke=\"{colour}\" stroke-width=\"1.8\"{}/>\n", self.stroke.dashes());
        if let Some(look) = &self.look {
            out += &look.draw(x + 15.0, y, "");
        }
        for (index, words) in self.words.iter().enumerate() {
            out += &text(x + 38.0, y + 4.5 + LEGEND_LINE * index as f64, "start", INK, words);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::of_layer;

    #[test]
    fn a_long_name_leaves_room_for_the_lines() {
        let points = vec![(0.0, Spread { mean: 0.0, deviation: None }), (1.0, Spread { mean: 1.0, deviation: None })];
        let name = "/a/very/long/folder/of/data".repeat(20);
        let line = Line { name, part: "test".into(), look: of_layer(0, 1), stroke: Stroke::Solid, points };
        let chart = LineChart {
            id: "c".into(),
            title: "t".into(),
            x: Axis::counting("Epoch", 0.0, 1.0),
            y: Axis::linear("Error (%)", 0.0, 1.0),
            x_name: "epoch".into(),
            unit: String::new(),
            lines: vec![line],
        };
        let svg = chart.svg();
        let width = svg.split("<clipPath").nth(1).and_then(|clip| clip.split("width=\"").nth(1)).and_then(|width| width.split('"').next());
        assert!(width.unwrap().parse::<f64>().unwrap() > WIDTH / 2.0, "{svg}");
    }
}
