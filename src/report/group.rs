//! Runs that are one experiment: the same in everything that matters to the result but the seed.

use std::path::PathBuf;

use super::data::Data;
use super::history::{Point, find_or_add};
use super::label;
use super::paper::{Cell, DataSet, Method, Network};
use super::run::{Run, least};
use super::spread::Spread;
use crate::compute::Measure;
use crate::config::{Config, Difference, Layer, Output, Settings, touches};

/// What learning curves are drawn together for: a network on a data set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Panel {
    /// The paper's data sets first, in its order.
    order: (usize, usize),
    pub data: String,
    pub network: String,
    pub paper: Option<(DataSet, Network)>,
    pub classifies: bool,
}

impl Panel {
    pub fn of(config: &Config, data: &Data) -> Panel {
        let (layers, classifies) = (&config.network.layers, config.network.output == Output::Softmax);
        let paper = data.paper.and_then(|data| Some((data, Network::of(data, layers)?))).filter(|_| classifies);
        let network = match paper {
            Some((_, network)) => network.name().to_owned(),
            None if classifies => match Network::anywhere(layers) {
                Some((data, network)) => format!("the paper's {} network, {}", data.name(), network.name()),
                None => layers_text(layers),
            },
            None => format!("autoencoder {}", layers_text(layers)),
        };
        let order = (data.paper.map_or(usize::MAX, |data| data as usize), paper.map_or(usize::MAX, |(_, network)| network as usize));
        Panel { order, data: data.name.clone(), network, paper, classifies }
    }

    /// "MNIST, fully connected".
    pub fn title(&self) -> String {
        format!("{}, {}", self.data, self.network)
    }
}

/// Runs that differ in their seed alone.
pub struct Group<'a> {
    pub panel: Panel,
    pub method: Method,
    /// The method's name, and what sets this group apart from others of the same method.
    pub label: String,
    /// One for each seed, ascending.
    pub runs: Vec<&'a Run>,
    /// What of its configuration is not as in the one that comes with the project; None where there is none.
    pub departures: Option<Vec<Difference>>,
    /// Runs left out: of two with the same seed, the one that has come less far.
    pub repeated: Vec<PathBuf>,
    /// Runs left out because they diverged: one for each seed that no other run has.
    pub diverged: Vec<&'a Run>,
}

/// Which points of a run.
#[derive(Clone, Copy, PartialEq)]
pub enum Curve {
    /// Of training, after each epoch.
    Train,
    /// Of training, within epochs too.
    Lines,
    Test,
}

impl Curve {
    pub fn of(self, run: &Run) -> &[Point] {
        match self {
            Curve::Train => &run.history.train,
            Curve::Lines => &run.history.lines,
            Curve::Test => &run.history.test,
        }
    }
}

