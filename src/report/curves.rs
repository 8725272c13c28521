//! Learning curves, as in the paper's Figures 2, 3, 6 and 8, and the study of auxiliary outputs, as in Figure 4.

use super::chart::{Axis, Line, LineChart, Stroke, of_layer, of_method};
use super::document::{Block, Content, Figure};
use super::group::{Curve, Group, Panel};
use super::history::{Diagnostic, find_or_add};
use super::label;
use super::paper::{DataSet, Method};
use super::results::{capitalised, count, epochs, test, train};
use super::run::Run;
use super::spread::Spread;
use crate::compute::Measure;
use crate::config::{Rule, Settings};

/// Epochs from which on a chart may leave the first, large values outside.
const LONG: f64 = 10.0;

/// A part of each group's curves: what it is, where it comes from, how it is drawn.
struct Part {
    name: &'static str,
    curve: Curve,
    measure: Measure,
    stroke: Stroke,
}

/// A chart for each network on each data set.
pub fn learning_curves(groups: &[Group]) -> Vec<Block> {
    let of_panel = |panel: &Panel| match panel.paper {
        Some((DataSet::ImageNet, _)) => [
            Part { name: "top-1", curve: test, measure: Measure::Top1Error, stroke: Stroke::Solid },
            Part { name: "top-5", curve: test, measure: Measure::Top5Error, stroke: Stroke::Dotted },
        ],
        _ => [
            Part { name: "test", curve: test, measure: Measure::Top1Error, stroke: Stroke::Solid },
            Part { name: "train", curve: train, measure: Measure::Top1Error, stroke: Stroke::Dashed },
        ],
    };
    let caption = |panel: &Panel| {
        let what = match panel.paper {
            Some((DataSet::ImageNet, _)) => "Top-1 (solid) and top-5 (dotted) test errors",
            _ => "Train (dashed) and test (solid) classification errors",
        };
        panel.paper.map_or(format!("{what}."), |(data, _)| format!("{what}, as in {} of the paper.", data.place().1))
    };
    charts(groups, true, "curves", "Error (%)", 100.0, of_panel, caption)
}

/// The same of autoencoders' losses, with the strokes of Figure 6.
pub fn reconstruction_curves(groups: &[Group]) -> Vec<Block> {
    let parts = |_: &Panel| {
        [
            Part { name: "train", curve: train, measure: Measure::Loss, stroke: Stroke::Solid },
            Part { name: "test", curve: test, measure: Measure::Loss, stroke: Stroke::Dashed },
        ]
    };
    let caption = |_: &Panel| "Train (solid) and test (dashed) reconstruction errors, as in Figure 6 of the paper.".to_owned();
    charts(groups, false, "reconstruction-curves", "Squared error of an image", 1.0, parts, caption)
}

fn charts(
    groups: &[Group],
    classify: bool,
    name: &str,
    y_title: &str,
    factor: f64,
    parts: impl Fn(&Panel) -> [Part; 2],
    caption: impl Fn(&Panel) -> String,
) -> Vec<Block> {
    let mut panels: Vec<(&Panel, Vec<&Group>)> = Vec::new();
    for group in groups.iter().filter(|group| group.panel.classifies == classify) {
        find_or_add(&mut panels, |(panel, _)| *panel == &group.panel, || (&group.panel, Vec::new())).1.push(group);
    }
    let chart = |(index, (panel, mut groups)): (usize, (&Panel, Vec<&Group>))| {
        groups.sort_by_key(|group| group.method.legend_order());
        let mut lines = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let variant = groups[..at].iter().filter(|before| before.method == group.method).count();
            let running = if group.finished() { String::new() } else { format!(" – {} epochs", epochs(group)) };
            for part in parts(panel) {
                let points: Vec<(f64, Spread)> =
                    group.curve(part.curve, part.measure).into_iter().map(|(epoch, value)| (epoch, scaled(value, factor))).collect();
                if !points.is_empty() {
                    let (name, look) = (group.label.clone() + &running, of_method(group.method, variant));
                    lines.push(Line { name, part: part.name.to_owned(), look, stroke: part.stroke, points });
                }
            }
        }
        let several = groups.iter().any(|group| group.runs.len() > 1);
        let unit = if factor == 100.0 { " %" } else { "" };
        against_epoch(&format!("{name}-{}", index + 1), &panel.title(), &caption(panel), y_title, unit, several, lines)
    };
    panels.into_iter().enumerate().filter_map(chart).collect()
}

fn scaled(value: Spread, factor: f64) -> Spread {
    Spread { mean: factor * value.mean, deviation: value.deviation.map(|deviation| factor * deviation) }
}

