//! Runs for tests, read from folders as training leaves them.

use std::path::Path;

use super::run::Run;
use crate::config::Config;
use crate::training::{CONFIG, RUN, records};

/// Steps of an epoch.
const EPOCH: u64 = 10;

/// A run of a configuration that comes with the project, of which `set` changes keys. Its data are nowhere, unless `set` says where.
pub fn run(name: &str, set: &[&str], metrics: &str) -> Run {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{name}.toml"));
    let mut overrides = vec!["data.train=\"/nowhere/mnist/train\"".to_owned()];
    overrides.extend(set.iter().map(|assignment| assignment.to_string()));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(CONFIG), Config::load(&shipped, &overrides).unwrap().to_toml()).unwrap();
    std::fs::write(folder.path().join(RUN), format!("{{\"steps_per_epoch\":{EPOCH}}}")).unwrap();
    std::fs::write(folder.path().join(records::FILE_NAME), metrics).unwrap();
    Run::read(folder.path()).unwrap()
}

/// A line of metrics.
pub fn line(split: &str, step: u64, error: Option<f64>, loss: f64) -> String {
    let error = error.map_or(String::new(), |error| format!(",\"top1_error\":{error}"));
    format!("{{\"split\":\"{split}\",\"step\":{step},\"epoch\":{},\"loss\":{loss}{error}}}\n", step.div_ceil(EPOCH))
}
