//! A panel of lines.

use super::axis::Axis;
use super::drawing::{Area, Drawing, Paint};
use super::palette::Look;
use crate::report::spread::Spread;

/// Markers on a line, at most.
const MARKERS: usize = 10;
/// Height of the plot, to its width.
const SHAPE: f64 = 0.72;

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub look: Look,
    /// Ascending in x. Where a value has a deviation, a band shows it.
    pub points: Vec<(f64, Spread)>,
}

pub struct LineChart {
    pub x: Axis,
    pub y: Axis,
    /// What x counts, in tooltips: "epoch".
    pub x_name: String,
    pub unit: String,
    pub lines: Vec<Line>,
}

impl LineChart {
    /// The chart, so wide, with so much room on the left, which [`Axis::breadth`] asks for.
    pub fn draw(&self, width: f64, left: f64) -> Drawing {
        let area = Area { left, right: width - 14.0, top: 10.0, bottom: 10.0 + SHAPE * (width - 14.0 - left) };
        let mut out = Drawing::new(width, area.bottom + 44.0);
        Axis::grid(&self.x, &self.y.rows(area), area, &mut out);
        self.x.below(area, &mut out);
        self.y.left(area, &mut out);
        out.clip(Area { left: area.left - 5.0, right: area.right + 5.0, top: area.top - 5.0, bottom: area.bottom + 5.0 }, |out| {
            self.lines.iter().for_each(|line| self.band(line, area, out));
            self.lines.iter().for_each(|line| self.curve(line, area, out));
            self.lines.iter().enumerate().for_each(|(index, line)| self.markers(line, index, area, out));
        });
        out
    }

    fn at(&self, area: Area, x: f64, y: f64) -> (f64, f64) {
        (self.x.place(x, area.left, area.right), self.y.place(y, area.bottom, area.top))
    }

    /// Mean plus and minus the deviation, where any point has one.
    fn band(&self, line: &Line, area: Area, out: &mut Drawing) {
        if line.points.len() < 2 || line.points.iter().all(|(_, y)| y.deviation.is_none()) {
            return;
        }
        let edge = |(x, y): &(f64, Spread), side: f64| self.at(area, *x, y.mean + side * y.deviation.unwrap_or(0.0));
        let upper = line.points.iter().map(|point| edge(point, 1.0));
        let lower = line.points.iter().rev().map(|point| edge(point, -1.0));
        out.path(upper.chain(lower).collect(), true, Paint { opacity: Some(0.15), ..Paint::filled(line.look.colour) }, "");
    }

    fn curve(&self, line: &Line, area: Area, out: &mut Drawing) {
        let Some((x, y)) = line.points.last() else { return };
        let points = line.points.iter().map(|(x, y)| self.at(area, *x, y.mean)).collect();
        out.path(points, false, line.look.line(), &self.tooltip(line, *x, y));
    }

    /// At points evenly chosen, shifted from line to line, so that lines on top of each other both show.
    fn markers(&self, line: &Line, index: usize, area: Area, out: &mut Drawing) {
        let every = line.points.len().div_ceil(MARKERS).max(1);
        let first = index * every / self.lines.len().max(1);
        for (x, y) in line.points.iter().skip(first).step_by(every) {
            line.look.mark(self.at(area, *x, y.mean), &self.tooltip(line, *x, y), out);
        }
    }

    fn tooltip(&self, line: &Line, x: f64, y: &Spread) -> String {
        let value = self.y.format(y.mean, 2);
        let deviation = y.deviation.map_or(String::new(), |deviation| format!(" ± {}", self.y.format(deviation, 2)));
        let x = (x * 100.0).round() / 100.0;
        format!("{}, {} {x}: {value}{deviation}{}", line.name, self.x_name, self.unit)
    }
}
