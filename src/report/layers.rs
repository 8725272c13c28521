//! Charts of what was measured of each layer. Seeds are shown together, as in learning curves: what one of them shows may be chance.

use super::chart::{Axis, Chart, Entry, Line, LineChart, Panel as ChartPanel, Plot, of_layer};
use super::document::{Block, Content, Figure};
use super::group::Group;
use super::history::Diagnostic;
use super::range::Range;
use super::results::capitalised;
use super::run::Run;
use super::spread::Spread;

/// A figure for each group with what was measured of each layer, in the mean over its runs that have any.
pub fn diagnostics(groups: &[Group]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for group in groups {
        let runs: Vec<&Run> = group.runs.iter().copied().filter(|run| !run.history.diagnostics.is_empty()).collect();
        let Some(first) = runs.first() else { continue };
        let name = format!("layers-{}", blocks.len() + 1);
        let title = format!("{}, {}", group.label, group.panel.title());
        let quantities = &first.history.diagnostics;
        let panels: Vec<ChartPanel> = quantities.iter().filter_map(|diagnostic| layers(diagnostic, &runs)).collect();
        if panels.is_empty() {
            continue;
        }
        let mut chart = Chart { panels, legend: vec![] };
        // All panels are of the same layers, but that not every layer has every quantity.
        let longest = chart.panels.iter().map(|panel| &panel.legend).max_by_key(|legend| legend.len());
        chart.legend = longest.cloned().unwrap_or_default();
        chart.panels.iter_mut().for_each(|panel| panel.legend.clear());
        let whose = match (runs.len(), group.runs.len()) {
            (1, 1) => format!("By layer, of the run {}.", first.path.display()),
            (1, seeds) => format!("By layer, of the run {}, which alone of {seeds} seeds was measured.", first.path.display()),
            (measured, seeds) => {
                let of = if measured < seeds { format!(" of {seeds}, as many as were measured") } else { String::new() };
                format!(
                    "By layer, mean over {measured} seeds{of}, up to the epoch that all have come to. Bands: sample standard deviation."
                )
            }
        };
        let caption = std::iter::once(whose).chain(quantities.iter().filter_map(|quantity| definition(&quantity.quantity)));
        let caption = caption.collect::<Vec<_>>().join(" ");
        blocks.push(Block::Figure(Figure { name, title, caption, content: Content::Chart(chart) }));
    }
    blocks
}

/// The layers of `diagnostic`, which the first of `runs` has: their means at the epochs that all runs have; none where there are no such epochs.
fn layers(diagnostic: &Diagnostic, runs: &[&Run]) -> Option<ChartPanel> {
    // Layers are told apart by their place in the network, in all panels alike.
    let place = |layer: &str| layer.rsplit('.').next().and_then(|place| place.parse().ok());
    let count =
        diagnostic.layers.iter().filter_map(|(layer, _)| place(layer)).max().map_or(diagnostic.layers.len(), |last: usize| last + 1);
    let mut lines: Vec<Line> = Vec::new();
    for (layer, values) in &diagnostic.layers {
        let of_runs: Vec<&[(f64, f64)]> = runs.iter().filter_map(|run| run.history.layer(&diagnostic.quantity, layer)).collect();
        let mean = |epoch: f64| {
            let value = |values: &&[(f64, f64)]| values.iter().find(|(known, _)| *known == epoch).map(|(_, value)| *value);
            let values: Option<Vec<f64>> = of_runs.iter().map(value).collect();
            Some((epoch, Spread::of(&values?)?))
        };
        let points: Vec<_> = values.iter().filter_map(|(epoch, _)| mean(*epoch)).collect();
        if !points.is_empty() {
            lines.push(Line { name: layer.clone(), look: of_layer(place(layer).unwrap_or(lines.len()), count), points });
        }
    }
    if lines.is_empty() {
        return None;
    }
    let last_epoch = lines.iter().flat_map(|line| &line.points).map(|(epoch, _)| *epoch).fold(0.0, f64::max);
    let range = Range::of(&lines.iter().collect::<Vec<_>>(), last_epoch);
    let (title, axis) = meaning(&diagnostic.quantity);
    let legend = Entry::of(&lines);
    let (x, y) = (Axis::counting("Epoch", 0.0, last_epoch), Axis::linear(&axis, range.low, range.high));
    let plot = Plot::Lines(LineChart { x, y, x_name: "epoch".to_owned(), unit: String::new(), lines });
    Some(ChartPanel { title, plot, legend })
}

/// What a quantity is, in short; docs/algorithms.md has the formulas.
fn definition(key: &str) -> Option<String> {
    let text = match key {
        "angle_degrees" => "between the rule's gradient and back-propagation's",
        "norm_ratio" => "norm of the rule's gradient over that of back-propagation's",
        "feedback_angle_degrees" => "between a layer's weights and the feedback weights in their place",
        "reconstruction_error" => {
            "squared distance of what the layer's inverse makes of the layer's activity from the activity below, over \
             the square of that"
        }
        "target_diversity" => "standard deviation of targets over samples, over that of activities",
        _ => return None,
    };
    Some(format!("{}: {text}.", meaning(key).0))
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
    fn seeds_are_shown_as_their_mean() {
        let run = |seed: u64, angles: &[f64]| {
            let line = |(epoch, angle): (u64, &f64)| {
                let diagnostics = format!("\"diagnostics\":{{\"layers.0\":{{\"angle_degrees\":{angle}}}}}");
                format!("{{\"split\":\"test\",\"step\":{},\"epoch\":{epoch},\"loss\":1,{diagnostics}}}\n", 10 * epoch)
            };
            let lines: String = (1..).zip(angles).map(line).collect();
            samples::run("mnist_fc_bp", &[&format!("experiment.seed={seed}")], &lines)
        };
        let without = samples::run("mnist_fc_bp", &["experiment.seed=2"], &samples::line("test", 10, Some(0.5), 1.0));
        let runs = [run(0, &[80.0, 60.0, 50.0]), run(1, &[84.0, 66.0]), without];
        let drawn = |runs: &[Run]| match diagnostics(&group(runs)).as_slice() {
            [Block::Figure(Figure { caption, content: Content::Chart(chart), .. })] => (chart.table(), caption.clone()),
            other => panic!("{}", other.len()),
        };
        let (table, caption) = drawn(&runs);
        let deviation = |row: &[String]| row[4].parse::<f64>().unwrap();
        assert_eq!(
            (&table[1][2..4], &table[2][2..4], table.len()),
            (&["1", "82"].map(str::to_owned)[..], &["2", "63"].map(str::to_owned)[..], 3)
        );
        // Of two values half their distance times the root of two.
        assert!((deviation(&table[1]) - 8f64.sqrt()).abs() < 1e-12 && (deviation(&table[2]) - 18f64.sqrt()).abs() < 1e-12, "{table:?}");
        assert!(caption.contains("mean over 2 seeds of 3, as many as were measured"), "{caption}");
        assert!(caption.contains("Angle: between the rule's gradient"), "{caption}");
        assert_eq!(drawn(&runs[1..]).0[1][2..], ["1", "84", ""].map(str::to_owned));
        // Measured at no epoch that both have come to.
        let mut late = run(3, &[70.0]);
        late.history.diagnostics.iter_mut().flat_map(|diagnostic| &mut diagnostic.layers).for_each(|(_, values)| values[0].0 = 9.0);
        let [early, ..] = runs;
        assert!(diagnostics(&group(&[early, late])).is_empty());
    }
}
