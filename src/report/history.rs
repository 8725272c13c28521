//! What a run measured: its `metrics.jsonl` as curves against epochs.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::compute::Measure;
use crate::training::records::{self, FILE_NAME as METRICS, Line, Measured};

/// Measures at the end of an epoch: of an evaluation there, or the mean over the epoch's training steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    pub step: u64,
    pub epoch: u64,
    pub measured: Measured,
}

/// Something that was measured of each layer at evaluations, by the layer's name; of several in an epoch, at the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnostic {
    pub quantity: String,
    /// By layer, in the order of the network: epoch and value.
    pub layers: Vec<(String, Vec<(f64, f64)>)>,
}

/// The curves of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// One point an epoch.
    pub train: Vec<Point>,
    /// Of training, as they were written: several an epoch.
    pub lines: Vec<Point>,
    pub validation: Vec<Point>,
    pub test: Vec<Point>,
    pub diagnostics: Vec<Diagnostic>,
    /// Step of the last line.
    pub last_step: u64,
    /// Step of the first of the last lines whose loss is not finite, which no program of today writes.
    pub not_finite: Option<u64>,
}

impl History {
    /// Reads the metrics of the run in `run`; there are none where it has just begun.
    ///
    /// A last line without its end is one that is being written, or was when the run was killed, and is left out. Anything else that is
    /// no line of metrics is an error that names the file and the line.
    pub fn read(run: &Path) -> Result<History> {
        History::parse(&records::read(run)?)
            .with_context(|| format!("{} is damaged; leave the run out, or repair the file", run.join(METRICS).display()))
    }

    fn parse(text: &str) -> Result<History> {
        let mut history = History::default();
        let mut epochs = Epochs::default();
        let mut last_steps: HashMap<String, u64> = HashMap::new();
        let mut diagnosed = None;
        for (number, line) in (1..).zip(records::lines(text)) {
            let line = line.with_context(|| format!("line {number} is no line of metrics"))?;
            let last = last_steps.entry(line.split.clone()).or_default();
            ensure!(line.step >= *last, "line {number} is of step {}, after step {last}", line.step);
            *last = line.step;
            history.last_step = history.last_step.max(line.step);
            history.not_finite = match line.measured.get(Measure::Loss) {
                Some(_) => None,
                None => history.not_finite.or(Some(line.step)),
            };
            let point = Point { step: line.step, epoch: line.epoch, measured: line.measured };
            match line.split.as_str() {
                Line::TRAIN => {
                    epochs.add(&point);
                    history.lines.push(point);
                }
                "validation" => replace(&mut history.validation, point, |point| point.epoch),
                "test" => replace(&mut history.test, point, |point| point.epoch),
                other => bail!("line {number} is of split {other:?}, expected train, validation or test"),
            }
            // Where both splits are evaluated, the first of them is enough.
            if !line.diagnostics.is_empty() && diagnosed != Some(line.step) {
                diagnosed = Some(line.step);
                history.diagnose(line.epoch, &line.diagnostics);
            }
        }
        history.train = epochs.points;
        Ok(history)
    }

    /// Epochs and values of a quantity of a layer.
    pub fn layer(&self, quantity: &str, layer: &str) -> Option<&[(f64, f64)]> {
        let diagnostic = self.diagnostics.iter().find(|known| known.quantity == quantity)?;
        diagnostic.layers.iter().find(|(known, _)| known == layer).map(|(_, values)| values.as_slice())
    }

    fn diagnose(&mut self, epoch: u64, layers: &Map<String, Value>) {
        for (layer, quantities) in layers {
            for (quantity, value) in quantities.as_object().into_iter().flatten() {
                // What no float can be is no measure, and would leave an axis no room for others.
                let Some(value) = value.as_f64().filter(|value| value.abs() <= f64::from(f32::MAX)) else { continue };
                let diagnostic = find_or_add(
                    &mut self.diagnostics,
                    |known| known.quantity == *quantity,
                    || Diagnostic { quantity: quantity.clone(), layers: Vec::new() },
                );
                let (_, values) = find_or_add(&mut diagnostic.layers, |known| known.0 == *layer, || (layer.clone(), Vec::new()));
                replace(values, (epoch as f64, value), |(epoch, _)| *epoch);
            }
        }
    }
}

/// The element that `is` true of, made by `new` where there is none.
pub fn find_or_add<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(is).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

/// Adds a point. What was measured within its epoch gives way to it.
fn replace<P, E: PartialEq>(points: &mut Vec<P>, point: P, epoch: impl Fn(&P) -> E) {
    points.pop_if(|last| epoch(last) == epoch(&point));
    points.push(point);
}

/// Lines of training gathered by epoch. A line is the mean over the steps since the one before it, so it counts for that many; one that
/// spans the turn of an epoch counts for the later.
#[derive(Default)]
struct Epochs {
    points: Vec<Point>,
    steps: f64,
    last_step: u64,
}

