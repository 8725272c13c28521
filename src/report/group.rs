//! Runs that are one experiment: the same in everything that matters to the result but the seed.

use std::path::{Path, PathBuf};

use super::data::Data;
use super::history::{Point, find_or_add};
use super::paper::{AUXILIARY_UNITS, Cell, DataSet, Method, Network};
use super::run::{Run, least};
use super::spread::Spread;
use crate::config::{Config, Difference, FeedbackWeights, Layer, Output};
use crate::rules::Setting as UsedSetting;

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
    departures: Option<Vec<Difference>>,
    /// Runs left out: of two with the same seed, the one that has come less far.
    pub repeated: Vec<PathBuf>,
}

/// Which points of a run.
pub type Curve = fn(&Run) -> &[Point];

/// Which number of a point.
pub type Measure = fn(&Point) -> Option<f64>;

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
        let setting = |Difference { key, ours, theirs }: &Difference| format!("{} = {} ({})", short(key), shown(ours), shown(theirs));
        let list: Vec<String> = departures.iter().map(setting).collect();
        Some(format!("Trained with other values than the configuration of this cell has (in brackets): {}", list.join(", ")))
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
        self.spread(|run| measure(curve(run).last()?))
    }

    /// The least value of a curve: chosen by what it measures.
    pub fn least(&self, curve: Curve, measure: Measure) -> Option<Spread> {
        self.spread(|run| measure(least(curve(run), measure)?))
    }

    /// The mean curve at the epochs that all runs with such a curve have.
    pub fn curve(&self, curve: Curve, measure: Measure) -> Vec<(f64, Spread)> {
        let curves: Vec<&[Point]> = self.runs.iter().map(|run| curve(run)).filter(|points| !points.is_empty()).collect();
        let Some(first) = curves.first() else { return Vec::new() };
        let at = |points: &[Point], epoch: u64| {
            let place = points.partition_point(|point| point.epoch < epoch);
            points.get(place).filter(|point| point.epoch == epoch).and_then(measure)
        };
        let mean = |epoch: u64| {
            let values: Option<Vec<f64>> = curves.iter().map(|points| at(points, epoch)).collect();
            Some((epoch as f64, Spread::of(&values?)?))
        };
        first.iter().filter_map(|point| mean(point.epoch)).collect()
    }
}

/// Sorts runs that have a result into groups, in the order of the paper's tables.
pub fn group(runs: &[Run]) -> Vec<Group<'_>> {
    let mut groups: Vec<(String, Group)> = Vec::new();
    for run in runs.iter().filter(|run| run.has_result()) {
        let key = key(run);
        let (_, group) = find_or_add(
            &mut groups,
            |(known, _)| *known == key,
            || {
                let (panel, method) = (Panel::of(&run.config, &run.data), run.method());
                let (label, departures) = (method.name(), departures(run));
                (key.clone(), Group { panel, method, label, runs: Vec::new(), departures, repeated: Vec::new() })
            },
        );
        let seed = |run: &Run| run.config.experiment.seed;
        match group.runs.iter().position(|known| seed(known) == seed(run)) {
            None => group.runs.push(run),
            Some(at) if group.runs[at].step < run.step => group.repeated.push(std::mem::replace(&mut group.runs[at], run).path.clone()),
            Some(_) => group.repeated.push(run.path.clone()),
        }
        group.runs.sort_by_key(|run| seed(run));
    }
    let mut groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
    let labels: Vec<String> = groups.iter().map(|group| label(group, &groups)).collect();
    for (group, label) in groups.iter_mut().zip(labels) {
        group.label = label;
    }
    let order = |group: &Group| (group.panel.clone(), group.method.order(), group.config().learning.auxiliary_units);
    groups.sort_by_cached_key(order);
    groups
}

/// What must be equal for runs to be one experiment: all but the seed, names, places, intervals, and how the work was divided.
fn key(run: &Run) -> String {
    let mut config = run.config.clone();
    config.experiment.seed = 0;
    config.experiment.name.clear();
    config.data.train = PathBuf::from(&run.data.identity);
    config.data.test = None;
    let training = &mut config.training;
    training.eval_every_epochs = 1;
    training.checkpoint_every_epochs = 1;
    training.checkpoint_every_steps = 0;
    training.checkpoint_every_minutes = 0.0;
    training.keep_checkpoints = 2;
    training.log_every_steps = 50;
    training.diagnostics = false;
    let precision = config.parallel.precision;
    let mut value = toml::Table::try_from(&config).expect("a configuration is TOML");
    value.remove("parallel");
    format!("{value}{precision:?}")
}

/// A key without the section that goes without saying, and a value, of ours.
type Setting = (String, String);

