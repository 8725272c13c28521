//! Axes: from values to places, and the round numbers between.

use super::drawing::{Anchor, Area, Drawing, GRID, INK, QUIET, TEXT};
use super::font;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// Powers of two lie equally far apart.
    Log2,
}

/// An axis with its range.
#[derive(Clone, Debug)]
pub struct Axis {
    pub title: String,
    pub scale: Scale,
    low: f64,
    high: f64,
    /// Marked values.
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis for values from `low` to `high`, rounded outward to marks.
    pub fn linear(title: &str, low: f64, high: f64) -> Axis {
        let high = if high > low { high } else { low + if low == 0.0 { 1.0 } else { low.abs() * 0.1 } };
        let step = round_step((high - low) / 5.0);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|tick| (first + tick as f64) * step).collect();
        Axis { title: title.to_owned(), scale: Scale::Linear, low: first * step, high: last * step, ticks }
    }

    /// An axis of whole numbers that ends where the values do.
    pub fn counting(title: &str, low: f64, high: f64) -> Axis {
        let high = high.max(low + 1.0);
        let step = round_step((high - low) / 6.0).max(1.0);
        let (first, last) = ((low / step).ceil(), (high / step).floor());
        let ticks = (0..=(last - first) as usize).map(|tick| (first + tick as f64) * step).collect();
        Axis { title: title.to_owned(), scale: Scale::Linear, low, high, ticks }
    }

    /// A logarithmic axis that marks `values`, which are positive.
    pub fn log2(title: &str, values: &[f64]) -> Axis {
        let mut ticks = values.to_vec();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let (low, high) = (ticks.first().copied().unwrap_or(1.0), ticks.last().copied().unwrap_or(2.0));
        Axis { title: title.to_owned(), scale: Scale::Log2, low: low / 1.3, high: high * 1.3, ticks }
    }

    /// The values at its ends.
    pub fn range(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Where `value` lies between `from` (the low end) and `to`.
    pub fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        let transform = |value: f64| if self.scale == Scale::Log2 { value.log2() } else { value };
        let (low, high) = (transform(self.low), transform(self.high));
        from + (transform(value) - low) / (high - low) * (to - from)
    }

    /// `value` with the decimals that the marks need, and `more`.
    pub fn format(&self, value: f64, more: usize) -> String {
        let step = self.ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        let decimals = if step.is_finite() { (0..9).find(|&n| is_whole(step * 10f64.powi(n))).unwrap_or(9) as usize } else { 0 };
        // Of what is nearly nothing, no sign.
        let text = format!("{value:.*}", decimals + more);
        text.strip_prefix('-').filter(|digits| digits.chars().all(|c| matches!(c, '0' | '.'))).map(str::to_owned).unwrap_or(text)
    }

    /// Grid lines across `area`, of a horizontal axis and of a vertical one; drawn before the axes, which lie upon them.
    pub(super) fn grid(x: &Axis, y: &[f64], area: Area, out: &mut Drawing) {
        for tick in &x.ticks {
            let x = x.place(*tick, area.left, area.right);
            out.segment((x, area.top), (x, area.bottom), GRID);
        }
        for y in y {
            out.segment((area.left, *y), (area.right, *y), GRID);
        }
    }

    /// As the horizontal axis below `area`.
    pub(super) fn below(&self, area: Area, out: &mut Drawing) {
        out.segment((area.left, area.bottom), (area.right, area.bottom), INK);
        let mut end = f64::NEG_INFINITY;
        for tick in &self.ticks {
            let (x, words) = (self.place(*tick, area.left, area.right), self.format(*tick, 0));
            let half = font::width(&words, TEXT) / 2.0;
            // Marks of a logarithmic axis may lie close together.
            if x - half > end {
                out.text((x, area.bottom + 17.0), Anchor::Middle, QUIET, &words);
                end = x + half + 4.0;
            }
        }
        out.text(((area.left + area.right) / 2.0, area.bottom + 36.0), Anchor::Middle, INK, &self.title);
    }

    /// Places of the marks of a vertical axis.
    pub(super) fn rows(&self, area: Area) -> Vec<f64> {
        self.ticks.iter().map(|tick| self.place(*tick, area.bottom, area.top)).collect()
    }

    /// As the vertical axis on the left of `area`.
    pub(super) fn left(&self, area: Area, out: &mut Drawing) {
        let mut above = f64::INFINITY;
        for (tick, y) in self.ticks.iter().zip(self.rows(area)) {
            if y < above - TEXT {
                out.text((area.left - 7.0, y + 4.5), Anchor::End, QUIET, &self.format(*tick, 0));
                above = y;
            }
        }
        out.upward((area.left - self.breadth() + 14.0, (area.top + area.bottom) / 2.0), &self.title);
    }

    /// Room that a vertical axis needs on the left of its area: for the title, and for the longest mark's text.
    pub(super) fn breadth(&self) -> f64 {
        28.0 + self.ticks.iter().map(|tick| font::width(&self.format(*tick, 0), TEXT)).fold(0.0, f64::max)
    }
}

/// The least of 1, 2, 2.5, 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-6 * value.abs().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_enclose_the_values() {
        for (low, high, ticks) in [
            (0.0, 59.0, vec![0.0, 20.0, 40.0, 60.0]),
            (0.0, 0.0092, vec![0.0, 0.002, 0.004, 0.006, 0.008, 0.010]),
            (31.0, 43.5, vec![30.0, 32.5, 35.0, 37.5, 40.0, 42.5, 45.0]),
        ] {
            let axis = Axis::linear("", low, high);
            assert_eq!(axis.ticks.len(), ticks.len(), "{axis:?}");
            assert!(axis.ticks.iter().zip(&ticks).all(|(a, b)| (a - b).abs() < 1e-9), "{axis:?}");
        }
        assert_eq!(Axis::counting("", 0.0, 500.0).ticks, [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!(Axis::counting("", 1.0, 3.0).ticks, [1.0, 2.0, 3.0]);
        // One value, however odd, has an axis too.
        for value in [0.0, -2.0, 1e-9, 1e9] {
            let axis = Axis::linear("", value, value);
            assert!(axis.low <= value && axis.high > axis.low && axis.ticks.len() < 20, "{axis:?}");
        }
    }

    #[test]
    fn places_follow_the_scale() {
        let axis = Axis::linear("", 0.0, 60.0);
        assert_eq!((axis.place(0.0, 10.0, 70.0), axis.place(60.0, 10.0, 70.0), axis.place(30.0, 70.0, 10.0)), (10.0, 70.0, 40.0));
        let axis = Axis::log2("", &[512.0, 2.0, 32.0, 2.0]);
        assert_eq!(axis.ticks, [2.0, 32.0, 512.0]);
        let [a, b, c] = [2.0, 32.0, 512.0].map(|value| axis.place(value, 0.0, 1.0));
        assert!(a > 0.0 && c < 1.0 && ((b - a) - (c - b)).abs() < 1e-12);
        assert_eq!(Axis::linear("", 31.0, 43.5).format(35.0, 0), "35.0");
    }
}