/// A chart of `lines` against the epoch; none where there is no line.
fn against_epoch(id: &str, title: &str, caption: &str, y_title: &str, unit: &str, several: bool, lines: Vec<Line>) -> Option<Block> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let last_epoch = all().map(|(epoch, _)| *epoch).fold(0.0, f64::max);
    let (low, high) = extent(all().map(|(_, value)| value));
    if lines.is_empty() {
        return None;
    }
    let shown = settled(&lines, last_epoch).filter(|settled| *settled < 0.85 * high);
    // From zero where that is near, and never below it because of a band.
    let least = all().map(|(_, value)| value.mean).fold(f64::INFINITY, f64::min);
    let from_zero = least >= 0.0 && low < 0.3 * shown.unwrap_or(high);
    let y = Axis::linear(y_title, if from_zero { 0.0 } else { low }, shown.unwrap_or(high));
    let mut caption = caption.to_owned();
    if several {
        caption += " Bands: sample standard deviation over seeds, up to the epoch that all seeds have come to.";
    }
    if shown.is_some() {
        caption += " Some larger values lie outside.";
    }
    let chart = LineChart {
        id: id.to_owned(),
        title: title.to_owned(),
        x: Axis::counting("Epoch", 0.0, last_epoch),
        y,
        x_name: "epoch".to_owned(),
        unit: unit.to_owned(),
        lines,
    };
    Some(Block::Figure(Figure { name: id.to_owned(), title: title.to_owned(), caption, content: Content::Svg(chart.svg()) }))
}

/// Least and greatest value, deviations included.
fn extent<'a>(values: impl Iterator<Item = &'a Spread>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        let deviation = value.deviation.unwrap_or(0.0);
        (low.min(value.mean - deviation), high.max(value.mean + deviation))
    })
}

/// What most values of each line lie below after the first fifth of a long training, and a little more. A line that leaps now and then
/// would squeeze all others together if all of it were shown.
fn settled(lines: &[Line], last_epoch: f64) -> Option<f64> {
    if last_epoch < LONG {
        return None;
    }
    let usual = |line: &Line| {
        let end = line.points.last()?.0;
        let mut later: Vec<f64> = line.points.iter().filter(|(epoch, _)| *epoch >= 0.2 * end).map(|(_, value)| value.mean).collect();
        later.sort_by(f64::total_cmp);
        later.get(later.len() * 3 / 4).copied()
    };
    lines.iter().filter_map(usual).reduce(f64::max).map(|value| 1.15 * value).filter(|value| *value > 0.0)
}

/// Groups that differ in the number of auxiliary outputs alone, and what becomes of their test error.
struct Study<'a> {
    groups: Vec<&'a Group<'a>>,
    /// That all points are after.
    epochs: f64,
    points: Vec<(f64, Spread)>,
}

impl<'a> Study<'a> {
    /// None where there are fewer than two numbers to compare. Of runs that have come less far than others the error would say something
    /// else, so they are left out.
    fn of(groups: Vec<&'a Group<'a>>) -> Option<Study<'a>> {
        let runs = groups.iter().flat_map(|group| &group.runs);
        let epochs = runs.filter_map(|run| run.tested()).map(|(epochs, _)| epochs).reduce(f64::max)?;
        let error = |run: &Run| {
            let (tested, point) = run.tested()?;
            (tested == epochs).then_some(100.0 * point.measured.get(Measure::Top1Error)?)
        };
        let point = |group: &&Group| Some((group.config().learning.auxiliary_units? as f64, group.spread(error)?));
        let mut points: Vec<(f64, Spread)> = groups.iter().filter_map(point).collect();
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        (points.len() > 1).then_some(Study { groups, epochs, points })
    }

    fn method(&self) -> Method {
        self.groups[0].method
    }

    fn name(&self) -> String {
        format!("{}, {} {}", self.method().name(), count(self.epochs), if self.epochs == 1.0 { "epoch" } else { "epochs" })
    }
}

/// Groups by [`Group::study`].
type Studies<'a> = Vec<(Settings, Vec<&'a Group<'a>>)>;

/// Test error against the number of auxiliary outputs, for each network that was trained with several and otherwise alike.
pub fn auxiliary_study(groups: &[Group]) -> Vec<Block> {
    let mut panels: Vec<(&Panel, Studies)> = Vec::new();
    for group in groups.iter().filter(|group| group.method.rule == Rule::AO_SDTP && group.panel.classifies) {
        let (_, studies) = find_or_add(&mut panels, |(panel, _)| *panel == &group.panel, || (&group.panel, Vec::new()));
        let study = group.study();
        find_or_add(studies, |(known, _)| *known == study, || (study.clone(), Vec::new())).1.push(group);
    }
    let mut blocks = Vec::new();
    for (panel, studies) in panels {
        let studies: Vec<Study> = studies.into_iter().filter_map(|(_, groups)| Study::of(groups)).collect();
        let lines: Vec<Line> = (0..studies.len()).map(|at| by_size(&studies, at)).collect();
        if !lines.is_empty() {
            blocks.push(against_size(&format!("auxiliary-{}", blocks.len() + 1), &panel.title(), lines));
        }
    }
    blocks
}

