//! Checkpoints: whole, or not there.
//!
//! A checkpoint is written and synced in a folder of its own, which takes its name only then. `state.json` holds a fingerprint of each file
//! beside it and of itself, so that damage is found before anything is trained on it. Its files depend on nothing but the configuration
//! and the step: not on the ranks, nor on interruptions.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use biodist_process::files::{sync_folder, write_atomically};

use super::state::State;
use super::tensor_file::{self, Entry, TensorFile};
use crate::compute::{Buffer, Part};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::learner::Engine;
use crate::network::{MapId, Maps};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// Folder of the checkpoints, in the run's.
pub const FOLDER: &str = "checkpoints";
/// Where a checkpoint is while it is being written, in the run's folder.
const UNFINISHED: &str = "checkpoint.partial";
/// What checkpoints on their way out are called, before their step: they must not look like whole ones.
const REMOVED: &str = "removed-";

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    run: PathBuf,
}

impl Checkpoints {
    pub fn of(run: &Path) -> Checkpoints {
        Checkpoints { run: run.to_owned() }
    }

    /// The run's folder.
    pub fn run(&self) -> &Path {
        &self.run
    }

    pub fn folder(&self, step: u64) -> PathBuf {
        self.run.join(FOLDER).join(format!("{step:08}"))
    }

