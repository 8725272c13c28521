//! Many photos through one treatment, in parallel, with the results in the order of the photos.
//!
//! Workers take photos in order from a counter, and one writer takes the results in the same order, so the bytes do not
//! depend on the number of threads. A worker may run ahead of the writer by a bounded number of photos and bytes; the photo
//! that the writer waits for is always let through. Shards are synced to disk by a thread of their own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex};

use anyhow::Result;

use super::journal::{Journal, Unreadable};
use crate::photo::{Prepared, Treatment};
use crate::progress::Progress;
use crate::writer::{DatasetWriter, FinishedShard, ShardWriter};

/// Photos per thread that may be finished or under way before the writer has taken the first of them.
const AHEAD: usize = 16;
/// Bytes of finished photos that may wait for the writer.
const WAITING_BYTES: usize = 256 << 20;

/// Where photos come from. Numbers are places in the order in which they are stored.
pub trait Photos: Sync {
    fn count(&self) -> usize;
    /// What the user knows the photo by.
    fn name(&self, number: usize) -> String;
    fn label(&self, number: usize) -> u32;
    /// The photo's file, or why this one cannot be read. The outer error, which ends the preparation, is for what is wrong
    /// with all of them.
    fn read(&self, number: usize) -> Result<Result<Vec<u8>, String>>;
    /// The photo will be read soon.
    fn prefetch(&self, _number: usize) {}
}

/// What a run does besides the treatment.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub threads: usize,
    pub photos_per_shard: usize,
    /// Fail at the first photo that cannot be decoded, instead of leaving it out.
    pub strict: bool,
}

/// Prepares all photos into the writer's shards, those of an interrupted run excepted. Returns the shards in order.
pub fn run(
    label: &str,
    photos: &dyn Photos,
    treatment: &Treatment,
    settings: &Settings,
    writer: &DatasetWriter,
    journal: &mut Journal,
) -> Result<Vec<FinishedShard>> {
    let per_shard = settings.photos_per_shard;
    let mut finished = BTreeMap::new();
    let mut wanted: Vec<Range<usize>> = Vec::new();
    for shard in 0..photos.count().div_ceil(per_shard) {
        match writer.finished(shard)? {
            Some(done) => drop(finished.insert(shard, done)),
            None => wanted.push(shard * per_shard..((shard + 1) * per_shard).min(photos.count())),
        }
    }
    journal.keep(|shard| finished.contains_key(&shard))?;
    let order: Vec<usize> = wanted.iter().cloned().flatten().collect();
    let progress = Progress::new(label, "photos", photos.count() as u64, (photos.count() - order.len()) as u64);
    let queue = Queue::new(order.len(), settings.threads * AHEAD);
    let result: Result<Vec<_>> = std::thread::scope(|scope| {
        for _ in 0..settings.threads {
            scope.spawn(|| work(photos, treatment, &order, &queue));
        }
        let (to_finish, shards) = sync_channel::<(usize, ShardWriter)>(1);
        let finisher = scope.spawn(move || {
            let finish = |(number, shard): (usize, ShardWriter)| Ok((number, shard.finish()?));
            shards.into_iter().map(finish).collect::<Result<Vec<_>>>()
        });
        let written = write(photos, settings, &wanted, &queue, writer, journal, &progress, |number, shard| {
            // The finisher ends early only with an error, which is reported below.
            to_finish.send((number, shard)).is_ok()
        });
        drop(to_finish);
        queue.stop();
        let synced = finisher.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that completes shards broke down")));
        // Where both failed, the sync failed first and stopped the writing.
        let synced = synced?;
        written?;
        Ok(synced)
    });
    progress.finish();
    finished.extend(result?);
    Ok(finished.into_values().collect())
}

#[allow(clippy::too_many_arguments)]
fn write(
    photos: &dyn Photos,
    settings: &Settings,
    wanted: &[Range<usize>],
    queue: &Queue,
    writer: &DatasetWriter,
    journal: &mut Journal,
    progress: &Progress,
    mut finish: impl FnMut(usize, ShardWriter) -> bool,
) -> Result<()> {
    let mut place = 0;
    for range in wanted {
        let number = range.start / settings.photos_per_shard;
        let mut shard = writer.shard(number)?;
        for photo in range.clone() {
            match queue.take(place)? {
                Ok(prepared) => shard.add(&prepared.bytes, prepared.frame, photos.label(photo), &prepared.sums)?,
                Err(reason) => {
                    let unreadable = Unreadable { shard: number, file: photos.name(photo), reason };
                    if settings.strict {
                        anyhow::bail!(
                            "{} cannot be used: {}; without --strict such files are left out and listed",
                            unreadable.file,
                            unreadable.reason
                        );
                    }
                    journal.add(unreadable)?;
                }
            }
            place += 1;
            progress.add(1);
        }
        journal.sync()?;
        if !finish(number, shard) {
            return Ok(());
        }
    }
    Ok(())
}

fn work(photos: &dyn Photos, treatment: &Treatment, order: &[usize], queue: &Queue) {
    while let Some(place) = queue.next() {
        if let Some(&later) = order.get(place + queue.window) {
            photos.prefetch(later);
        }
        let photo = order[place];
        // A decoder that breaks down on one photo must not end a preparation of a million, nor let the writer wait for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let file = photos.read(photo)?;
            Ok(file.and_then(|file| treatment.prepare(&file).map_err(|error| format!("{error:#}"))))
        }));
        let outcome = outcome.unwrap_or_else(|_| Ok(Err("the decoder broke down".to_owned())));
        queue.put(place, outcome);
    }
}

/// A prepared photo or why it cannot be used; the outer error ends the run.
type Outcome = Result<Result<Prepared, String>>;

/// The places that workers take and the results that wait for the writer.
struct Queue {
    count: usize,
    window: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Place that the next worker takes.
    next: usize,
    /// Place that the writer takes next.
    wanted: usize,
    waiting: BTreeMap<usize, Outcome>,
    waiting_bytes: usize,
    stopped: bool,
}

impl Queue {
    fn new(count: usize, window: usize) -> Queue {
        Queue { count, window, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The next place to work on; `None` when there is none or the run is over.
    fn next(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.next == self.count {
                return None;
            }
            let room = state.next < state.wanted + self.window && state.waiting_bytes < WAITING_BYTES;
            if room || state.next == state.wanted {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn put(&self, place: usize, outcome: Outcome) {
        let mut state = self.lock();
        state.waiting_bytes += bytes(&outcome);
        state.waiting.insert(place, outcome);
        self.changed.notify_all();
    }

    /// The result for `place`; waits for it.
    fn take(&self, place: usize) -> Outcome {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.waiting.remove(&place) {
                state.waiting_bytes -= bytes(&outcome);
                state.wanted = place + 1;
                self.changed.notify_all();
                return outcome;
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Lets the workers end.
    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn bytes(outcome: &Outcome) -> usize {
    outcome.as_ref().ok().and_then(|prepared| prepared.as_ref().ok()).map_or(0, |prepared| prepared.bytes.len())
}
