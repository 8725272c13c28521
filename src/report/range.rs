//! What a vertical axis shows of its lines.

use super::chart::Line;
use super::spread::Spread;

/// Epochs from which on a chart may leave the first, large values outside.
const LONG: f64 = 10.0;
/// Lines up to which an axis serves the middle one less, and all others more.
const FEW: usize = 6;
/// What a vertical axis shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub low: f64,
    pub high: f64,
}

impl Range {
    /// For what can be read: of a long training what most values lie below after its first fifth, and a little more. A line that leaps now and
    /// then would squeeze all others together if all of it were shown, and so would one that stays far above most, and above what most began
    /// with: it has come to nothing.
    pub fn of(lines: &[&Line], last_epoch: f64) -> Range {
        let usual = |line: &&Line| {
            let end = line.points.last().map_or(0.0, |(end, _)| *end);
            let from = if last_epoch >= LONG { 0.2 * end } else { 0.0 };
            let mut later: Vec<f64> = line
                .points
                .iter()
                .filter(|(epoch, _)| *epoch >= from)
                .map(|(_, value)| value.mean + value.deviation.unwrap_or(0.0))
                .collect();
            later.sort_by(f64::total_cmp);
            let most = if last_epoch >= LONG { later.len() * 3 / 4 } else { later.len().saturating_sub(1) };
            later.get(most).copied().unwrap_or(0.0)
        };
        let usuals: Vec<f64> = lines.iter().map(usual).collect();
        let middle = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let first = lines.iter().filter_map(|line| Some(line.points.first()?.1.mean)).collect();
        // Of a few lines each is worth more room.
        let factor = if lines.len() < FEW { 5.0 } else { 3.0 };
        let limit = f64::max(factor * middle(usuals.clone()), 0.5 * middle(first));
        let shown: Vec<(&&Line, &f64)> = lines.iter().zip(&usuals).filter(|(_, usual)| **usual <= limit).collect();
        let points = || shown.iter().flat_map(|(line, _)| &line.points).map(|(_, value)| value);
        let (low, most) = extent(points());
        let high = shown.iter().map(|(_, usual)| 1.1 * **usual).fold(0.0, f64::max).min(most);
        // From zero where that is near, and never below it because of a band.
        let least = points().map(|value| value.mean).fold(f64::INFINITY, f64::min);
        Range { low: if least >= 0.0 && low < 0.25 * (high - low) { 0.0 } else { low }, high }
    }
}

/// Least and greatest value, deviations included.
pub fn extent<'a>(values: impl Iterator<Item = &'a Spread>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        let deviation = value.deviation.unwrap_or(0.0);
        (low.min(value.mean - deviation), high.max(value.mean + deviation))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::of_layer;

    fn line(errors: &[f64]) -> Line {
        let points = (1..).zip(errors).map(|(epoch, error)| (f64::from(epoch), Spread { mean: *error, deviation: None })).collect();
        Line { name: "a".into(), look: of_layer(0, 1), points }
    }

    #[test]
    fn a_run_that_came_to_nothing_does_not_set_the_axis() {
        let falling = |last: f64| line(&(0..20).map(|epoch| last + 10.0 / f64::from(1 + epoch)).collect::<Vec<f64>>());
        let (lost, lines) = (line(&[90.0; 20]), [falling(1.7), falling(2.0), falling(3.0), falling(5.0)]);
        let of = |lines: &[&Line]| Range::of(lines, 20.0);
        let readable: Vec<&Line> = lines.iter().collect();
        let with_it: Vec<&Line> = readable.iter().copied().chain([&lost]).collect();
        assert_eq!(of(&with_it), of(&readable));
        assert!((6.0..9.0).contains(&of(&readable).high), "the first epochs lie outside: {:?}", of(&readable));
        // Alone it is shown, and so is one of two that is merely much worse.
        assert_eq!(of(&[&lost]), Range { low: 90.0, high: 90.0 });
        assert!(of(&[&falling(2.0), &falling(20.0)]).high > 20.0);
        // No room is wasted below, unless zero is near.
        assert_eq!((Range::of(&[&line(&[50.0, 45.0, 40.0])], 3.0).low, Range::of(&[&line(&[50.0, 20.0, 9.0])], 3.0).low), (40.0, 0.0));
    }
}