    /// Steps of the checkpoints that there are, ascending.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let folder = self.run.join(FOLDER);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("{} cannot be read", folder.display()))?,
        };
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("{} cannot be read", folder.display()))?.file_name();
            if let Some(step) = name.to_str().and_then(|name| name.parse().ok())
                && self.folder(step).file_name() == Some(&name)
            {
                steps.push(step);
            }
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest checkpoint that is whole; damaged ones are named and passed over. One that cannot be read may be whole.
    pub fn newest(&self) -> Result<Option<State>> {
        let steps = self.steps()?;
        for step in steps.iter().rev() {
            match self.verified(*step) {
                Ok(state) => return Ok(Some(state)),
                Err(error) if is_damage(&error) => log::warn!("checkpoint {step} is passed over: {error:#}"),
                Err(error) => {
                    let folder = self.folder(*step);
                    return Err(error.context(format!(
                        "checkpoint {step} may be whole; make it readable, or move {} away to use the one before",
                        folder.display()
                    )));
                }
            }
        }
        ensure!(steps.is_empty(), "{} has no checkpoint that is whole", self.run.display());
        Ok(None)
    }

    /// The state of the checkpoint at `step`, all of whose files are as they were written.
    pub fn verified(&self, step: u64) -> Result<State> {
        let folder = self.folder(step);
        // Where it cannot be looked at, reading it says why.
        if !folder.try_exists().unwrap_or(true) {
            let steps: Vec<String> = self.steps()?.iter().map(u64::to_string).collect();
            let there = if steps.is_empty() { "none".to_owned() } else { steps.join(", ") };
            return Err(Exit::Usage.error(format!("{} has no checkpoint of step {step}; there are: {there}", self.run.display())));
        }
        let state = State::read(&folder.join(STATE))?;
        for file in [MODEL, OPTIMIZER] {
            let fingerprint = state.files.get(file).with_context(|| format!("{} says nothing of {file}", folder.join(STATE).display()))?;
            tensor_file::verify(&folder.join(file), fingerprint)?;
        }
        Ok(state)
    }

    /// The newest state that can be read, its tensors unseen: how far a run has come, which may be running now.
    pub fn newest_state(&self) -> Result<Option<State>> {
        Ok(self.steps()?.into_iter().rev().find_map(|step| State::read(&self.folder(step).join(STATE)).ok()))
    }

    /// Writes the checkpoint of `state` (whose `files` are filled in here). On rank 0, after [`Engine::gather`].
    pub fn write(&self, engine: &Engine, state: &State) -> Result<()> {
        let result = self.write_whole(engine, state.clone());
        if result.is_err() {
            // What is left of a checkpoint is of no use, and takes space that something else may need.
            let _ = self.remove_unfinished();
        }
        result.with_context(|| {
            let then = match self.steps().as_deref() {
                Ok([]) => "--resume begins the run anew",
                _ => "those before it are whole, and --resume goes on from there",
            };
            format!("checkpoint {} cannot be written; {then}", state.step)
        })
    }

    fn write_whole(&self, engine: &Engine, mut state: State) -> Result<()> {
        self.remove_unfinished()?;
        let unfinished = self.run.join(UNFINISHED);
        create_folder(&unfinished)?;
        let model = model_tensors(engine.maps());
        let optimizer = optimizer_tensors(engine);
        for (file, tensors) in [(MODEL, &model), (OPTIMIZER, &optimizer)] {
            let entries: Vec<Entry> = tensors.iter().map(|tensor| tensor.entry.clone()).collect();
            // A run that goes on from what is not finite would end at its first step.
            let mut not_finite = None;
            let read = |index: usize| {
                let values = engine.read(tensors[index].map, tensors[index].part, tensors[index].buffer);
                if values.iter().any(|value| !value.is_finite()) {
                    not_finite.get_or_insert(index);
                }
                values
            };
            state.files.insert(file.to_owned(), tensor_file::write(&unfinished.join(file), &entries, read)?);
            if let Some(index) = not_finite {
                return Err(Exit::NotFinite.error(format!("{} holds values that are not finite", entries[index].name)));
            }
        }
        write_atomically(&unfinished.join(STATE), &state.bytes())?;

        let folder = self.folder(state.step);
        create_folder(folder.parent().expect("a checkpoint has a parent"))?;
        if folder.exists() {
            // A damaged one: resuming came from before it.
            remove(&folder)?;
        }
        std::fs::rename(&unfinished, &folder).with_context(|| format!("{} cannot be put in place", folder.display()))?;
        sync_folder(&folder)
    }

    /// Removes what a killed process left half written or half removed.
    pub fn remove_unfinished(&self) -> Result<()> {
        let _ = self.remove_left_over();
        remove(&self.run.join(UNFINISHED))
    }

    /// Removes all but the newest `keep` checkpoints, that of step 0, and those of steps `kept`. What cannot be removed, for instance
    /// because somebody reads it over NFS, stays until the next time: some files too many are no reason to end a run.
    pub fn prune(&self, keep: usize, kept: &[u64]) {
        self.remove_steps(|mut steps| {
            steps.retain(|step| *step > 0);
            steps.truncate(steps.len().saturating_sub(keep));
            steps.retain(|step| !kept.contains(step));
            steps
        });
    }

    /// Removes all of them, where there is a run at all. What cannot be removed stays.
    pub fn remove_all(&self) {
        if self.run.exists() {
            self.remove_steps(|steps| steps);
        }
    }

    /// Removes those of the steps that there are which `unwanted` picks.
    fn remove_steps(&self, unwanted: impl Fn(Vec<u64>) -> Vec<u64>) {
        let set_aside = || {
            unwanted(self.steps()?).into_iter().try_for_each(|step| {
                let folder = self.folder(step);
                std::fs::rename(&folder, self.run.join(format!("{REMOVED}{step:08}")))
                    .with_context(|| format!("{} cannot be removed", folder.display()))
            })
        };
        if let Err(error) = set_aside().and(self.remove_left_over()) {
            log::warn!("an old checkpoint stays for now: {error:#}");
        }
    }

    fn remove_left_over(&self) -> Result<()> {
        let entries = std::fs::read_dir(&self.run).with_context(|| format!("{} cannot be read", self.run.display()))?;
        let left_over = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(REMOVED.as_bytes()));
        left_over.map(|entry| remove(&entry.path())).fold(Ok(()), Result::and)
    }

    /// Sets checkpoints beyond `step` aside: they are damaged, or the run would not go on from an earlier one.
    pub fn set_aside_beyond(&self, step: u64) -> Result<()> {
        for later in self.steps()?.into_iter().filter(|later| *later > step) {
            let (folder, aside) = (self.folder(later), self.run.join(format!("damaged-{later:08}")));
            remove(&aside)?;
            std::fs::rename(&folder, &aside).with_context(|| format!("{} cannot be moved", folder.display()))?;
            log::warn!("the damaged checkpoint {later} is now {}", aside.display());
        }
        Ok(())
    }

    /// Reads the parameters of the checkpoint at `step` into the engines of all ranks. Collective; the files need to be on rank 0 alone.
    pub fn load_model(&self, step: u64, engine: &mut Engine, transport: &dyn Transport) -> Result<()> {
        let tensors = model_tensors(engine.maps());
        load(&self.folder(step).join(MODEL), &tensors, engine, transport)
    }

    /// The same for moments and step counts.
    pub fn load_optimizer(&self, state: &State, engine: &mut Engine, transport: &dyn Transport) -> Result<()> {
        let tensors = optimizer_tensors(engine);
        load(&self.folder(state.step).join(OPTIMIZER), &tensors, engine, transport)?;
        engine.set_steps(state.optimizer_steps);
        Ok(())
    }
}

/// Whether a file is not what was written, by `error`: it has gone, is no file, or holds something else. Any other failure to read says
/// nothing of what it holds.
fn is_damage(error: &anyhow::Error) -> bool {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    failure.is_none_or(|failure| matches!(failure.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput))
}