/// The method's name, with as many settings as tell the group apart from others of that name. One that is the paper's cell as it comes
/// with the project needs none to be told from those that depart from it.
fn label(group: &Group, all: &[Group]) -> String {
    let mut named = variant(group.config());
    let is_the_cell = |group: &Group| group.departures.as_ref().is_some_and(Vec::is_empty);
    let names_itself =
        |group: &Group| !variant(group.config()).is_empty() || group.departures.as_ref().is_some_and(|departures| !departures.is_empty());
    let others = all.iter().filter(|other| !std::ptr::eq(*other, group) && other.panel == group.panel && other.method == group.method);
    let contrasts: Vec<Vec<Setting>> =
        others.filter(|other| !(is_the_cell(group) && names_itself(other))).map(|other| contrasts(group, other)).collect();
    loop {
        let open = || contrasts.iter().filter(|settings| !settings.iter().any(|setting| named.contains(setting))).flatten();
        // The setting that tells most of them apart; of equal ones a learning rate, else the first.
        let tells = |setting: &Setting| (open().filter(|other| *other == setting).count(), setting.0.ends_with("learning_rate"));
        let mut best: Option<&Setting> = None;
        for setting in open() {
            if best.is_none_or(|best| tells(setting) > tells(best)) {
                best = Some(setting);
            }
        }
        let Some(best) = best.cloned() else { break };
        named.push(best);
    }
    let name = group.method.name();
    if named.is_empty() {
        return name;
    }
    let list: Vec<String> = named.iter().map(|(key, value)| format!("{key}\u{a0}=\u{a0}{value}")).collect();
    format!("{name} ({})", list.join(", "))
}

/// Variants that the method's name does not tell.
fn variant(config: &Config) -> Vec<Setting> {
    let learning = &config.learning;
    let mut settings = Vec::new();
    if learning.hybrid != 0.0 {
        settings.push(("hybrid".to_owned(), shown(&learning.hybrid.to_string())));
    }
    if let Some(units) =
        learning.auxiliary_units.filter(|units| learning.rule.uses(UsedSetting::AuxiliaryUnits) && *units != AUXILIARY_UNITS)
    {
        settings.push(("auxiliary_units".to_owned(), units.to_string()));
    }
    if learning.feedback_weights == FeedbackWeights::Transposed {
        settings.push(("feedback_weights".to_owned(), "transposed".to_owned()));
    }
    settings
}

/// Where `group` differs from `other`, with its own values.
fn contrasts(group: &Group, other: &Group) -> Vec<Setting> {
    let (ours, theirs) = (group.config(), other.config());
    let mut settings: Vec<Setting> =
        differences(ours, theirs).iter().map(|difference| (short(&difference.key), shown(&difference.ours))).collect();
    let mut add = |key: &str, value: String| settings.push((key.to_owned(), value));
    if ours.training.epochs != theirs.training.epochs {
        add("epochs", ours.training.epochs.map_or("any number".to_owned(), |epochs| epochs.to_string()));
    }
    if ours.training.max_steps != theirs.training.max_steps {
        add("max_steps", ours.training.max_steps.map_or("none".to_owned(), |steps| steps.to_string()));
    }
    if ours.parallel.precision != theirs.parallel.precision {
        add("precision", format!("{:?}", ours.parallel.precision).to_lowercase());
    }
    let (ours, theirs) = (&group.runs[0].data, &other.runs[0].data);
    if ours.identity != theirs.identity {
        add("data", ours.samples.map_or(ours.identity.clone(), |samples| format!("{samples} images")));
    }
    settings
}

/// Differences that matter to a result; a run's length is told elsewhere.
fn differences(ours: &Config, theirs: &Config) -> Vec<Difference> {
    ours.differences(theirs).into_iter().filter(|difference| !difference.key.starts_with("experiment.")).collect()
}

/// What of the run's configuration is not as in the one that comes with the project for the same cell of the paper; None where there is
/// no such cell or file.
fn departures(run: &Run) -> Option<Vec<Difference>> {
    let shipped = Config::load(Path::new(&run.cell()?.configuration()), &[]).ok()?;
    Some(differences(&run.config, &shipped))
}

fn short(key: &str) -> String {
    ["learning.", "optimizer.", "data."].iter().fold(key, |key, section| key.strip_prefix(section).unwrap_or(key)).to_owned()
}

/// A value of TOML as a person writes it.
fn shown(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if number != 0.0 && !(1e-5..1e6).contains(&number.abs()) => format!("{number:e}"),
        Ok(number) => number.to_string(),
        Err(_) if value == "absent" => "none".to_owned(),
        Err(_) => value.replace('"', ""),
    }
}

/// Hidden layers in short: "6 x dense 256".
fn layers_text(layers: &[Layer]) -> String {
    let mut parts: Vec<(String, usize)> = Vec::new();
    for layer in layers {
        let text = match layer {
            Layer::Dense { units } => format!("dense {units}"),
            Layer::Local { kernel, channels, stride } => format!("local {kernel}x{kernel}, {channels}, stride {stride}"),
            Layer::Conv { kernel, channels, stride } => format!("conv {kernel}x{kernel}, {channels}, stride {stride}"),
        };
        match parts.last_mut() {
            Some((last, count)) if *last == text => *count += 1,
            _ => parts.push((text, 1)),
        }
    }
    let parts: Vec<String> = parts.into_iter().map(|(text, count)| if count > 1 { format!("{count} × {text}") } else { text }).collect();
    if parts.is_empty() { "no hidden layer".to_owned() } else { parts.join(" | ") }
}
