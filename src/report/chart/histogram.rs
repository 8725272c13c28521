//! Histograms below one another, on one axis: distributions to compare.

use super::axis::Axis;
use super::palette::Look;
use super::{Area, GRID, INK, QUIET, WIDTH, document, escaped, segment, text, vertical, wrapped};

/// A distribution.
pub struct Bars {
    pub name: String,
    pub look: Look,
    pub values: Vec<f64>,
    /// Said below the name.
    pub remark: String,
}

pub struct Histogram {
    pub title: String,
    pub x: Axis,
    /// Edges of the bins, ascending.
    pub edges: Vec<f64>,
    pub unit: String,
    pub rows: Vec<Bars>,
}

const ROW: f64 = 92.0;
const GAP: f64 = 18.0;

impl Histogram {
    pub fn svg(&self) -> String {
        let counts: Vec<Vec<usize>> = self.rows.iter().map(|row| self.counts(&row.values)).collect();
        let most = counts.iter().flatten().copied().max().unwrap_or(0).max(1);
        let mut out = String::new();
        let mut top = 12.0;
        for (index, (row, counts)) in self.rows.iter().zip(&counts).enumerate() {
            let area = Area { left: 74.0, right: WIDTH - 230.0, top, bottom: top + ROW };
            out += &self.row(row, counts, most, area, index + 1 == self.rows.len());
            top += ROW + GAP;
        }
        document(&self.title, top + 40.0, &out)
    }

    /// Values by bin; the last bin holds its upper edge too.
    fn counts(&self, values: &[f64]) -> Vec<usize> {
        let bins = self.edges.len() - 1;
        let mut counts = vec![0; bins];
        for value in values {
            counts[self.edges.partition_point(|edge| edge <= value).clamp(1, bins) - 1] += 1;
        }
        counts
    }

    fn row(&self, row: &Bars, counts: &[usize], most: usize, area: Area, last: bool) -> String {
        let height = |count: usize| count as f64 / most as f64 * (area.bottom - area.top - 4.0);
        let mut out = String::new();
        for count in [most.div_ceil(2), most] {
            let y = area.bottom - height(count);
            out += &segment((area.left, y), (area.right, y), GRID);
            out += &text(area.left - 9.0, y + 4.5, "end", QUIET, &count.to_string());
        }
        out += &self.x.below(area, last);
        out += &vertical(area.left - 44.0, (area.top + area.bottom) / 2.0, "Trials");
        for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let [from, to] = [self.edges[bin], self.edges[bin + 1]];
            let (left, right) = (self.x.place(from, area.left, area.right), self.x.place(to, area.left, area.right));
            let tooltip = format!("{}: {count} from {} to {}{}", row.name, self.x.format(from, 1), self.x.format(to, 1), self.unit);
            out += &format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{}</title></rect>\n",
                left + 0.5,
                area.bottom - height(*count),
                (right - left - 1.0).max(1.0),
                height(*count),
                row.look.colour,
                escaped(&tooltip)
            );
        }
        let mut y = area.top + 16.0;
        out += &format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{}\"/>\n",
            area.right + 20.0,
            y - 10.5,
            row.look.colour
        );
        for (words, colour) in [(&row.name, INK), (&row.remark, QUIET)] {
            for line in wrapped(words, 26) {
                out += &text(area.right + 40.0, y, "start", colour, &line);
                y += 17.0;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::of_layer;

    #[test]
    fn each_value_is_in_one_bin() {
        let row = Bars { name: "a".into(), look: of_layer(0, 1), values: vec![0.0, 4.9, 5.0, 9.9, 10.0], remark: String::new() };
        let histogram = Histogram {
            title: "t".into(),
            x: Axis::linear("x", 0.0, 10.0),
            edges: vec![0.0, 5.0, 10.0],
            unit: String::new(),
            rows: vec![row],
        };
        assert_eq!(histogram.counts(&histogram.rows[0].values), [2, 3]);
        assert_eq!(histogram.svg().matches("<title>").count(), 2);
    }
}