/// In a folder that is there: a run's that was removed is not made anew.
pub(super) fn create_folder(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !path.is_dir() => {
            Err(error).with_context(|| format!("{} cannot be created", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("{} cannot be removed", path.display())),
        _ => Ok(()),
    }
}

/// A tensor of a checkpoint and where it is in the engine.
pub(super) struct Tensor {
    pub(super) entry: Entry,
    map: MapId,
    part: Part,
    buffer: Buffer,
}

pub(super) fn model_tensors(maps: &Maps) -> Vec<Tensor> {
    tensors(maps, Buffer::Weights, "", |_| true)
}

fn optimizer_tensors(engine: &Engine) -> Vec<Tensor> {
    let of = |buffer: Buffer, prefix| {
        let kept = |map: &crate::network::Map| map.trained() && engine.optimizer().group(map.role).moments().contains(&buffer);
        tensors(engine.maps(), buffer, prefix, kept)
    };
    let mut all = of(Buffer::FirstMoment, "first_moment.");
    all.extend(of(Buffer::SecondMoment, "second_moment."));
    all
}

fn tensors(maps: &Maps, buffer: Buffer, prefix: &str, wanted: impl Fn(&crate::network::Map) -> bool) -> Vec<Tensor> {
    let mut all = Vec::new();
    for (index, map) in maps.all.iter().enumerate().filter(|(_, map)| wanted(map)) {
        for (part, name, shape) in map.tensors() {
            let entry = Entry { name: format!("{prefix}{name}"), shape: shape.to_vec() };
            all.push(Tensor { entry, map: MapId(index), part, buffer });
        }
    }
    all
}

/// Elements that travel at a time.
const PIECE: usize = 1 << 22;

/// Reads `tensors`, all that the file at `path` holds, into the engines of all ranks. Collective; the file needs to be on rank 0 alone.
pub(super) fn load(path: &Path, tensors: &[Tensor], engine: &mut Engine, transport: &dyn Transport) -> Result<()> {
    let entries: Vec<Entry> = tensors.iter().map(|tensor| tensor.entry.clone()).collect();
    let mut file = if transport.rank() == 0 { Some(TensorFile::open(path, &entries)?) } else { None };
    // Where all ranks see one copy, only rank 0 needs the values.
    let alone = transport.size() == 1 || engine.shares_parameters() && transport.local().1 == transport.size();
    for tensor in tensors {
        let mut values = match &mut file {
            Some(file) => finite(file.read(&tensor.entry)?, &tensor.entry, path)?,
            None if alone => Vec::new(),
            None => vec![0.0; tensor.entry.shape.iter().product()],
        };
        if !alone {
            for piece in values.chunks_mut(PIECE) {
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(piece);
                let mut message = bytes.to_vec();
                transport.broadcast(&mut message);
                bytes.copy_from_slice(&message);
            }
        }
        engine.write(tensor.map, tensor.part, tensor.buffer, &values)?;
    }
    transport.barrier();
    Ok(())
}

/// Nothing that is computed with other values means anything.
fn finite(values: Vec<f32>, entry: &Entry, path: &Path) -> Result<Vec<f32>> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Exit::NotFinite.error(format!(
            "{} of {} holds {value}, so the checkpoint is of no use; those before it may be (eval --checkpoint STEP)",
            entry.name,
            path.display()
        ))),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checkpoints_count_and_step_0_stays() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(run.path());
        assert!(checkpoints.steps().unwrap().is_empty());
        for name in ["00000000", "00000005", "00000010", "00000020", "00000030", "123456789", "7", "00000040.tmp", "notes"] {
            std::fs::create_dir_all(run.path().join("checkpoints").join(name)).unwrap();
        }
        assert_eq!(checkpoints.steps().unwrap(), [0, 5, 10, 20, 30, 123_456_789]);
        checkpoints.prune(2, &[10]);
        assert_eq!(checkpoints.steps().unwrap(), [0, 10, 30, 123_456_789]);
        // What cannot be removed, here because it is no folder, costs nothing but room.
        std::fs::write(run.path().join("removed-00000005"), "").unwrap();
        checkpoints.prune(2, &[]);
        assert_eq!(checkpoints.steps().unwrap(), [0, 30, 123_456_789]);
        assert!(!run.path().join("removed-00000010").exists());
        checkpoints.set_aside_beyond(30).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [0, 30]);
        assert!(run.path().join("damaged-123456789").exists());
        let error = checkpoints.verified(5).unwrap_err().to_string();
        assert!(error.contains("no checkpoint of step 5; there are: 0, 30"), "{error}");
        checkpoints.remove_all();
        assert!(checkpoints.steps().unwrap().is_empty() && !run.path().join("removed-00000030").exists());
    }
}
