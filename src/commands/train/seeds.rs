//! One configuration with several seeds: what an error means depends on how much it varies.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::commands::text::table;
use crate::config::{Config, Output};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::training::{Best, StopRequest, records};

/// Trains the configuration that `load` makes with each of `seeds` in `out`/seed_N, one after another, and reports. Collective.
pub fn run(
    seeds: &[u64],
    out: &Path,
    load: impl Fn(&[String]) -> Result<Config>,
    resume: bool,
    stop: StopRequest,
    transport: Arc<dyn Transport>,
) -> Result<()> {
    if let Some(twice) = seeds.iter().enumerate().find_map(|(at, seed)| seeds[..at].contains(seed).then_some(seed)) {
        return Err(Exit::Usage.error(format!("--seeds: {twice} is named twice")));
    }
    let configs: Vec<Config> = seeds.iter().map(|seed| load(&[format!("experiment.seed={seed}")])).collect::<Result<_>>()?;
    let folder = |seed: &u64| out.join(format!("seed_{seed}"));
    // Whatever is refused is refused before hours of training.
    for (seed, config) in seeds.iter().zip(&configs) {
        super::find(&folder(seed), resume, config, &*transport)?;
    }
    for (seed, config) in seeds.iter().zip(&configs) {
        super::train(config, &folder(seed), resume, stop.clone(), transport.clone())?;
        // The engine is gone, and with it all that used this memory.
        unsafe { transport.release_shared() };
    }
    if transport.rank() == 0 {
        report(seeds, &configs[0], folder)?;
    }
    Ok(())
}

fn report(seeds: &[u64], config: &Config, folder: impl Fn(&u64) -> std::path::PathBuf) -> Result<()> {
    let Some(split) = config.data.test.as_ref().map(|_| "test").or((config.data.validation > 0).then_some("validation")) else {
        return Ok(());
    };
    let classifies = config.network.output == Output::Softmax;
    let measure = |measured: &records::Measured| if classifies { measured.top1_error } else { measured.loss };
    let show = |value: f64| if classifies { format!("{:.2} %", 100.0 * value) } else { format!("{value:.5}") };
    let (mut last, mut best) = (Vec::new(), Vec::new());
    for seed in seeds {
        let lines = records::evaluations(&folder(seed))?;
        last.push(lines.iter().rev().find(|line| line.split == split).and_then(|line| measure(&line.measured)));
        best.push(
            Best::read(&folder(seed))?
                .and_then(|best| if split == "test" { best.test } else { Some(best.validation) })
                .as_ref()
                .and_then(measure),
        );
    }
    let name = if classifies { format!("{split} error") } else { format!("{split} loss") };
    let mut rows = vec![vec!["seed".to_owned(), name.clone()]];
    let with_best = best.iter().any(Option::is_some);
    if with_best {
        rows[0].push("at the best checkpoint".to_owned());
    }
    let columns: Vec<Vec<Option<f64>>> = if with_best { vec![last, best] } else { vec![last] };
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), &show);
    for (at, seed) in seeds.iter().enumerate() {
        rows.push([seed.to_string()].into_iter().chain(columns.iter().map(|column| cell(column[at]))).collect());
    }
    let known: Vec<Vec<f64>> = columns.iter().map(|column| column.iter().flatten().copied().collect()).collect();
    rows.push(["mean".to_owned()].into_iter().chain(known.iter().map(|values| cell(mean(values)))).collect());
    rows.push(["deviation".to_owned()].into_iter().chain(known.iter().map(|values| cell(deviation(values)))).collect());
    say(format_args!("\n{}", table(&rows, 1).trim_end()));
    Ok(())
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample's standard deviation, with n - 1; None of fewer than two values.
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    (values.len() > 1).then(|| (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations_are_of_the_sample() {
        assert_eq!((mean(&[]), deviation(&[]), deviation(&[3.0])), (None, None, None));
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!((mean(&values), deviation(&values)), (Some(5.0), Some((32.0f64 / 7.0).sqrt())));
    }
}
