//! Many photos through one treatment, in parallel, with the results in the order of the photos.
//!
//! Workers take photos in order from a counter, and one writer takes the results in the same order, so the bytes do not
//! depend on the number of threads. Workers may run ahead of the writer by a bounded number of photos. All photos together,
//! from the file that is read to the result that waits for the writer, may take a bounded number of bytes, so that large ones are
//! decoded few at a time; the photo that the writer waits for is always let through, alone it has room. Shards are synced to disk by
//! a thread of their own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex};

use anyhow::{Result, ensure};
use biodist_process::quote::excerpt;
use biodist_process::threads;
use shards::writer::{DatasetWriter, FinishedShard, ShardWriter};

use super::journal::{Journal, Unreadable};
use crate::photo::{Prepared, Treatment};
use crate::progress::Progress;

/// Photos per thread that may be finished or under way before the writer has taken the first of them.
const AHEAD: usize = 16;
/// Bytes that all photos may take together, for each thread and at least: no photo of a usual camera has to wait.
const BYTES_PER_THREAD: u64 = 128 << 20;
const BYTES: u64 = 1 << 30;

/// Where photos come from. Numbers are places in the order in which they are stored.
pub trait Photos: Sync {
    fn count(&self) -> usize;
    /// What the user knows the photo by.
    fn name(&self, number: usize) -> String;
    fn label(&self, number: usize) -> u32;
    /// Bytes of the photo's file.
    fn length(&self, number: usize) -> u64;
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
    let range = |shard: usize| shard * per_shard..((shard + 1) * per_shard).min(photos.count());
    let shards = 0..photos.count().div_ceil(per_shard);
    let mut finished = BTreeMap::new();
    for shard in shards.clone() {
        finished.extend(writer.finished(shard)?.map(|done| (shard, done)));
    }
    // A shard's number says which photos it has only where as many went into each as now, which is estimated from a few of them.
    let fits = |(shard, done): (&usize, &FinishedShard)| done.samples() + journal.of_shard(*shard) == range(*shard).len();
    if !finished.iter().all(fits) {
        log::warn!("{label}: shards of an earlier run have other numbers of photos than this one would give them; all are made again");
        finished.clear();
    }
    let wanted: Vec<Range<usize>> = shards.filter(|shard| !finished.contains_key(shard)).map(range).collect();
    journal.keep(|shard| finished.contains_key(&shard))?;
    let order: Vec<usize> = wanted.iter().cloned().flatten().collect();
    let progress = Progress::new(label, "photos", photos.count() as u64, (photos.count() - order.len()) as u64);
    let queue = Queue::new(order.len(), settings.threads);
    let result: Result<Vec<_>> = std::thread::scope(|scope| {
        let (to_finish, shards) = sync_channel::<(usize, ShardWriter)>(1);
        let start = || {
            for _ in 0..settings.threads {
                threads::spawn_in(scope, "work", || work(photos, treatment, &order, &queue))?;
            }
            threads::spawn_in(scope, "finish", move || {
                let finish = |(number, shard): (usize, ShardWriter)| Ok((number, shard.finish()?));
                shards.into_iter().map(finish).collect::<Result<Vec<_>>>()
            })
        };
        // The scope waits for those that were started.
        let finisher = start().inspect_err(|_| queue.stop())?;
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
                            excerpt(&unreadable.file),
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
        queue.put(place, prepare(photos, photo, treatment, |bytes| queue.reserve(place, bytes)));
    }
}

/// Reads and prepares one photo. `admit` is told of the bytes that the file takes, then of those that the rest takes.
pub fn prepare(photos: &dyn Photos, photo: usize, treatment: &Treatment, admit: impl Fn(u64) -> Result<()>) -> Outcome {
    // A decoder that breaks down on one photo must not end a preparation of a million, nor let the writer wait for ever.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        admit(photos.length(photo))?;
        let file = photos.read(photo)?;
        Ok(file.and_then(|file| treatment.prepare(&file, &admit).map_err(|error| format!("{error:#}"))))
    }));
    outcome.unwrap_or_else(|_| Ok(Err("the decoder broke down".to_owned())))
}

/// A prepared photo or why it cannot be used; the outer error ends the run.
pub type Outcome = Result<Result<Prepared, String>>;

/// The places that workers take and the results that wait for the writer.
struct Queue {
    count: usize,
    window: usize,
    /// That all photos may take together.
    bytes: u64,
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
    /// What each photo takes that is under way or waits.
    taken: BTreeMap<usize, u64>,
    stopped: bool,
}

