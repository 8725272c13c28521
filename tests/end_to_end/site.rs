//! A place to train in: data, a configuration, and the program.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;
use shards::format::Encoding;
use shards::{DatasetWriter, Description, PixelSums};
use tempfile::TempDir;

/// Longer than any job here takes, on a machine busy with others.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Jobs of several ranks wait for each other at every step: two at a time on few cores would mostly wait.
static JOBS: Mutex<()> = Mutex::new(());

/// CPUs of one job. Where there are many, as many tests run at a time, and jobs that took all of them would mostly wait for each other.
const CPUS_OF_A_JOB: usize = 4;

/// CPUs that masks are made of, in words of 64.
const WORDS: usize = 16;

/// A folder of files that are in memory alone.
const MEMORY: &str = "/dev/shm";
/// Bytes free there for it to be used; a test that trains a shipped configuration needs a fifth of it.
const ROOM: u64 = 4 << 30;

/// Variables by which Slurm and MPI launchers tell a process what it is part of. Those that begin with [`SETTING`] are settings.
const OF_JOBS: [&str; 3] = ["SLURM_", "PMIX_", "PMI_"];
const SETTING: &str = "PMIX_MCA_";

/// A folder with data sets `train` (200 images of 6 x 6 x 1) and `test` (53), ten classes.
pub struct Site {
    folder: TempDir,
}

/// How a job ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The job was refused with one message of its own, which has all these words.
pub fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    let said: Vec<&str> = outcome.stderr.lines().filter_map(|line| line.strip_prefix("biodist: ")).collect();
    let said: Vec<&str> = said.into_iter().filter(|said| !said.starts_with("warn: ")).collect();
    assert_eq!(said.len(), 1, "{outcome:?}");
    words.iter().for_each(|word| assert!(said[0].contains(word), "{word:?} in {outcome:?}"));
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
}

impl Site {
    /// In memory where that has room: every checkpoint is made sure of on its disk, which short runs would mostly wait for.
    pub fn new() -> Site {
        Site::at(if memory_has_room() { PathBuf::from(MEMORY) } else { std::env::temp_dir() })
    }

    /// For ranks that see another memory than this process.
    pub fn on_disk() -> Site {
        Site::at(std::env::temp_dir())
    }

