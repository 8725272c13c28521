//! A Slurm of two nodes on one machine: its own munge, controller and daemons, all in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::site::{Job, PATIENCE, Site, lines, wait_for};
use crate::{launcher, output};

const NODES: [&str; 2] = ["n1", "n2"];

/// One at a time: munge is the machine's, and so are the ports.
static TURN: Mutex<()> = Mutex::new(());

/// Slurm's daemons, killed when dropped with all that they started.
struct Slurm {
    _turn: MutexGuard<'static, ()>,
    folder: PathBuf,
    munge: Option<Child>,
    controller: Child,
    nodes: Vec<Child>,
}

impl Slurm {
    fn new(folder: &Path) -> Slurm {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folder.to_owned();
        for part in ["state", "spool_n1", "spool_n2"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
        // Ports that a second Slurm on this machine would not have.
        let port = 20_000 + 4 * (std::process::id() % 2_000);
        let at = |name: &str| folder.join(name).display().to_string();
        let text = format!(
            "ClusterName=test\nSlurmctldHost={host}\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
             ReturnToService=2\nMpiDefault=none\nSlurmdParameters=config_overrides\nSlurmctldPort={port}\n\
             StateSaveLocation={}\nSlurmdSpoolDir={}\nSlurmctldPidFile={}\nSlurmdPidFile={}\nSlurmctldLogFile={}\nSlurmdLogFile={}\n\
             NodeName=n1 NodeHostname={host} Port={} CPUs=2 RealMemory=1000\nNodeName=n2 NodeHostname={host} Port={} CPUs=2 RealMemory=1000\n\
             PartitionName=main Nodes=n1,n2 Default=YES State=UP\n",
            at("state"),
            at("spool_%n"),
            at("ctld.pid"),
            at("%n.pid"),
            at("ctld.log"),
            at("%n.log"),
            port + 1,
            port + 2,
        );
        std::fs::write(folder.join("slurm.conf"), text).unwrap();
        let munge = start_munge();
        let daemon = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(["-D", "-f", &at("slurm.conf")]).args(arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let controller = daemon("slurmctld", &["-c"]);
        let nodes = NODES.iter().map(|node| daemon("slurmd", &["-N", node])).collect();
        let slurm = Slurm { _turn: turn, folder: folder.clone(), munge, controller, nodes };
        wait_for("two idle nodes", || slurm.states() == ["idle", "idle"]);
        slurm
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.folder.join("slurm.conf"));
        command
    }

    /// The nodes' states; none while the controller does not answer.
    fn states(&self) -> Vec<String> {
        let output = self.command("sinfo").args(["--noheader", "--Node", "--format=%T"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
    }

    /// Submits the project's batch script with another command and resources; returns the job's number.
    fn submit(&self, site: &Site, command: &str) -> String {
        let script = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/hosts/slurm.sbatch")).unwrap();
        let change = |line: &str| match line {
            _ if line.starts_with("#SBATCH --nodes=") => "#SBATCH --nodes=2 --ntasks-per-node=1 --time=00:10:00".to_owned(),
            _ if line.starts_with("command=(") => format!("command=({command})"),
            _ => line.to_owned(),
        };
        let changed: Vec<String> = script.lines().map(change).collect();
        assert_eq!(changed.iter().zip(script.lines()).filter(|(ours, theirs)| ours != theirs).count(), 2, "{script}");
        std::fs::write(site.path("job.sbatch"), changed.join("\n") + "\n").unwrap();
        let path = format!("{}:{}", launcher().parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut sbatch = self.command("sbatch");
        sbatch.args(["--parsable", "job.sbatch"]).current_dir(site.path("")).env("PATH", path);
        sbatch.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        output(&mut sbatch).trim().to_owned()
    }

    fn state(&self, job: &str) -> String {
        let text = output(self.command("scontrol").args(["show", "job", job]));
        text.split_whitespace().find_map(|word| word.strip_prefix("JobState=")).unwrap_or_default().to_owned()
    }

    /// Waits until the job has that state; shows its output where it does not come.
    fn wait_for(&self, site: &Site, job: &str, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.state(job) != state {
            let said = || std::fs::read_to_string(site.path(&format!("biodist-{job}.out"))).unwrap_or_default();
            assert!(Instant::now() < deadline, "job {job} is {}, not {state}: {}", self.state(job), said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A munge where none runs yet.
fn start_munge() -> Option<Child> {
    if Command::new("munge").arg("-n").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return None;
    }
    output(Command::new("mkdir").args(["-p", "/run/munge"]));
    output(Command::new("chown").args(["munge:", "/run/munge", "/var/log/munge"]));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground", "--force"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("munge", || {
        Command::new("munge").arg("-n").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    Some(child)
}

/// The process and all that descend from it, those at the leaves first.
fn family(process: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family));
    }
    all.push(process);
    all
}

/// The processes that run jobs of `node`: Slurm puts them beside its daemon, not under it.
fn steps_of(folder: &Path, node: &str) -> Vec<u32> {
    let spool = format!("SLURMD_NODENAME={node}");
    let of_node = |process: &u32| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        let ours = environment.windows(folder.as_os_str().len()).any(|bytes| bytes == folder.as_os_str().as_encoded_bytes());
        ours && variables.any(|variable| variable == spool.as_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(of_node).collect()
}

fn kill(processes: &[u32]) {
    for process in processes {
        // SAFETY: kill only takes numbers.
        unsafe { libc::kill(process.cast_signed(), libc::SIGKILL) };
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for node in NODES {
            kill(&steps_of(&self.folder, node));
        }
        for mut child in std::mem::take(&mut self.nodes) {
            kill(&family(child.id()));
            let _ = child.wait();
        }
        let _ = self.controller.kill();
        let _ = self.controller.wait();
        if let Some(mut munge) = self.munge.take() {
            // Asked, it takes its socket away. One that nobody listens to would be tried for seconds by every mpirun on this machine.
            // SAFETY: kill only takes numbers.
            unsafe { libc::kill(munge.id().cast_signed(), libc::SIGTERM) };
            let _ = munge.wait();
        }
    }
}

const DTP: &str = "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2";

#[test]
#[ignore = "make test-cluster"]
fn a_warned_job_is_queued_again_and_ends_as_an_unbroken_one() {
    let site = Site::on_disk();
    let slurm = Slurm::new(&site.path("slurm"));
    let more = "[training]\nepochs = 800\nlog_every_steps = 100\neval_every_epochs = 100\ncheckpoint_every_epochs = 100";
    let config = site.configure("job", DTP, more);
    site.succeed(1, &["train", &config, "--out", "whole"]);
    let job = slurm.submit(&site, &format!("train {config} --out parts --resume"));
    wait_for("metrics", || lines(&site.path("parts/metrics.jsonl")) > 3);
    // What Slurm sends before the time limit.
    output(slurm.command("scancel").args(["--signal=USR1", "--batch", &job]));
    slurm.wait_for(&site, &job, "PENDING");
    let steps = site.checkpoint_names("parts");
    assert!(steps.last().unwrap() != "00008800", "it was interrupted: {steps:?}");
    // Instead of the two minutes that Slurm waits; sooner the daemons would take the job for the one that they are still ending.
    wait_for("two idle nodes", || slurm.states() == ["idle", "idle"]);
    wait_for("the job's end", || NODES.iter().all(|node| steps_of(&slurm.folder, node).is_empty()));
    std::thread::sleep(Duration::from_secs(10));
    output(slurm.command("scontrol").args(["update", &format!("JobId={job}"), "StartTime=now"]));
    slurm.wait_for(&site, &job, "COMPLETED");
    site.assert_same("whole", "parts");
    let said = std::fs::read_to_string(site.path(&format!("biodist-{job}.out"))).unwrap();
    assert!(said.contains("2 ranks on n1 (1), n2 (1)") && said.contains("stopped on request"), "{said}");
    assert!(said.contains("from step "), "{said}");
}

#[test]
#[ignore = "make test-cluster"]
fn a_node_that_fails_is_left_behind() {
    let site = Site::on_disk();
    let mut slurm = Slurm::new(&site.path("slurm"));
    let more = "[training]\nmax_steps = 100000000\nlog_every_steps = 20\neval_every_epochs = 0\ncheckpoint_every_steps = 100\n\
                [parallel]\nstall_timeout = 20";
    let config = site.configure("job", DTP, more);
    let job = slurm.submit(&site, &format!("train {config} --out run --resume"));
    let metrics = site.path("run/metrics.jsonl");
    wait_for("metrics", || lines(&metrics) > 10);
    // As when its power fails.
    let mut node = slurm.nodes.pop().unwrap();
    kill(&family(node.id()));
    node.wait().unwrap();
    kill(&steps_of(&slurm.folder, "n2"));
    let said = || std::fs::read_to_string(site.path(&format!("biodist-{job}.out"))).unwrap_or_default();
    let deadline = Instant::now() + PATIENCE;
    while !said().contains("1 rank on n1 (1)") {
        assert!(Instant::now() < deadline, "it does not go on: {}", said());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(said().contains("n2 is lost"), "{}", said());
    let before = lines(&metrics);
    wait_for("more metrics", || lines(&metrics) > before + 5);
    output(slurm.command("scancel").arg(&job));
    let ours = slurm.munge.is_some();
    drop(slurm);
    assert!(!ours || !std::fs::exists("/run/munge/munge.socket.2").unwrap(), "munge has left its socket behind");
}

#[test]
#[ignore = "make test-cluster"]
fn srun_alone_trains_where_mpi_shares_its_pmix_and_is_refused_where_not() {
    let site = Site::on_disk();
    let slurm = Slurm::new(&site.path("slurm"));
    let config = site.configure("job", DTP, "[training]\nepochs = 3\nlog_every_steps = 3");
    site.succeed(2, &["train", &config, "--out", "whole"]);
    let srun = |mpi: &str, nodes: usize, run: &str| {
        let mut srun = slurm.command("srun");
        srun.args([format!("--mpi={mpi}"), format!("--nodes={nodes}"), "--ntasks=2".to_owned()]);
        srun.args([env!("CARGO_BIN_EXE_biodist"), "train", &config, "--out", run]);
        srun.current_dir(site.path("")).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Job::start(srun, None).wait()
    };
    // Every process ends at once, and none of them trains for itself.
    let started = Instant::now();
    let refused = srun("none", 2, "refused");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert_eq!(refused.stderr.matches("srun started 2 processes, but this MPI cannot reach them").count(), 1, "{refused:?}");
    assert!(refused.stderr.contains("srun --mpi=pmix") && refused.stderr.matches("exit code 2").count() >= 1, "{refused:?}");
    assert!(!site.path("refused").exists());

    let kinds = slurm.command("srun").arg("--mpi=list").output().unwrap();
    if !String::from_utf8_lossy(&[kinds.stdout, kinds.stderr].concat()).contains("pmix") {
        return eprintln!("skipped: this Slurm has no PMIx");
    }
    // On one of the nodes: both are this machine, which takes one PMIx server of a step.
    let trained = srun("pmix", 1, "trained");
    assert_eq!(trained.code, Some(0), "{trained:?}");
    assert!(trained.stdout.contains("2 ranks"), "{trained:?}");
    site.assert_same("whole", "trained");
}
