//! Learning curves, as in the paper's Figures 2, 3, 6 and 8.

use std::collections::BTreeSet;

use super::chart::{Axis, Chart, Entry, Line, LineChart, Panel as ChartPanel, Plot, of_method};
use super::document::{Block, Content, Figure};
use super::group::{Curve, Group, Panel};
use super::history::find_or_add;
use super::paper::{DataSet, Method};
use super::range::Range;
use super::results::{capitalised, epochs};
use super::spread::Spread;
use crate::compute::Measure;

/// Epochs up to which what lies within an epoch is drawn.
const SHORT: f64 = 2.0;
/// Lines of a panel that can be told apart; more become small multiples.
const MOST_LINES: usize = 10;

/// A part of each group's curves: what it is, and where it comes from.
struct Part {
    name: &'static str,
    curve: Curve,
    measure: Measure,
}

/// What a figure of learning curves is drawn by.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    y_title: &'static str,
    factor: f64,
    unit: &'static str,
}

const ERRORS: Kind = Kind { name: "curves", y_title: "Error (%)", factor: 100.0, unit: " %" };
const LOSSES: Kind = Kind { name: "reconstruction-curves", y_title: "Squared error of an image (sum)", factor: 1.0, unit: "" };

impl Kind {
    /// Losses of the images that `groups` were trained on, which are the same: by the pixel, as in the paper, where their size is known.
    fn of_losses(groups: &[&Group]) -> Kind {
        match groups[0].runs[0].data.pixels {
            Some(pixels) => Kind { y_title: "Squared error per pixel", factor: 1.0 / pixels as f64, ..LOSSES },
            None => LOSSES,
        }
    }
}

/// A figure, or two of small multiples, for each network on each data set.
pub fn learning_curves(groups: &[Group]) -> Vec<Block> {
    let parts = |panel: &Panel| match panel.paper {
        Some((DataSet::ImageNet, _)) => [
            Part { name: "top-1", curve: Curve::Test, measure: Measure::Top1Error },
            Part { name: "top-5", curve: Curve::Test, measure: Measure::Top5Error },
        ],
        _ => [
            Part { name: "test", curve: Curve::Test, measure: Measure::Top1Error },
            Part { name: "train", curve: Curve::Train, measure: Measure::Top1Error },
        ],
    };
    let caption = |panel: &Panel| {
        let what = match panel.paper {
            Some((DataSet::ImageNet, _)) => "Top-1 and top-5 test errors",
            _ => "Classification errors on the test set and in training",
        };
        panel.paper.map_or(format!("{what}."), |(data, _)| format!("{what}, as in {} of the paper.", data.place().1))
    };
    figures(groups, true, |_| ERRORS, parts, caption)
}

/// The same of autoencoders' losses.
pub fn reconstruction_curves(groups: &[Group]) -> Vec<Block> {
    let parts = |_: &Panel| {
        [
            Part { name: "test", curve: Curve::Test, measure: Measure::Loss },
            Part { name: "train", curve: Curve::Train, measure: Measure::Loss },
        ]
    };
    let caption = |_: &Panel| "Reconstruction errors on the test set and in training, as in Figure 6 of the paper.".to_owned();
    figures(groups, false, Kind::of_losses, parts, caption)
}

fn figures(
    groups: &[Group],
    classify: bool,
    kind: impl Fn(&[&Group]) -> Kind,
    parts: impl Fn(&Panel) -> [Part; 2],
    caption: impl Fn(&Panel) -> String,
) -> Vec<Block> {
    let mut panels: Vec<(&Panel, Vec<&Group>)> = Vec::new();
    for group in groups.iter().filter(|group| group.panel.classifies == classify) {
        find_or_add(&mut panels, |(panel, _)| *panel == &group.panel, || (&group.panel, Vec::new())).1.push(group);
    }
    let mut blocks = Vec::new();
    for (panel, mut groups) in panels {
        groups.sort_by_key(|group| group.method.legend_order());
        let several = groups.iter().any(|group| group.runs.len() > 1);
        let kind = &kind(&groups);
        let diverged: Vec<String> = groups.iter().filter_map(|group| Some(format!("{}, {}", group.label, group.divergence()?))).collect();
        let caption = match diverged.is_empty() {
            true => caption(panel),
            false => format!("{} Without runs that diverged: {}.", caption(panel), diverged.join("; ")),
        };
        let parts = parts(panel).map(|part| {
            let lines = groups.iter().enumerate().filter_map(|(at, group)| Some((group.method, line(&groups[..at], group, &part, kind)?)));
            (part.name, lines.collect::<Vec<_>>())
        });
        let parts: Vec<(&str, Vec<(Method, Line)>)> = parts.into_iter().filter(|(_, lines)| !lines.is_empty()).collect();
        let mut add = |title: String, panels: Vec<(String, Vec<Line>)>, shared: bool| {
            let name = format!("{}-{}", kind.name, blocks.len() + 1);
            blocks.push(figure(&name, &title, &caption, kind, several, panels, shared));
        };
        if groups.len() <= MOST_LINES {
            if !parts.is_empty() {
                let plain = |lines: Vec<(Method, Line)>| lines.into_iter().map(|(_, line)| line).collect();
                let panels = parts.into_iter().map(|(name, lines)| (capitalised(name), plain(lines))).collect();
                add(panel.title(), panels, false);
            }
        } else {
            for (name, lines) in parts {
                add(format!("{}: {name}", panel.title()), multiples(lines), true);
            }
        }
    }
    blocks
}