/// The line of study `at` of a chart.
fn by_size(studies: &[Study], at: usize) -> Line {
    let study = &studies[at];
    let namesakes = studies.iter().enumerate().filter(|(other, namesake)| *other != at && namesake.name() == study.name());
    let others: Vec<&Group> = namesakes.map(|(_, namesake)| namesake.groups[0]).collect();
    let variant = studies[..at].iter().filter(|before| before.method() == study.method()).count();
    Line {
        name: label::of_study(study.name(), study.groups[0], &others),
        part: String::new(),
        look: of_method(study.method(), variant),
        stroke: Stroke::Solid,
        points: study.points.clone(),
    }
}

fn against_size(name: &str, title: &str, lines: Vec<Line>) -> Block {
    let sizes: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|(size, _)| *size).collect();
    let (low, high) = extent(lines.iter().flat_map(|line| &line.points).map(|(_, error)| error));
    let chart = LineChart {
        id: name.to_owned(),
        title: title.to_owned(),
        x: Axis::log2("Auxiliary outputs", &sizes),
        y: Axis::linear("Test error (%)", low.max(0.0), high),
        x_name: "auxiliary outputs:".to_owned(),
        unit: " %".to_owned(),
        lines,
    };
    let mut caption =
        "Test error at the last epoch against the number of auxiliary outputs of AO-SDTP, as in Figure 4 of the paper.".to_owned();
    if chart.lines.iter().flat_map(|line| &line.points).any(|(_, error)| error.deviation.is_some()) {
        caption += " Bands: sample standard deviation.";
    }
    Block::Figure(Figure { name: name.to_owned(), title: title.to_owned(), caption, content: Content::Svg(chart.svg()) })
}

/// Charts of what was measured of each layer, for the first run of each group.
pub fn layer_diagnostics(groups: &[Group]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for group in groups {
        // Of several seeds, the first that has any.
        let Some(run) = group.runs.iter().find(|run| !run.history.diagnostics.is_empty()) else { continue };
        for diagnostic in &run.history.diagnostics {
            let id = format!("layers-{}", blocks.len() + 1);
            let (quantity, axis) = meaning(&diagnostic.quantity);
            let title = format!("{quantity}: {}, {}", group.label, group.panel.title());
            let caption = format!("By layer, of the run {}.", run.path.display());
            blocks.extend(against_epoch(&id, &title, &caption, &axis, "", false, by_layer(diagnostic)));
        }
    }
    blocks
}

fn by_layer(diagnostic: &Diagnostic) -> Vec<Line> {
    let mut lines = Vec::new();
    for (layer, values) in &diagnostic.layers {
        lines.push(Line {
            name: layer.clone(),
            part: String::new(),
            look: of_layer(lines.len(), diagnostic.layers.len()),
            stroke: Stroke::Solid,
            points: values.iter().map(|(epoch, value)| (*epoch, Spread { mean: *value, deviation: None })).collect(),
        });
    }
    lines
}

/// A quantity's title and that of its axis, from its key: `angle_degrees` is "Angle", in degrees.
fn meaning(key: &str) -> (String, String) {
    let (name, unit) = match key.strip_suffix("_degrees") {
        Some(name) => (name, " (degrees)"),
        None => (key, ""),
    };
    let title = capitalised(&name.replace('_', " "));
    (title.clone(), title + unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::group::group;
    use crate::report::samples;

    #[test]
    fn a_line_of_the_study_differs_in_the_number_of_outputs_alone() {
        let run = |units: usize, sigma: f64, errors: &[f64]| {
            let lines: String = (1u64..).zip(errors).map(|(epoch, error)| samples::line("test", 10 * epoch, Some(*error), 1.0)).collect();
            let set = [format!("learning.auxiliary_units={units}"), format!("learning.sigma={sigma}"), "training.epochs=2".to_owned()];
            samples::run("mnist_fc_ao_sdtp_parallel", &set.each_ref().map(String::as_str), &lines)
        };
        let mut runs = vec![run(4, 0.25, &[0.5, 0.25]), run(16, 0.25, &[0.5, 0.125]), run(64, 0.25, &[0.75])];
        let svg = |runs: &[Run]| match auxiliary_study(&group(runs)).as_slice() {
            [Block::Figure(Figure { content: Content::Svg(svg), .. })] => svg.clone(),
            other => panic!("{other:?}"),
        };
        let one = svg(&runs);
        for point in ["epochs, auxiliary outputs: 4: 25.", "epochs, auxiliary outputs: 16: 12."] {
            assert!(one.contains(&format!("AO-SDTP, parallel, 2 {point}")), "{point} in {one}");
        }
        assert!(!one.contains("auxiliary outputs: 64"), "it has not come so far: {one}");
        runs.extend([run(4, 0.5, &[0.5, 0.375]), run(32, 0.5, &[0.5, 0.0625])]);
        let two = svg(&runs);
        for (sigma, point) in [("0.25", "4: 25."), ("0.25", "16: 12."), ("0.5", "4: 37."), ("0.5", "32: 6.2")] {
            let expected = format!("AO-SDTP, parallel, 2 epochs (sigma\u{a0}=\u{a0}{sigma}), auxiliary outputs: {point}");
            assert!(two.contains(&expected), "{expected} in {two}");
        }
    }
}