    fn at(place: PathBuf) -> Site {
        let site = Site { folder: tempfile::tempdir_in(place).unwrap() };
        write_images(&site.path("train"), 200, 10);
        write_images(&site.path("test"), 53, 10);
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a configuration of `rule`; `more` is TOML that goes last.
    pub fn configure(&self, name: &str, learning: &str, more: &str) -> String {
        let text = format!(
            "[data]\ntrain = \"train\"\ntest = \"test\"\nvalidation = 20\nbatch_size = 16\n\
             [[network.layers]]\nkind = \"dense\"\nunits = 24\n[[network.layers]]\nkind = \"dense\"\nunits = 20\n\
             [learning]\n{learning}\n[optimizer.forward]\nlearning_rate = 0.001\n{more}\n"
        );
        let file = format!("{name}.toml");
        std::fs::write(self.path(&file), text).unwrap();
        file
    }

    /// The command line of a job of `ranks` ranks; one rank is a process alone.
    pub fn command(&self, ranks: usize, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_biodist")), ranks, arguments)
    }

    /// The same for another program.
    pub fn command_of(&self, program: &Path, ranks: usize, arguments: &[&str]) -> Command {
        let mut command = if ranks == 1 {
            Command::new(program)
        } else {
            let mut mpirun = Command::new("mpirun");
            mpirun.args(["--oversubscribe", "-n", &ranks.to_string()]).arg(program);
            mpirun
        };
        command.args(arguments).current_dir(self.folder.path());
        prepare(&mut command);
        allow_mpirun(&mut command);
        command
    }

    /// Runs one job whose ranks have command lines of their own.
    pub fn run_each(&self, ranks: &[&[&str]]) -> Outcome {
        let mut command = Command::new("mpirun");
        command.arg("--oversubscribe");
        for (rank, arguments) in ranks.iter().enumerate() {
            command.args(if rank > 0 { &[":", "-n", "1"][..] } else { &["-n", "1"] });
            command.arg(env!("CARGO_BIN_EXE_biodist")).args(*arguments);
        }
        command.current_dir(self.folder.path());
        prepare(&mut command);
        allow_mpirun(&mut command);
        Job::start(command, turn(ranks.len())).wait()
    }

    pub fn start(&self, ranks: usize, arguments: &[&str]) -> Job {
        Job::start(self.command(ranks, arguments), turn(ranks))
    }

    pub fn run(&self, ranks: usize, arguments: &[&str]) -> Outcome {
        self.start(ranks, arguments).wait()
    }

    pub fn run_of(&self, program: &Path, ranks: usize, arguments: &[&str]) -> Outcome {
        Job::start(self.command_of(program, ranks, arguments), turn(ranks)).wait()
    }

    /// Runs a job that must end well.
    pub fn succeed(&self, ranks: usize, arguments: &[&str]) -> Outcome {
        let outcome = self.run(ranks, arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?} on {ranks} ranks: {outcome:?}");
        outcome
    }

    /// Every file of every checkpoint of `run`, by its path.
    pub fn checkpoints(&self, run: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let folder = self.path(run).join("checkpoints");
        let mut files = BTreeMap::new();
        for checkpoint in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            for file in std::fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path()) {
                files.insert(file.strip_prefix(&folder).unwrap().to_owned(), std::fs::read(&file).unwrap());
            }
        }
        files
    }

    pub fn checkpoint_names(&self, run: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(run).join("checkpoints")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The lines of `run`'s metrics, without what depends on the clock.
    pub fn metrics(&self, run: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let mut before = 0.0;
        let parse = |line: &str| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            let fields = value.as_object_mut().unwrap();
            assert!(fields.shift_remove("samples_per_second").unwrap().as_f64().unwrap() > 0.0);
            fields.shift_remove("seconds");
            let time = fields.shift_remove("time").unwrap().as_f64().unwrap();
            assert!(time >= std::mem::replace(&mut before, time), "time goes on, over resumes too: {line}");
            value
        };
        text.lines().map(parse).collect()
    }

    /// Whether two runs have the same bits in every checkpoint and every measure.
    pub fn assert_same(&self, run: &str, other: &str) {
        assert_eq!(self.metrics(run), self.metrics(other), "{run} and {other}");
        let (ours, theirs) = (self.checkpoints(run), self.checkpoints(other));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{run} and {other}");
        for (file, bytes) in &ours {
            assert!(*bytes == theirs[file], "{} differs between {run} and {other}", file.display());
        }
    }
}

/// Whether all tests that run at a time find room in memory, and may execute what they put there.
fn memory_has_room() -> bool {
    let path = std::ffi::CString::new(MEMORY).unwrap();
    // SAFETY: zeros are a value of it, and the path ends with one.
    let (result, about) = unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut about), about)
    };
    result == 0 && about.f_flag & libc::ST_NOEXEC == 0 && about.f_bavail.saturating_mul(about.f_frsize) >= ROOM
}

/// Makes `command` a job like any other here: on its share of the CPUs, with its output in pipes, and alone with its environment.
pub fn prepare(command: &mut Command) {
    leave_job(command);
    bind(command);
    heed_signals(command);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Keeps `command` from taking itself, or its mpirun, for a part of the job that these tests may run in.
pub fn leave_job(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let of_job = |name: &str| !name.starts_with(SETTING) && OF_JOBS.iter().any(|prefix| name.starts_with(prefix));
        if name.to_str().is_some_and(of_job) {
            command.env_remove(name);
        }
    }
}

/// Has `command` listen to all requests to stop, also where these tests were started to ignore some.
fn heed_signals(command: &mut Command) {
    let prepare = || {
        [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1].iter().for_each(|signal| unsafe {
            libc::signal(*signal, libc::SIG_DFL);
        });
        Ok(())
    };
    unsafe { command.pre_exec(prepare) };
}

/// Gives `command` what mpirun needs, whoever runs the tests.
pub fn allow_mpirun(command: &mut Command) {
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    // Open MPI 4 crashes now and then where it shares its topology in memory; see launcher/src/mpirun.rs.
    command.env("OMPI_MCA_rtc_hwloc_vmhole", "none");
}