impl Queue {
    fn new(count: usize, threads: usize) -> Queue {
        let bytes = (threads as u64 * BYTES_PER_THREAD).max(BYTES);
        Queue { count, window: threads * AHEAD, bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The next place to work on; `None` when there is none or the run is over.
    fn next(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.next == self.count {
                return None;
            }
            let room = state.next < state.wanted + self.window && state.taken.values().sum::<u64>() < self.bytes;
            if room || state.next == state.wanted {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Waits until `place` may take so many bytes more; fails where the run is over.
    fn reserve(&self, place: usize, bytes: u64) -> Result<()> {
        let mut state = self.lock();
        loop {
            ensure!(!state.stopped, "the preparation has ended");
            if place == state.wanted || state.taken.values().sum::<u64>() + bytes <= self.bytes {
                *state.taken.entry(place).or_default() += bytes;
                return Ok(());
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn put(&self, place: usize, outcome: Outcome) {
        let mut state = self.lock();
        state.taken.insert(place, bytes(&outcome));
        state.waiting.insert(place, outcome);
        self.changed.notify_all();
    }

    /// The result for `place`; waits for it.
    fn take(&self, place: usize) -> Outcome {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.waiting.remove(&place) {
                state.taken.remove(&place);
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

fn bytes(outcome: &Outcome) -> u64 {
    outcome.as_ref().ok().and_then(|prepared| prepared.as_ref().ok()).map_or(0, |prepared| prepared.bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shards::Description;
    use shards::format::Encoding;

    use super::*;

    /// Photos of one pixel, whose label is their number; one of them is unreadable.
    struct Pixels;

    impl Photos for Pixels {
        fn count(&self) -> usize {
            7
        }

        fn name(&self, number: usize) -> String {
            number.to_string()
        }

        fn label(&self, number: usize) -> u32 {
            number as u32
        }

        fn length(&self, _number: usize) -> u64 {
            100
        }

        fn read(&self, number: usize) -> Result<Result<Vec<u8>, String>> {
            let mut file = std::io::Cursor::new(Vec::new());
            image::RgbImage::from_pixel(1, 1, image::Rgb([number as u8; 3])).write_to(&mut file, image::ImageFormat::Png)?;
            Ok(if number == 2 { Err("torn".to_owned()) } else { Ok(file.into_inner()) })
        }
    }

    #[test]
    fn shards_that_were_divided_otherwise_are_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let treatment = Treatment { size: Some(1), square: true, encoding: Encoding::Raw, quality: 90, exif_orientation: false };
        let class_names = (0..7).map(|class| class.to_string()).collect();
        let description = Description { channels: 3, class_names, encoding: Encoding::Raw, made_by: serde_json::Value::Null };
        let made = |photos_per_shard: usize| {
            let writer = DatasetWriter::begin(folder.path(), description.clone()).unwrap();
            let mut journal = Journal::open(folder.path()).unwrap();
            let settings = Settings { threads: 1, photos_per_shard, strict: false };
            let shards = run("photos", &Pixels, &treatment, &settings, &writer, &mut journal).unwrap();
            (shards.iter().map(FinishedShard::samples).collect::<Vec<_>>(), journal.report().unwrap().len())
        };
        let modified = |shard: &str| folder.path().join(shard).metadata().unwrap().modified().unwrap();
        assert_eq!(made(3), (vec![2, 3, 1], 1));
        let before = modified("00001.shard");
        assert_eq!((made(3), modified("00001.shard")), ((vec![2, 3, 1], 1), before));
        assert_eq!(made(4), (vec![3, 3], 1));
        assert_eq!(made(2), (vec![2, 1, 2, 1], 1));
        assert_eq!(made(4), (vec![3, 3], 1));
        let writer = DatasetWriter::begin(folder.path(), description).unwrap();
        writer.finish((0..2).map(|shard| writer.finished(shard).unwrap().unwrap()).collect()).unwrap();
        assert!(!folder.path().join("00002.shard").exists() && !folder.path().join("00003.shard").exists());
        assert_eq!(shards::Dataset::open(folder.path()).unwrap().len(), 6);
    }

    #[test]
    fn photos_wait_for_memory_and_the_wanted_one_does_not() {
        let queue = Queue::new(10, 1);
        assert_eq!(queue.bytes, BYTES);
        assert_eq!((queue.next(), queue.next(), queue.next()), (Some(0), Some(1), Some(2)));
        queue.reserve(2, BYTES).unwrap();
        // The writer waits for this one, which needs more than there is at all.
        queue.reserve(0, 2 * BYTES).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.reserve(1, 1));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            queue.put(0, Ok(Err("too large".to_owned())));
            assert!(queue.take(0).unwrap().is_err());
            // Now it is the wanted one itself.
            waiting.join().unwrap().unwrap();
            let waiting = scope.spawn(|| queue.reserve(3, 1));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            queue.stop();
            assert!(waiting.join().unwrap().is_err());
        });
    }
}