/// The curve of a group that comes after `before` in its chart; none where nothing was measured.
fn line(before: &[&Group], group: &Group, part: &Part, kind: &Kind) -> Option<Line> {
    let points = if group.runs.iter().all(|run| run.epochs() <= SHORT) {
        group.by_step(if part.curve == Curve::Train { Curve::Lines } else { part.curve }, part.measure)
    } else {
        group.curve(part.curve, part.measure)
    };
    let running = if group.finished() { String::new() } else { format!(" – {} epochs", epochs(group)) };
    let variant = before.iter().filter(|before| before.method == group.method).count();
    (!points.is_empty()).then(|| Line {
        name: group.label.clone() + &running,
        look: of_method(group.method, variant),
        points: points.into_iter().map(|(x, value)| (x, scaled(value, kind.factor))).collect(),
    })
}

/// Lines by rule, and where there are still too many in several panels.
fn multiples(lines: Vec<(Method, Line)>) -> Vec<(String, Vec<Line>)> {
    let mut rules: Vec<(String, Vec<Line>)> = Vec::new();
    for (method, line) in lines {
        let rule = method.rule.name().to_uppercase().replace('_', "-");
        find_or_add(&mut rules, |(known, _)| *known == rule, || (rule.clone(), Vec::new())).1.push(line);
    }
    let split = |(rule, lines): (String, Vec<Line>)| {
        let count = lines.len().div_ceil(MOST_LINES);
        let chunks: Vec<Vec<Line>> = lines.chunks(lines.len().div_ceil(count)).map(<[Line]>::to_vec).collect();
        let title = move |at: usize| if count > 1 { format!("{rule} ({} of {count})", at + 1) } else { rule.clone() };
        chunks.into_iter().enumerate().map(move |(at, lines)| (title(at), lines)).collect::<Vec<_>>()
    };
    rules.into_iter().flat_map(split).collect()
}

fn scaled(value: Spread, factor: f64) -> Spread {
    Spread { mean: factor * value.mean, deviation: value.deviation.map(|deviation| factor * deviation) }
}

