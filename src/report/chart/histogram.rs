//! A panel that shows a distribution.

use super::axis::Axis;
use super::drawing::{Area, Drawing, Paint};
use super::palette::Rgb;

pub struct Histogram {
    pub name: String,
    pub x: Axis,
    /// Of the counts; panels to compare share it.
    pub y: Axis,
    /// Edges of the bins, ascending.
    pub edges: Vec<f64>,
    pub unit: String,
    pub colour: Rgb,
    pub values: Vec<f64>,
}

impl Histogram {
    /// Values by bin; the last bin holds its upper edge too.
    pub fn counts(edges: &[f64], values: &[f64]) -> Vec<usize> {
        let bins = edges.len() - 1;
        let mut counts = vec![0; bins];
        for value in values {
            counts[edges.partition_point(|edge| edge <= value).clamp(1, bins) - 1] += 1;
        }
        counts
    }

    /// The chart, so wide, with so much room on the left, which [`Axis::breadth`] asks for.
    pub fn draw(&self, width: f64, left: f64) -> Drawing {
        let area = Area { left, right: width - 14.0, top: 10.0, bottom: 10.0 + 0.4 * width };
        let mut out = Drawing::new(width, area.bottom + 44.0);
        Axis::grid(&self.x, &self.y.rows(area), area, &mut out);
        for (bin, count) in Histogram::counts(&self.edges, &self.values).into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let [from, to] = [self.edges[bin], self.edges[bin + 1]];
            let (left, right) = (self.x.place(from, area.left, area.right) + 0.5, self.x.place(to, area.left, area.right) - 0.5);
            let top = self.y.place(count as f64, area.bottom, area.top);
            let tip = format!("{}: {count} from {} to {}{}", self.name, self.x.format(from, 1), self.x.format(to, 1), self.unit);
            let right = right.max(left + 1.0);
            let corners = vec![(left, area.bottom), (left, top), (right, top), (right, area.bottom)];
            out.path(corners, true, Paint::filled(self.colour), &tip);
        }
        self.x.below(area, &mut out);
        self.y.left(area, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_one_bin() {
        assert_eq!(Histogram::counts(&[0.0, 5.0, 10.0], &[0.0, 4.9, 5.0, 9.9, 10.0]), [2, 3]);
    }
}