/// Binds what `command` starts to a few of the CPUs that this process may use, each time to the next of them.
fn bind(command: &mut Command) {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let mut mask = [0u64; WORDS];
    if unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) } != 0 {
        return;
    }
    let cpus: Vec<usize> = (0..64 * WORDS).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect();
    if cpus.len() <= CPUS_OF_A_JOB {
        return;
    }
    let first = TAKEN.fetch_add(CPUS_OF_A_JOB, Ordering::Relaxed);
    let mut own = [0u64; WORDS];
    for cpu in (first..first + CPUS_OF_A_JOB).map(|place| cpus[place % cpus.len()]) {
        own[cpu / 64] |= 1 << (cpu % 64);
    }
    // Runs between fork and exec, where nothing may be allocated. Refused where a sandbox forbids it: the job then has all of them.
    let prepare = move || {
        unsafe { libc::sched_setaffinity(0, size_of_val(&own), own.as_ptr().cast()) };
        Ok(())
    };
    unsafe { command.pre_exec(prepare) };
}

/// A turn among the jobs of several ranks.
pub fn turn(ranks: usize) -> Option<MutexGuard<'static, ()>> {
    (ranks > 1).then(|| JOBS.lock().unwrap_or_else(|error| error.into_inner()))
}

/// A job that is running; killed when it is dropped.
pub struct Job {
    child: Child,
    out: Option<[std::thread::JoinHandle<String>; 2]>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Job {
    pub fn start(mut command: Command, turn: Option<MutexGuard<'static, ()>>) -> Job {
        let mut child = command.spawn().unwrap();
        // Read all along: a full pipe would stop the job.
        let reader = |mut pipe: Box<dyn std::io::Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let out = [reader(Box::new(child.stdout.take().unwrap())), reader(Box::new(child.stderr.take().unwrap()))];
        Job { child, out: Some(out), _turn: turn }
    }

    pub fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// The processes that mpirun has started, in the order of ranks.
    pub fn ranks(&self) -> Vec<i32> {
        let children = children(self.id()).into_iter();
        let mut ranks: Vec<(usize, i32)> = children.filter_map(|child| Some((rank_of(child)?, child))).collect();
        ranks.sort_unstable();
        ranks.into_iter().map(|(_, process)| process).collect()
    }

    /// Whether the process that was started has not ended.
    pub fn runs(&self) -> bool {
        // What nobody has waited for yet is there still, but not the program that it ran.
        std::fs::exists(format!("/proc/{}/exe", self.id())).unwrap_or(false)
    }

    /// Sends `signal` to the process that was started.
    pub fn signal(&self, signal: i32) {
        assert_eq!(unsafe { libc::kill(self.id(), signal) }, 0);
    }

    pub fn wait(mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the job does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let [stdout, stderr] = self.out.take().unwrap().map(|reader| reader.join().unwrap());
        Outcome { code: status.code(), stdout, stderr }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The children of a process's main thread.
pub fn children(process: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// The rank of a process, as mpirun told it.
fn rank_of(process: i32) -> Option<usize> {
    let environment = std::fs::read(format!("/proc/{process}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    variables.find_map(|variable| variable.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse().ok())
}

/// Whether the process is there, even as a zombie that nobody has waited for.
pub fn exists(process: i32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

/// Waits until `done`.
pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Number of lines that the file has so far.
pub fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Images of 6 x 6 x 1 with a pattern that depends on the label, and noise.
pub fn write_images(folder: &Path, samples: usize, classes: usize) {
    write_samples(folder, [6, 6, 1], classes, &images(samples, classes));
}

/// Labels and pixels of what [`write_images`] writes.
pub fn images(samples: usize, classes: usize) -> Vec<(usize, Vec<u8>)> {
    let mut state = samples as u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let images = (0..samples).map(|_| {
        let label = random() % classes;
        let pixels = (0..36).map(|at| (random() % 100 + if at / 6 == label % 6 { 100 + 5 * label } else { 0 }) as u8).collect();
        (label, pixels)
    });
    images.collect()
}

/// Writes a data set of these labels and pixels, [height, width, channels] each.
pub fn write_samples(folder: &Path, [height, width, channels]: [usize; 3], classes: usize, samples: &[(usize, Vec<u8>)]) {
    let class_names = (0..classes).map(|class| class.to_string()).collect();
    let description = Description { channels, class_names, encoding: Encoding::Raw, made_by: "a test".into() };
    let writer = DatasetWriter::begin(folder, description).unwrap();
    let mut shard = writer.shard(0).unwrap();
    for (label, pixels) in samples {
        shard.add(pixels, (height as u32, width as u32), *label as u32, &PixelSums::of(pixels, channels)).unwrap();
    }
    writer.finish(vec![shard.finish().unwrap()]).unwrap();
}
