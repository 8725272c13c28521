//! A sweep's folder: whose it is, and where its trials are.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use biodist_process::files::{self, PARTIAL, read_if_there, write_atomically};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::rungs::Rungs;
use super::space::Space;
use crate::config::{Config, touches};
use crate::exit::Exit;
use crate::key::Key;
use crate::versions;

const JOB: &str = "sweep.json";
/// The key of sweep.json that holds [`Fingerprints`].
const DATA: &str = "data";
/// The key that holds the domain of each key that is searched.
const SPACE: &str = "space";
/// The key that holds how long trials are trained, and how many.
const RUNGS: &str = "rungs";
const VERSION: u32 = 1;

/// The data that trials learn and that the best of them is tested on, each by what stands for the content of its shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fingerprints {
    pub train: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
}

pub struct SweepFolder {
    path: PathBuf,
    /// Held as long as the sweep runs: two in one folder would write each other's files.
    _lock: File,
}

impl SweepFolder {
    /// Takes the folder at `path` for this job: a new one, or one where the same job has stopped.
    ///
    /// # Errors
    /// Of usage, where the folder holds another job (naming what differs) or anything else.
    pub fn open(path: &Path, config: &Config, space: &Space, seed: u64, rungs: &Rungs, data: &Fingerprints) -> Result<SweepFolder> {
        if path.exists() && !path.is_dir() {
            return Err(Exit::Usage.error(format!("--out {}: this is a file; a sweep needs a folder", path.display())));
        }
        std::fs::create_dir_all(path).with_context(|| format!("{} cannot be created", path.display()))?;
        let lock = lock(path)?;
        let job = job(config, space, seed, rungs, data);
        let file = path.join(JOB);
        if let Some(bytes) = read_if_there(&file).with_context(|| format!("{} cannot be read", file.display()))? {
            let mut there: Value = serde_json::from_slice(&bytes).map_err(|error| anyhow!("{} is damaged: {error}", file.display()))?;
            let grown = grows(&there, rungs);
            if grown {
                there[RUNGS] = job[RUNGS].clone();
            }
            refuse_another(path, &there, &job)?;
            refuse_other_data(path, &there, data)?;
            if grown || there[DATA] != job[DATA] {
                // From now on a test set that came later counts too.
                there[DATA] = job[DATA].clone();
                write(&file, &there)?;
            }
        } else {
            let entries = std::fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let own = format!("{JOB}.{PARTIAL}");
            if entries.flatten().any(|entry| entry.file_name() != own.as_str()) {
                return Err(Exit::Usage.error(format!(
                    "--out {}: the folder is not empty and holds no sweep (it would have a {JOB}); choose another",
                    path.display()
                )));
            }
            write(&file, &job)?;
        }
        Ok(SweepFolder { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's folder of a trial.
    pub fn trial(&self, trial: usize) -> PathBuf {
        self.path.join("trials").join(format!("{trial:03}"))
    }
}

fn lock(path: &Path) -> Result<File> {
    let folder = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    if files::lock(&folder) {
        return Ok(folder);
    }
    Err(Exit::Failed.error(format!("another sweep is running in {}; wait for it, or choose another --out", path.display())))
}

fn write(file: &Path, job: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(job).expect("text and numbers are JSON");
    write_atomically(file, (text + "\n").as_bytes())
}

fn job(config: &Config, space: &Space, seed: u64, rungs: &Rungs, data: &Fingerprints) -> Value {
    let domains: Map<String, Value> = space.domains.iter().map(|(key, domain)| (key.clone(), json!(domain))).collect();
    json!({
        "version": VERSION,
        "biodist": versions::CRATE,
        "commit": versions::COMMIT,
        "space_name": space.name,
        SPACE: domains,
        "seed": seed,
        RUNGS: rungs,
        DATA: data,
        "configuration": config,
    })
}

/// How many trials the search has whose sweep.json is `job`, where all are trained as long as its configuration says.
fn plain_trials(job: &Value) -> Option<usize> {
    serde_json::from_value(job[RUNGS].clone()).ok().filter(Rungs::are_plain).map(|rungs| rungs.trials())
}

/// Whether `rungs` ask for the search that is there with more trials: those before them are what they were, as no trial's values depend on
/// how many there are. With successive halving others might have gone on.
fn grows(there: &Value, rungs: &Rungs) -> bool {
    rungs.are_plain() && plain_trials(there).is_some_and(|before| before < rungs.trials())
}

/// Whether a key of sweep.json may differ from what the sweep began with: it changes no trial's result, or is no part of the job. Data may
/// be in another place, and are compared by what they hold.
fn may_change(key: &str) -> bool {
    // Which evaluation is a trial's best depends on when evaluations are.
    let free = |path: &str| !touches(path).tells_runs_apart() && !path.starts_with("training.eval_every_");
    matches!(key, "biodist" | "commit" | "space_name")
        || key.strip_prefix(DATA).is_some_and(|key| key.starts_with('.'))
        || key.strip_prefix("configuration.").is_some_and(free)
}

fn refuse_another(path: &Path, there: &Value, here: &Value) -> Result<()> {
    let (theirs, ours) = (leaves(there), leaves(here));
    let keys: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let show = |values: &BTreeMap<String, Value>, key: &str| values.get(key).map_or("absent".to_owned(), Value::to_string);
    // What the configuration says of a key that is searched, no trial is trained with.
    let searched = |key: &str| {
        let key = key.strip_prefix("configuration.");
        key.is_some_and(|key| [there, here].iter().all(|job| job[SPACE].get(key).is_some()))
    };
    // A sweep that an older program began does not know keys that came later, and had what is their default now.
    let came_later = |key: &str| {
        let default = key.strip_prefix("configuration.").and_then(Config::key).and_then(Key::default_value);
        default.is_some_and(|default| !theirs.contains_key(key) && ours.get(key) == Some(&json!(default)))
    };
    let differs = |key: &str| match (key, plain_trials(there), plain_trials(here)) {
        (RUNGS, Some(theirs), Some(ours)) => format!("--trials is {theirs} there and {ours} here, and can only be raised"),
        _ => format!("{} is {} there and {} here", key.trim_start_matches("configuration."), show(&theirs, key), show(&ours, key)),
    };
    let different: Vec<String> = keys
        .into_iter()
        .filter(|key| !may_change(key) && !searched(key) && !came_later(key) && theirs.get(*key) != ours.get(*key))
        .map(|key| differs(key))
        .collect();
    if different.is_empty() {
        return Ok(());
    }
    let more = if different.len() > 3 { format!(" and {} more", different.len() - 3) } else { String::new() };
    let list = different[..different.len().min(3)].join(", ");
    let known = there["space_name"] == here["space_name"];
    let given =
        there[SPACE].as_object().into_iter().flatten().map(|(key, _)| key).find(|key| known && here[SPACE].get(key.as_str()).is_none());
    let searched = given.map_or(String::new(), |key| format!(" (without {key}, which is searched there)"));
    Err(Exit::Usage.error(format!(
        "{} holds another sweep: {list}{more}; repeat its command line{searched} to go on with it, delete it, or choose another --out",
        path.display()
    )))
}

/// Refuses other data than the sweep in `path` began with. A sweep without a test set may be given one later, and one whose sweep.json does
/// not tell its data goes on with what it is given.
fn refuse_other_data(path: &Path, there: &Value, here: &Fingerprints) -> Result<()> {
    for (key, here) in [("train", Some(&here.train)), ("test", here.test.as_ref())] {
        let Some(there) = there[DATA][key].as_str().filter(|there| here.is_none_or(|here| here != there)) else { continue };
        let now = here.map_or("there is none".to_owned(), |here| format!("is {here}"));
        return Err(Exit::Usage.error(format!(
            "{} holds a sweep on other data, or the same prepared otherwise: the checksum of data.{key}'s shards was {there}, and now {now}; \
             give it back what it held, or choose another --out",
            path.display()
        )));
    }
    Ok(())
}

/// Every value that is no object, by its dotted path.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => {
                fields
                    .iter()
                    .for_each(|(key, value)| walk(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, into));
            }
            value => {
                into.insert(path.to_owned(), value.clone());
            }
        }
    }
    let mut into = BTreeMap::new();
    walk("", value, &mut into);
    into
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, set: &[&str], train: &str, test: Option<&str>) -> Result<SweepFolder> {
        let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist_fc_dtp_parallel.toml");
        let set: Vec<String> = set.iter().map(|assignment| assignment.to_string()).collect();
        let data = Fingerprints { train: train.to_owned(), test: test.map(str::to_owned) };
        SweepFolder::open(path, &Config::load(&written, &set)?, &Space::named("paper")?, 0, &Rungs::plain(2), &data)
    }

    fn refused(result: Result<SweepFolder>, words: &[&str]) {
        let error = result.err().expect("it is another sweep");
        assert_eq!(Exit::of(&error), Exit::Usage);
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{word} in {error}"));
    }

    #[test]
    fn a_sweep_goes_on_with_the_same_data_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        open(path, &["data.train=here"], "1234abcd", None).unwrap();
        open(path, &["data.train=there"], "1234abcd", None).unwrap();
        refused(open(path, &[], "00000000", None), &["data.train's shards was 1234abcd, and now is 00000000", "--out"]);
        // A test set that is added stays.
        open(path, &[], "1234abcd", Some("55555555")).unwrap();
        open(path, &[], "1234abcd", Some("55555555")).unwrap();
        refused(open(path, &[], "1234abcd", Some("66666666")), &["data.test's shards was 55555555, and now is 66666666"]);
        refused(open(path, &[], "1234abcd", None), &["data.test's shards was 55555555, and now there is none"]);
    }

    #[test]
    fn a_sweep_that_does_not_tell_its_data_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), &[], "1234abcd", None).unwrap();
        let file = folder.path().join(JOB);
        let mut job: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        job.as_object_mut().unwrap().shift_remove(DATA).unwrap();
        std::fs::write(&file, job.to_string()).unwrap();
        open(folder.path(), &[], "1234abcd", None).unwrap();
        refused(open(folder.path(), &[], "00000000", None), &["1234abcd"]);
    }

    #[test]
    fn what_rounds_results_may_not_change() {
        let folder = tempfile::tempdir().unwrap();
        let open = |set: &[&str]| open(folder.path(), set, "1234abcd", None);
        open(&[]).unwrap();
        open(&["parallel.device=cpu", "parallel.threads_per_rank=3", "parallel.kernels=portable", "training.log_every_steps=7"]).unwrap();
        refused(open(&["parallel.precision=bf16"]), &["another sweep", "parallel.precision is \"f32\" there and \"bf16\" here"]);
        refused(open(&["parallel.wire=bf16"]), &["parallel.wire"]);
        refused(open(&["learning.hybrid=0.5"]), &["learning.hybrid"]);
        // It is searched, so no trial is trained with what the configuration says.
        open(&["learning.alpha=0.5"]).unwrap();
    }
}