impl Group<'_> {
    pub fn config(&self) -> &Config {
        &self.runs[0].config
    }

    pub fn cell(&self) -> Option<Cell> {
        self.runs[0].cell()
    }

    /// The settings that are not those of the cell's configuration that comes with the project, and that one's.
    pub fn departures(&self) -> Option<String> {
        let departures = self.departures.as_ref().filter(|departures| !departures.is_empty())?;
        let list: Vec<String> = departures.iter().map(label::departure).collect();
        Some(list.join(", "))
    }

    /// Equal for groups that differ in the number of auxiliary outputs alone.
    pub fn study(&self) -> Settings {
        let mut settings = key(self.runs[0]);
        settings.remove("learning.auxiliary_units");
        settings
    }

    /// Whether `run` is one of this experiment's, shown or left out.
    pub fn is_of(&self, run: &Run) -> bool {
        key(self.runs[0]) == key(run)
    }

    /// "3 of 4 seeds; 1 diverged"; None where none did.
    pub fn divergence(&self) -> Option<String> {
        let (left, lost) = (self.runs.len(), self.diverged.len());
        (lost > 0).then(|| format!("{left} of {} seeds; {lost} diverged", left + lost))
    }

    pub fn finished(&self) -> bool {
        self.runs.iter().all(|run| run.finished)
    }

    /// Mean over the runs that have a value.
    pub fn spread(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(&self.runs.iter().filter_map(|run| value(run)).collect::<Vec<_>>())
    }

    /// The last value of a curve.
    pub fn last(&self, curve: Curve, measure: Measure) -> Option<Spread> {
        self.spread(|run| curve.of(run).last()?.measured.get(measure))
    }

    /// The least value of a curve: chosen by what it measures.
    pub fn least(&self, curve: Curve, measure: Measure) -> Option<Spread> {
        self.spread(|run| least(curve.of(run), measure)?.measured.get(measure))
    }

    /// Points at parts of an epoch: their mean at the steps that all runs have.
    pub fn by_step(&self, points: Curve, measure: Measure) -> Vec<(f64, Spread)> {
        let at = |run: &Run, step: u64| points.of(run).iter().find(|point| point.step == step)?.measured.get(measure);
        let Some(steps_per_epoch) = self.runs[0].steps_per_epoch else { return self.curve(points, measure) };
        let mean = |point: &Point| {
            let values: Option<Vec<f64>> = self.runs.iter().map(|run| at(run, point.step)).collect();
            Some((point.step as f64 / steps_per_epoch as f64, Spread::of(&values?)?))
        };
        points.of(self.runs[0]).iter().filter_map(mean).collect()
    }

    /// The mean curve at the epochs that all runs with such a curve have. Of several evaluations in an epoch, as of a run that went on from
    /// within one, the last counts.
    pub fn curve(&self, curve: Curve, measure: Measure) -> Vec<(f64, Spread)> {
        let curves: Vec<&[Point]> = self.runs.iter().map(|run| curve.of(run)).filter(|points| !points.is_empty()).collect();
        let Some(first) = curves.first() else { return Vec::new() };
        let at = |points: &[Point], epoch: u64| {
            let end = points.partition_point(|point| point.epoch <= epoch);
            points[..end].last().filter(|point| point.epoch == epoch)?.measured.get(measure)
        };
        let mean = |epoch: u64| {
            let values: Option<Vec<f64>> = curves.iter().map(|points| at(points, epoch)).collect();
            Some((epoch as f64, Spread::of(&values?)?))
        };
        let mut epochs: Vec<u64> = first.iter().map(|point| point.epoch).collect();
        epochs.dedup();
        epochs.into_iter().filter_map(mean).collect()
    }
}

/// Sorts runs that have a result into groups, in the order of the paper's tables.
pub fn group(runs: &[Run]) -> Vec<Group<'_>> {
    let seed = |run: &Run| run.config.experiment.seed;
    let mut groups: Vec<(Settings, Group)> = Vec::new();
    for run in runs.iter().filter(|run| run.has_result()) {
        let key = key(run);
        let (_, group) = find_or_add(
            &mut groups,
            |(known, _)| *known == key,
            || {
                let (panel, method) = (Panel::of(&run.config, &run.data), run.method());
                let (label, departures) = (method.name(), label::departures(run));
                (key.clone(), Group { panel, method, label, runs: Vec::new(), departures, repeated: Vec::new(), diverged: Vec::new() })
            },
        );
        match group.runs.iter().position(|known| seed(known) == seed(run)) {
            None => group.runs.push(run),
            Some(at) if group.runs[at].step < run.step => group.repeated.push(std::mem::replace(&mut group.runs[at], run).path.clone()),
            Some(_) => group.repeated.push(run.path.clone()),
        }
        group.runs.sort_by_key(|run| seed(run));
    }
    for run in runs.iter().filter(|run| run.diverged.is_some()) {
        let key = key(run);
        let Some((_, group)) = groups.iter_mut().find(|(known, _)| *known == key) else { continue };
        if !group.runs.iter().chain(&group.diverged).any(|known| seed(known) == seed(run)) {
            group.diverged.push(run);
        }
    }
    let mut groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
    let labels: Vec<String> = groups.iter().map(|group| label::of_group(group, &groups)).collect();
    for (group, label) in groups.iter_mut().zip(labels) {
        // A rule that this project has not is known by its program.
        group.label = group.runs[0].program().map(|program| format!("{label}, by {program}")).unwrap_or(label);
    }
    let order = |group: &Group| (group.panel.clone(), group.method.order(), group.config().learning.auxiliary_units);
    groups.sort_by_cached_key(order);
    groups
}

/// What must be equal for `run`, with this configuration, to be one experiment with others: all but the seed, names, places, intervals, how the
/// work was divided, and what the rule does not use.
fn key(run: &Run) -> Settings {
    let mut settings = run.config.settings();
    settings.retain(|key, _| touches(key).tells_runs_apart() && key != "experiment.seed" && run.config.unused(key).is_none());
    settings.insert("data".to_owned(), run.data.identity.clone());
    settings.insert("steps_per_epoch".to_owned(), format!("{:?}", run.steps_per_epoch));
    settings
}

