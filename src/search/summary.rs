//! What a person reads at the end of a sweep.

use toml::Value;

use super::results::{Results, Trial};
use super::rungs::Rungs;
use crate::text::table;

const BEST: usize = 5;

/// How many trials there were and how they ended, and the best ones with their values; how results are spread, the report shows. Trials that
/// diverged or failed are not among the best, however well they did before: none of them may be chosen. `used` tells which values a trial uses.
pub fn summary<U: Fn(&str) -> bool>(results: &Results, rungs: &Rungs, used: impl Fn(&Trial) -> U) -> String {
    let trials = results.trials();
    let count = |status: &str| trials.iter().filter(|trial| trial.status(rungs) == status).count();
    let kinds = [("done", "trained to the end"), ("stopped", "stopped at an earlier rung"), ("diverged", "diverged"), ("failed", "failed")];
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(status, words)| (count(status), words))
        .filter(|kind| kind.0 > 0)
        .map(|(n, words)| format!("{n} {words}"))
        .collect();
    let mut out = format!("{} trials: {}\n", trials.len(), kinds.join(", "));
    let classifies = trials.iter().filter_map(Trial::reached).any(|reached| reached.validation_error.is_some());
    out += &best(results, rungs, classifies, used);
    out
}

fn best<U: Fn(&str) -> bool>(results: &Results, rungs: &Rungs, classifies: bool, used: impl Fn(&Trial) -> U) -> String {
    let show = |value: f64| if classifies { percent(value) } else { format!("{value:.5}") };
    let name = if classifies { "validation error" } else { "validation loss" };
    // From those that were trained longest down.
    let mut order: Vec<usize> = Vec::new();
    for rung in (0..rungs.0.len()).rev() {
        order.extend(results.ranking(rung).into_iter().filter(|number| !order.contains(number)).collect::<Vec<_>>());
    }
    let trials = order.into_iter().map(|number| &results.trials()[number]);
    let chosen: Vec<&Trial> = trials.filter(|trial| trial.ending.is_none()).take(BEST).collect();
    let Some(first) = chosen.first() else { return String::new() };
    let varied: Vec<usize> =
        (0..first.values.len()).filter(|at| results.trials().iter().any(|trial| trial.values[*at].1 != first.values[*at].1)).collect();
    let mut header = vec!["trial".to_owned(), name.to_owned(), "epochs".to_owned()];
    header.extend(varied.iter().map(|at| short(&first.values[*at].0).to_owned()));
    let mut rows = vec![header];
    for trial in chosen {
        let reached = trial.reached().expect("it has passed a rung");
        let mut row = vec![trial.number.to_string(), show(reached.value()), reached.epochs.0.to_string()];
        let used = used(trial);
        let cell = |(key, value): &(String, Value)| if used(key) { plain(value) } else { "-".to_owned() };
        row.extend(varied.iter().map(|at| cell(&trial.values[*at])));
        rows.push(row);
    }
    format!("the best:\n{}", table(&rows, 0))
}

/// A fraction as people read it.
pub fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// The values that are `used`, in a few words: "alpha 0.12, forward.learning_rate 1.3e-4".
pub fn describe(trial: &Trial, used: impl Fn(&str) -> bool) -> String {
    trial
        .values
        .iter()
        .filter(|(key, _)| used(key))
        .map(|(key, value)| format!("{} {}", short(key), plain(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn short(key: &str) -> &str {
    ["learning.", "optimizer."].iter().find_map(|section| key.strip_prefix(section)).unwrap_or(key)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Float(number) if *number != 0.0 && number.abs() < 0.01 => format!("{:e}", rounded(*number)),
        Value::Float(number) => rounded(*number).to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Four figures.
fn rounded(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Ending, Epochs, Reached};

    #[test]
    fn numbers_are_short_and_right() {
        let cases = [(0.000132457, "1.325e-4"), (0.150084, "0.1501"), (0.9, "0.9"), (1e-8, "1e-8"), (0.0, "0"), (128.0, "128")];
        for (number, text) in cases {
            assert_eq!(plain(&Value::Float(number)), text);
        }
    }

    #[test]
    fn a_summary_counts_draws_and_names_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let rungs: Rungs = "1:12,9:1".parse().unwrap();
        let values = |number: usize| {
            vec![
                ("learning.alpha".to_owned(), Value::Float(0.1 * number as f64)),
                ("optimizer.forward.beta1".to_owned(), Value::Float(0.9)),
            ]
        };
        let mut results = Results::open(folder.path(), &rungs, values).unwrap();
        let reached = |epochs: u32, error| Reached { epochs: Epochs(epochs.into()), validation_error: Some(error), validation_loss: 1.0 };
        for number in 0..10 {
            results.change(number, |trial| trial.rungs.push(reached(1, 0.10 + 0.01 * number as f64))).unwrap();
        }
        results.change(0, |trial| trial.rungs.push(reached(9, 0.02))).unwrap();
        // However well these did before.
        for (number, ending) in [
            (10, Ending::Diverged { epochs: Epochs(2.0), before: Some(reached(2, 0.005)) }),
            (11, Ending::Failed { reason: "killed".into() }),
        ] {
            results
                .change(number, |trial| {
                    trial.rungs.push(reached(1, 0.01));
                    trial.ending = Some(ending);
                })
                .unwrap();
        }
        let text = summary(&results, &rungs, |trial| {
            let number = trial.number;
            move |_: &str| number != 1
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "12 trials: 1 trained to the end, 9 stopped at an earlier rung, 1 diverged, 1 failed");
        assert_eq!(lines[1..3], ["the best:", "trial   validation error   epochs   alpha"], "{text}");
        assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["0", "2.00", "%", "9", "0"]);
        assert_eq!(lines[4].split_whitespace().collect::<Vec<_>>(), ["1", "11.00", "%", "1", "-"]);
        assert_eq!(lines.len(), 3 + BEST);
    }
}
