//! One configuration several times: with several seeds, since what an error means depends on how much it varies, or with several values
//! of one key, which is how a study of that key is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use crate::compute::Measure;
use crate::config::{Config, Loaded, Output, Unused};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::report::Spread;
use crate::text::table;
use crate::training::{Best, StopRequest, records};

/// Values of a key, each of which is trained with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    key: String,
    values: Vec<String>,
}

impl Series {
    pub fn of_seeds(seeds: &[u64]) -> Series {
        Series { key: SEED.to_owned(), values: seeds.iter().map(u64::to_string).collect() }
    }

    /// The last part of the key: `auxiliary_units` of `learning.auxiliary_units`.
    fn name(&self) -> &str {
        self.key.rsplit('.').next().expect("a text has a last part")
    }

    fn folder(&self, out: &Path, value: &str) -> PathBuf {
        out.join(format!("{}_{value}", self.name()))
    }

    /// Refuses values that would show nothing: of a key that changes nothing, or two that are written differently and mean the same.
    /// `loaded` holds the configuration with each.
    fn check(&self, loaded: &[Loaded]) -> Result<()> {
        let Series { key, values } = self;
        let within = |unused: &&Unused| unused.key.strip_prefix(key.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if let Some(unused) = loaded.iter().flat_map(|loaded| &loaded.unused).find(within) {
            return Err(Exit::Usage.error(format!("--vary {key}: its values would make no difference: {}", unused.reason)));
        }
        for (at, value) in values.iter().enumerate() {
            if let Some(same) = (0..at).find(|before| loaded[*before].config == loaded[at].config) {
                let twice = if values[same] == *value {
                    format!("{value} is named twice")
                } else {
                    format!("{} and {value} are the same; name it once", values[same])
                };
                return Err(Exit::Usage.error(format!("{key}: {twice}")));
            }
        }
        Ok(())
    }
}

/// Says which keys were written on the command line and change nothing in any of these configurations.
pub fn tell_unused(loaded: &[Loaded], transport: &dyn Transport) {
    let Some((first, others)) = loaded.split_first().filter(|_| transport.rank() == 0) else { return };
    let everywhere = |unused: &&Unused| others.iter().all(|other| other.config.unused(&unused.key).is_some());
    for Unused { key, reason, .. } in first.unused.iter().filter(|unused| unused.typed).filter(everywhere) {
        log::warn!("{key} was given and changes nothing: {reason}");
    }
}

const SEED: &str = "experiment.seed";

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.values.join(","))
    }
}

impl std::str::FromStr for Series {
    type Err = String;

    /// KEY=VALUE,VALUE,...
    fn from_str(text: &str) -> Result<Series, String> {
        let (key, values) = text.split_once('=').ok_or("write KEY=VALUE,VALUE,..., for instance learning.auxiliary_units=8,32,128")?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if let Some(value) = values.iter().find(|value| value.is_empty() || value.contains(['/', '[', ']', '"', '\\'])) {
            return Err(format!("\"{value}\" cannot be a folder's name; values are numbers or plain words between commas"));
        }
        Ok(Series { key: key.trim().to_owned(), values })
    }
}

/// Trains the configuration that `load` makes with each value of `series` in a folder of its own in `out`, named by key and value, one
/// after another, and reports. Collective.
pub fn run(
    series: &Series,
    out: &Path,
    load: impl Fn(&[String]) -> Result<Loaded>,
    resume: bool,
    stop: StopRequest,
    transport: Arc<dyn Transport>,
) -> Result<()> {
    let Series { key, values } = series;
    let loaded: Vec<Loaded> = values.iter().map(|value| load(&[format!("{key}={value}")])).collect::<Result<_>>()?;
    series.check(&loaded)?;
    tell_unused(&loaded, &*transport);
    let configs: Vec<Config> = loaded.into_iter().map(|loaded| loaded.config).collect();
    let folders: Vec<PathBuf> = values.iter().map(|value| series.folder(out, value)).collect();
    // Whatever is refused is refused before hours of training.
    for (folder, config) in folders.iter().zip(&configs) {
        super::find(folder, resume, config, &*transport)?;
    }
    for (folder, config) in folders.iter().zip(&configs) {
        super::train(config, folder, resume, stop.clone(), transport.clone())?;
        // The engine is gone, and with it all that used this memory.
        unsafe { transport.release_shared() };
    }
    if transport.rank() == 0 {
        report(series, &configs[0], &folders)?;
    }
    Ok(())
}

fn report(series: &Series, config: &Config, folders: &[PathBuf]) -> Result<()> {
    let Some(split) = config.data.test.as_ref().map(|_| "test").or((config.data.validation > 0).then_some("validation")) else {
        return Ok(());
    };
    let classifies = config.network.output == Output::Softmax;
    let measure = |measured: &records::Measured| measured.get(if classifies { Measure::Top1Error } else { Measure::Loss });
    let show = |value: f64| if classifies { format!("{:.2} %", 100.0 * value) } else { format!("{value:.5}") };
    let (mut last, mut best) = (Vec::new(), Vec::new());
    for folder in folders {
        let lines = records::evaluations(folder)?;
        last.push(lines.iter().rev().find(|line| line.split == split).and_then(|line| measure(&line.measured)));
        best.push(
            Best::read(folder)?.and_then(|best| if split == "test" { best.test } else { Some(best.validation) }).as_ref().and_then(measure),
        );
    }
    let name = if classifies { format!("{split} error") } else { format!("{split} loss") };
    let mut rows = vec![vec![series.name().to_owned(), name]];
    let with_best = best.iter().any(Option::is_some);
    if with_best {
        rows[0].push("at the best checkpoint".to_owned());
    }
    let columns: Vec<Vec<Option<f64>>> = if with_best { vec![last, best] } else { vec![last] };
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), &show);
    for (at, value) in series.values.iter().enumerate() {
        rows.push([value.clone()].into_iter().chain(columns.iter().map(|column| cell(column[at]))).collect());
    }
    // Of other keys' values a mean says nothing.
    if series.key == SEED {
        let known: Vec<Vec<f64>> = columns.iter().map(|column| column.iter().flatten().copied().collect()).collect();
        let spreads: Vec<Option<Spread>> = known.iter().map(|values| Spread::of(values)).collect();
        let of = |value: fn(&Spread) -> Option<f64>| spreads.iter().map(move |spread| cell(spread.as_ref().and_then(value)));
        rows.push(["mean".to_owned()].into_iter().chain(of(|spread| Some(spread.mean))).collect());
        rows.push(["deviation".to_owned()].into_iter().chain(of(|spread| spread.deviation)).collect());
    }
    say(format_args!("\n{}", table(&rows, 1).trim_end()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_read_from_key_and_values() {
        let series: Series = "learning.auxiliary_units=2, 8,32".parse().unwrap();
        assert_eq!((series.name(), series.values.len()), ("auxiliary_units", 3));
        assert_eq!(series.folder(Path::new("runs"), "8"), Path::new("runs/auxiliary_units_8"));
        assert_eq!("experiment.seed=0,3".parse::<Series>(), Ok(Series::of_seeds(&[0, 3])));
        for wrong in ["learning.hybrid", "learning.hybrid=", "learning.hybrid=1,,2", "data.train=a/b,c", "data.crop=[28,28]"] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
    }
}