impl Epochs {
    fn add(&mut self, line: &Point) {
        let steps = (line.step - self.last_step) as f64;
        self.last_step = line.step;
        match self.points.last_mut() {
            Some(point) if point.epoch == line.epoch => {
                self.steps += steps;
                let share = if self.steps > 0.0 { steps / self.steps } else { 1.0 };
                point.step = line.step;
                for (mean, value) in point.measured.0.iter_mut().zip(line.measured.0) {
                    *mean = mean.zip(value).map(|(mean, value)| mean + share * (value - mean));
                }
            }
            _ => {
                self.points.push(*line);
                self.steps = steps;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(point: Point, measure: Measure) -> Option<f64> {
        point.measured.get(measure)
    }

    fn close(a: Option<f64>, b: f64) {
        assert!((a.unwrap() - b).abs() < 1e-12, "{a:?} for {b}");
    }

    #[test]
    fn an_epoch_is_the_mean_over_its_steps() {
        let text = r#"{"split":"train","step":10,"epoch":1,"loss":4.0,"top1_error":0.5,"top5_error":0.1}
{"split":"train","step":30,"epoch":1,"loss":1.0,"top1_error":0.2,"top5_error":0.1}
{"split":"test","step":30,"epoch":1,"loss":2.0,"top1_error":0.25,"top5_error":0.125}
{"split":"train","step":40,"epoch":2,"loss":0.5,"top1_error":0.1,"top5_error":0.1}
"#;
        let history = History::parse(text).unwrap();
        assert_eq!((history.train.len(), history.test.len(), history.last_step), (2, 1, 40));
        close(get(history.train[0], Measure::Loss), 2.0);
        close(get(history.train[0], Measure::Top1Error), 0.3);
        close(get(history.train[1], Measure::Loss), 0.5);
        close(get(history.test[0], Measure::Top5Error), 0.125);
    }

    #[test]
    fn layers_keep_their_order_and_quantities_are_apart() {
        let text = r#"{"split":"validation","step":3,"epoch":1,"loss":1,"diagnostics":{"layers.2":{"angle_degrees":80.0},"layers.10":{"angle_degrees":85.0,"norm_ratio":1.5,"target_diversity":1e308}}}
{"split":"test","step":3,"epoch":1,"loss":1,"diagnostics":{"layers.2":{"angle_degrees":81.0}}}
{"split":"test","step":6,"epoch":2,"loss":1,"diagnostics":{"layers.2":{"angle_degrees":70.0}}}
"#;
        let history = History::parse(text).unwrap();
        let angles = &history.diagnostics[0];
        assert_eq!(angles.quantity, "angle_degrees");
        assert_eq!(angles.layers, [("layers.2".to_owned(), vec![(1.0, 80.0), (2.0, 70.0)]), ("layers.10".to_owned(), vec![(1.0, 85.0)])]);
        assert_eq!(history.diagnostics.len(), 2, "{:?}", history.diagnostics);
        assert_eq!(history.diagnostics[1].layers, [("layers.10".to_owned(), vec![(1.0, 1.5)])]);
    }

    #[test]
    fn of_evaluations_in_an_epoch_the_last_is_of_its_layers() {
        let line = |split: &str, step: u64, epoch: u64, angle: f64| {
            format!(
                "{{\"split\":\"{split}\",\"step\":{step},\"epoch\":{epoch},\"loss\":1,\"diagnostics\":{{\"layers.2\":{{\"angle_degrees\":{angle}}}}}}}\n"
            )
        };
        let inside = line("validation", 700, 2, 80.0) + &line("test", 700, 2, 81.0);
        let text = line("validation", 468, 1, 90.0) + &inside + &line("validation", 936, 2, 70.0) + &line("test", 936, 2, 71.0);
        let history = History::parse(&text).unwrap();
        assert_eq!(history.diagnostics[0].layers, [("layers.2".to_owned(), vec![(1.0, 90.0), (2.0, 70.0)])]);
        let steps = |points: &[Point]| points.iter().map(|point| point.step).collect::<Vec<u64>>();
        assert_eq!((steps(&history.validation), steps(&history.test)), (vec![468, 936], vec![936]));
    }

    #[test]
    fn damage_is_named_and_a_line_under_way_is_not_damage() {
        let good = "{\"split\":\"test\",\"step\":5,\"epoch\":1,\"loss\":1.0}\n";
        for (bad, words) in [
            ("{\"split\":\"test\",\"ste\n", "line 2 is no line"),
            ("{\"split\":\"test\",\"step\":4,\"epoch\":1,\"loss\":1.0}\n", "line 2 is of step 4, after step 5"),
            ("{\"split\":\"tset\",\"step\":6,\"epoch\":1,\"loss\":1.0}\n", "tset"),
            ("\n", "line 2 is no line"),
        ] {
            let error = format!("{:#}", History::parse(&(good.to_owned() + bad)).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        let run = tempfile::tempdir().unwrap();
        assert_eq!(History::read(run.path()).unwrap(), History::default());
        std::fs::write(run.path().join(METRICS), good.to_owned() + "{\"split\":\"te").unwrap();
        assert_eq!(History::read(run.path()).unwrap().test.len(), 1);
    }
}