/// A figure of panels against the epoch; with `shared` they have one vertical axis, and legends of their own.
fn figure(name: &str, title: &str, caption: &str, kind: &Kind, several: bool, panels: Vec<(String, Vec<Line>)>, shared: bool) -> Block {
    let all = || panels.iter().flat_map(|(_, lines)| lines);
    let last_epoch = all().flat_map(|line| &line.points).map(|(epoch, _)| *epoch).fold(0.0, f64::max);
    let common = shared.then(|| Range::of(&all().collect::<Vec<_>>(), last_epoch));
    let (mut outside, mut unseen) = (false, BTreeSet::new());
    let mut legend: Vec<Entry> = Vec::new();
    let mut drawn = Vec::new();
    for (title, lines) in panels {
        let range = common.unwrap_or_else(|| Range::of(&lines.iter().collect::<Vec<_>>(), last_epoch));
        let above = |(_, value): &(f64, Spread)| value.mean > range.high;
        outside |= lines.iter().flat_map(|line| &line.points).any(above);
        unseen.extend(lines.iter().filter(|line| line.points.iter().all(above)).map(|line| line.name.clone()));
        let entries = Entry::of(&lines);
        if !shared {
            let new: Vec<Entry> = entries.iter().filter(|entry| !legend.contains(entry)).cloned().collect();
            legend.extend(new);
        }
        let plot = Plot::Lines(LineChart {
            x: Axis::counting("Epoch", 0.0, last_epoch),
            y: Axis::linear(kind.y_title, range.low, range.high),
            x_name: "epoch".to_owned(),
            unit: kind.unit.to_owned(),
            lines,
        });
        drawn.push(ChartPanel { title, plot, legend: if shared { entries } else { vec![] } });
    }
    let mut caption = caption.to_owned();
    if several {
        caption += " Bands: sample standard deviation over seeds, up to the epoch that all seeds have come to.";
    }
    if outside {
        caption += " Some larger values lie outside.";
    }
    if !unseen.is_empty() {
        caption += &format!(" Above the axis from the first epoch to the last: {}.", unseen.into_iter().collect::<Vec<_>>().join("; "));
    }
    let content = Content::Chart(Chart { panels: drawn, legend });
    Block::Figure(Figure { name: name.to_owned(), title: title.to_owned(), caption, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::group::group;
    use crate::report::run::Run;
    use crate::report::samples;

    #[test]
    fn many_groups_become_small_multiples_and_few_share_a_panel() {
        let runs = |sigmas: usize| -> Vec<Run> {
            let of = |(name, sigma): (&str, usize)| {
                samples::run(name, &[&format!("learning.sigma=0.{}", sigma + 1)], &samples::line("test", 10, Some(0.5), 1.0))
            };
            (0..sigmas).flat_map(|sigma| [("mnist_fc_dtp_parallel", sigma), ("mnist_fc_sdtp_parallel", sigma)]).map(of).collect()
        };
        let panels = |runs: &[Run]| -> Vec<(String, usize, usize)> {
            let blocks = learning_curves(&group(runs));
            let [Block::Figure(Figure { content: Content::Chart(chart), .. })] = blocks.as_slice() else { panic!("{}", blocks.len()) };
            let of = |panel: &ChartPanel| {
                let Plot::Lines(lines) = &panel.plot else { panic!() };
                (panel.title.clone(), lines.lines.len(), panel.legend.len())
            };
            assert_eq!(chart.legend.is_empty(), chart.panels.len() > 1);
            chart.panels.iter().map(of).collect()
        };
        assert_eq!(panels(&runs(2)), [("Test".to_owned(), 4, 0)]);
        let of = |title: &str, lines: usize| (title.to_owned(), lines, lines);
        assert_eq!(panels(&runs(6)), [of("DTP", 6), of("SDTP", 6)]);
    }

    #[test]
    fn lines_of_a_panel_look_different_and_have_their_methods_hue() {
        let run = |name: &str, epochs: u64| {
            let set = format!("training.epochs={epochs}");
            samples::run(name, &[&set], &samples::line("test", 10, Some(0.5), 1.0))
        };
        let of = |name: &str| [run(name, 1), run(name, 2), run(name, 3)];
        let runs: Vec<Run> = ["mnist_fc_bp", "mnist_fc_fa", "mnist_fc_dtp_parallel"].into_iter().flat_map(of).collect();
        let blocks = learning_curves(&group(&runs));
        let [Block::Figure(Figure { content: Content::Chart(chart), .. })] = blocks.as_slice() else { panic!("{}", blocks.len()) };
        let looks: Vec<_> = chart.legend.iter().map(|entry| &entry.look).collect();
        let (different, hues): (BTreeSet<String>, BTreeSet<_>) =
            (looks.iter().map(|look| format!("{look:?}")).collect(), looks.iter().map(|look| look.colour).collect());
        assert_eq!((looks.len(), different.len(), hues.len()), (9, 9, 3));
    }

    /// The paper's axis goes from 0.005 to 0.020: no sum over an image has such values.
    #[test]
    fn reconstruction_errors_are_by_the_pixel_where_the_images_size_is_known() {
        let drawn = |data: &str, set: &[&str]| {
            let data = format!("data.train={data:?}");
            let set: Vec<&str> = set.iter().copied().chain([data.as_str()]).collect();
            let runs = [samples::run("mnist_autoencoder_bp", &set, &samples::line("test", 10, None, 7.84))];
            let blocks = reconstruction_curves(&group(&runs));
            let [Block::Figure(Figure { content: Content::Chart(chart), .. })] = blocks.as_slice() else { panic!() };
            let Plot::Lines(LineChart { y, lines, .. }) = &chart.panels[0].plot else { panic!() };
            (y.title.clone(), lines[0].points[0].1.mean)
        };
        let (title, value) = drawn("/nowhere/mnist/train", &[]);
        assert!(title == "Squared error per pixel" && (value - 0.01).abs() < 1e-12, "{title} {value}");
        let (_, value) = drawn("/nowhere/mnist/train", &["data.crop=[14,14]", "data.augment=[\"random_crop\"]"]);
        assert!((value - 0.04).abs() < 1e-12, "{value}");
        let named = "experiment.name=flowers";
        assert_eq!(drawn("/nowhere/flowers/train", &[named]), ("Squared error of an image (sum)".to_owned(), 7.84));
    }

    #[test]
    fn within_a_short_run_its_lines_are_drawn() {
        let lines: String = (1..=4).map(|at| samples::line("train", 3 * at, Some(0.5 / at as f64), 1.0)).collect();
        let runs = [samples::run("mnist_fc_bp", &["training.epochs=2"], &lines)];
        let points: Vec<f64> = group(&runs)[0].by_step(Curve::Lines, Measure::Top1Error).iter().map(|(epoch, _)| *epoch).collect();
        assert_eq!(points, [0.3, 0.6, 0.9, 1.2]);
        let blocks = learning_curves(&group(&runs));
        let [Block::Figure(Figure { content: Content::Chart(chart), .. })] = blocks.as_slice() else { panic!() };
        assert_eq!(chart.table()[1][..3], ["Train", "BP – 1.20 of 2 epochs", "0.3"]);
    }
}