/// Hidden layers in short: "6 x dense 256".
fn layers_text(layers: &[Layer]) -> String {
    let mut parts: Vec<(String, usize)> = Vec::new();
    for layer in layers {
        let text = layer.describe();
        match parts.last_mut() {
            Some((last, count)) if *last == text => *count += 1,
            _ => parts.push((text, 1)),
        }
    }
    let parts: Vec<String> = parts.into_iter().map(|(text, count)| if count > 1 { format!("{count} × {text}") } else { text }).collect();
    if parts.is_empty() { "no hidden layer".to_owned() } else { parts.join(" | ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn run(name: &str, set: &[&str]) -> Run {
        samples::run(name, set, &samples::line("test", 10, Some(0.5), 1.0))
    }

    #[test]
    fn of_an_epochs_evaluations_the_last_is_in_the_curve() {
        // Ended within the second epoch, and gone on from there.
        let lines: String =
            [(10, 0.5), (15, 0.75), (20, 0.25), (30, 0.125)].map(|(step, error)| samples::line("test", step, Some(error), 1.0)).concat();
        let runs = [samples::run("mnist_fc_bp", &[], &lines), samples::run("mnist_fc_bp", &["experiment.seed=1"], &lines)];
        let groups = group(&runs);
        assert_eq!(groups.len(), 1);
        let points: Vec<(f64, f64)> =
            groups[0].curve(Curve::Test, Measure::Top1Error).iter().map(|(epoch, value)| (*epoch, value.mean)).collect();
        assert_eq!(points, [(1.0, 0.5), (2.0, 0.25), (3.0, 0.125)]);
    }

    #[test]
    fn a_seed_that_diverged_is_counted_and_in_no_mean() {
        let run = |seed: u64, error: f64, diverged: Option<u64>| {
            let lines = samples::line("test", 10, Some(error), 1.0);
            Run { diverged, ..samples::run("mnist_fc_bp", &[&format!("experiment.seed={seed}")], &lines) }
        };
        let runs = [run(0, 0.9, Some(19)), run(1, 0.25, None), run(2, 0.5, None), run(2, 0.8, Some(15)), run(3, 0.75, None)];
        let groups = group(&runs);
        let [group] = groups.as_slice() else { panic!() };
        assert_eq!(group.last(Curve::Test, Measure::Top1Error).unwrap(), Spread { mean: 0.5, deviation: Some(0.25) });
        // Seed 2 has a result, whatever became of another run of it.
        assert_eq!((group.divergence().as_deref(), group.repeated.len()), (Some("3 of 4 seeds; 1 diverged"), 0));
        assert!(super::group(&runs[..1]).is_empty() && super::group(&runs[1..3])[0].divergence().is_none());
    }

    #[test]
    fn seeds_of_two_places_are_one_experiment() {
        let of = |folder: &str, seed: u64| run("mnist_fc_bp", &[&format!("data.train={folder:?}"), &format!("experiment.seed={seed}")]);
        let runs = [of("/here/mnist/train", 0), of("/there/data/mnist/train", 1), of("/here/fashion/train", 2)];
        let groups = group(&runs);
        assert_eq!(groups.iter().map(|group| group.runs.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(groups.iter().all(|group| group.label == "BP"), "the places are no part of a name");
    }

    #[test]
    fn what_the_rule_does_not_use_makes_no_other_experiment() {
        let runs = [
            run("mnist_fc_bp", &["experiment.seed=2", "learning.hybrid=0.5", "learning.feedback_weights=transposed"]),
            run("mnist_fc_bp", &["experiment.seed=1", "optimizer.inverse.learning_rate=0.5", "learning.sigma=0.3"]),
            run("mnist_fc_bp", &[]),
            run("mnist_fc_dtp_parallel", &[]),
            run("mnist_fc_dtp_parallel", &["experiment.seed=1", "optimizer.inverse.learning_rate=0.5"]),
        ];
        let groups = group(&runs);
        let found: Vec<(String, usize)> = groups.iter().map(|group| (group.method.name(), group.runs.len())).collect();
        assert_eq!(found, [("DTP, parallel".to_owned(), 1), ("DTP, parallel".to_owned(), 1), ("BP".to_owned(), 3)]);
        let bp = &groups[2];
        assert!(bp.departures().is_none() && bp.cell().is_some() && bp.label == "BP", "{:?}", bp.departures());
    }
}
