//! Charts of what was measured of each layer.

use super::chart::{Axis, Chart, Entry, Line, LineChart, Panel as ChartPanel, Plot, of_layer};
use super::document::{Block, Content, Figure};
use super::group::Group;
use super::history::Diagnostic;
use super::range::Range;
use super::results::capitalised;
use super::spread::Spread;

/// A figure for each group with what was measured of each layer, of its first run that has any.
pub fn diagnostics(groups: &[Group]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for group in groups {
        let Some(run) = group.runs.iter().find(|run| !run.history.diagnostics.is_empty()) else { continue };
        let name = format!("layers-{}", blocks.len() + 1);
        let title = format!("{}, {}", group.label, group.panel.title());
        let panels = run.history.diagnostics.iter().map(layers).collect();
        let mut chart = Chart { panels, legend: vec![] };
        // All panels are of the same layers, but that not every layer has every quantity.
        let longest = chart.panels.iter().map(|panel| &panel.legend).max_by_key(|legend| legend.len());
        chart.legend = longest.cloned().unwrap_or_default();
        chart.panels.iter_mut().for_each(|panel| panel.legend.clear());
        let caption = format!("By layer, of the run {}.", run.path.display());
        blocks.push(Block::Figure(Figure { name, title, caption, content: Content::Chart(chart) }));
    }
    blocks
}

fn layers(diagnostic: &Diagnostic) -> ChartPanel {
    // Layers are told apart by their place in the network, in all panels alike.
    let place = |layer: &str| layer.rsplit('.').next().and_then(|place| place.parse().ok());
    let count =
        diagnostic.layers.iter().filter_map(|(layer, _)| place(layer)).max().map_or(diagnostic.layers.len(), |last: usize| last + 1);
    let mut lines: Vec<Line> = Vec::new();
    for (layer, values) in &diagnostic.layers {
        lines.push(Line {
            name: layer.clone(),
            look: of_layer(place(layer).unwrap_or(lines.len()), count),
            points: values.iter().map(|(epoch, value)| (*epoch, Spread { mean: *value, deviation: None })).collect(),
        });
    }
    let last_epoch = lines.iter().flat_map(|line| &line.points).map(|(epoch, _)| *epoch).fold(0.0, f64::max);
    let range = Range::of(&lines.iter().collect::<Vec<_>>(), last_epoch);
    let (title, axis) = meaning(&diagnostic.quantity);
    let legend = Entry::of(&lines);
    let (x, y) = (Axis::counting("Epoch", 0.0, last_epoch), Axis::linear(&axis, range.low, range.high));
    let plot = Plot::Lines(LineChart { x, y, x_name: "epoch".to_owned(), unit: String::new(), lines });
    ChartPanel { title, plot, legend }
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
