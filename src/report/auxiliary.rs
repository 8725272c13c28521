//! The study of the number of auxiliary outputs, as in the paper's Figure 4.

use super::chart::{Axis, Chart, Entry, Line, LineChart, Panel as ChartPanel, Plot, of_method};
use super::document::{Block, Content, Figure};
use super::group::{Group, Panel};
use super::history::find_or_add;
use super::label;
use super::paper::Method;
use super::range::extent;
use super::results::count;
use super::run::Run;
use super::spread::Spread;
use crate::compute::Measure;
use crate::config::{Rule, Settings};

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
pub fn study(groups: &[Group]) -> Vec<Block> {
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
        look: of_method(study.method(), variant),
        points: study.points.clone(),
    }
}

fn against_size(name: &str, title: &str, lines: Vec<Line>) -> Block {
    let sizes: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|(size, _)| *size).collect();
    let (low, high) = extent(lines.iter().flat_map(|line| &line.points).map(|(_, error)| error));
    let mut caption =
        "Test error at the last epoch against the number of auxiliary outputs of AO-SDTP, as in Figure 4 of the paper.".to_owned();
    if lines.iter().flat_map(|line| &line.points).any(|(_, error)| error.deviation.is_some()) {
        caption += " Bands: sample standard deviation.";
    }
    let legend = Entry::of(&lines);
    let plot = Plot::Lines(LineChart {
        x: Axis::log2("Auxiliary outputs", &sizes),
        y: Axis::linear("Test error (%)", low.max(0.0), high),
        x_name: "auxiliary outputs:".to_owned(),
        unit: " %".to_owned(),
        lines,
    });
    let content = Content::Chart(Chart { panels: vec![ChartPanel { title: String::new(), plot, legend: vec![] }], legend });
    Block::Figure(Figure { name: name.to_owned(), title: title.to_owned(), caption, content })
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
        let svg = |runs: &[Run]| match study(&group(runs)).as_slice() {
            [Block::Figure(Figure { content: Content::Chart(chart), .. })] => chart.files("", 180.0).0,
            other => panic!("{}", other.len()),
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
