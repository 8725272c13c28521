//! A folder to launch from, with a shell script that stands in for biodist and one that stands in for ssh.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `$FAIL` is evaluated after each step of a first start; a resumed one goes on from the step in the file. Once it can be asked for a
/// checkpoint there is the file `ready-RANK`. After one it waits a little, since the first rank to end ends the others.
pub const STAND_IN: &str = r#"#!/bin/sh
case " $* " in *" --print-batch-size "*) echo 12; exit 0;; *" --help "*) exit 0;; esac
rank=$OMPI_COMM_WORLD_RANK
trap 'echo "checkpoint of rank $rank"; sleep 0.5; exit 75' USR1
touch "ready-$rank"
step=0
case " $* " in *" --resume "*) step=$(cat step); FAIL=:;; esac
echo "rank $rank of $OMPI_COMM_WORLD_SIZE from step $step: $*"
while [ "$step" -lt "${STEPS:-8}" ]; do
    sleep 0.05
    step=$((step + 1))
    if [ "$rank" = 0 ]; then echo "$step" > step.new && mv step.new step; fi
    eval "$FAIL"
done
echo "rank $rank done"
"#;

/// Stands in for ssh: "hosts" are this machine, and those that `gone-HOST` is there for do not answer.
const AGENT: &str = r#"#!/bin/sh
host=$1
shift
folder=$(dirname "$0")
if [ -e "$folder/gone-$host" ]; then echo "no route to $host" >&2; exit 255; fi
# Hosts share no folder for temporary files: two of Open MPI's daemons that make one at the same moment fail.
mkdir -p "$folder/tmp-$host"
export TMPDIR="$folder/tmp-$host"
exec sh -c "$*"
"#;

pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in [("stand-in", STAND_IN), ("agent", AGENT)] {
            fs::write(folder.path(name), text).unwrap();
        }
        folder
    }

    /// The words that start a script of the folder. A file that was just written may be open in a process that another test is starting,
    /// and could not be executed itself.
    pub fn script(&self, name: &str) -> String {
        format!("sh {}", shell_words::quote(&self.path(name).to_string_lossy()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = launcher();
        command.current_dir(self.0.path()).arg("--program").arg(self.script("stand-in")).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Output of all starts of `rank`, in order.
    pub fn log(&self, rank: usize) -> String {
        let launch = fs::read_dir(self.path("logs")).unwrap().next().unwrap().unwrap().path();
        let mut attempts: Vec<_> = fs::read_dir(launch).unwrap().map(|entry| entry.unwrap().path()).collect();
        attempts.sort();
        attempts.iter().filter_map(|attempt| fs::read_to_string(attempt.join(format!("rank-{rank}.log"))).ok()).collect()
    }
}

/// The launcher, outside of the Slurm job and the launcher's own that these tests may run in.
pub fn launcher() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biodist-launch"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ["SLURM_", "PMIX_", "PMI_"].iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    // Whoever runs the tests may have been started to ignore some.
    let heed = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1] {
            // SAFETY: the disposition is the system's own.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec only signal is called, which may be.
    unsafe { command.pre_exec(heed) };
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), text(&stdout) + &text(&stderr))
}

pub fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}
