//! Two hosts: network namespaces that a cable joins, each with its own address and name. Open MPI reaches the second by a script in the
//! place of ssh, which answers only while the cable is plugged in.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::site::{Job, Site, lines, wait_for};
use crate::{launcher, output, write_script};

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// The hosts, taken down when dropped.
struct Hosts {
    names: [String; 2],
}

fn ip(arguments: &[&str]) -> String {
    output(Command::new("ip").args(arguments))
}

impl Hosts {
    fn new(site: &Site) -> Hosts {
        let names = [1, 2].map(|host| format!("biodist{}-{host}", std::process::id()));
        let hosts = Hosts { names };
        let [first, second] = &hosts.names;
        ip(&["netns", "add", first]);
        ip(&["netns", "add", second]);
        ip(&["-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second]);
        for (name, address) in hosts.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "link", "set", "lo", "up"]);
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
        }
        let agent = format!(
            "#!/bin/bash\nhost=$1\nshift\nif [ \"$host\" != {} ] || ! ip -n {second} link show eth0 | grep -q 'state UP'; then\n\
             echo \"no route to $host\" >&2\nexit 255\nfi\n\
             exec ip netns exec {second} unshare --uts bash -c \"hostname h2; $*\"\n",
            ADDRESSES[1]
        );
        write_script(&site.path("agent"), &agent);
        std::fs::write(site.path("hosts.txt"), ADDRESSES.map(|address| format!("{address} slots=1\n")).concat()).unwrap();
        hosts
    }

    /// A command on the first host.
    fn command(&self, site: &Site, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[0], "unshare", "--uts", "bash", "-c", "hostname h1; exec \"$@\"", "bash"]).args(words);
        command.current_dir(site.path("")).env("OMPI_MCA_plm_rsh_agent", site.path("agent"));
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").env_remove("RUST_LOG");
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    }

    /// `mpirun` over both hosts, which are ranks `per_host` by `per_host`.
    fn mpirun(&self, site: &Site, per_host: usize, arguments: &[&str]) -> Job {
        let (ranks, slots) = ((2 * per_host).to_string(), ADDRESSES.map(|address| format!("{address}:{per_host}")).join(","));
        let network = format!("{}/24", ADDRESSES[0]);
        let words = [
            &["mpirun", "-n", &ranks, "--host", &slots, "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"][..],
            &["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", &network, "--mca", "oob_tcp_if_include", &network],
            &[env!("CARGO_BIN_EXE_biodist")],
            arguments,
        ];
        Job::start(self.command(site, &words.concat()), None)
    }

    fn launch(&self, site: &Site, arguments: &[&str]) -> Job {
        let launcher = launcher().display().to_string();
        let words = [&[launcher.as_str(), "--hosts", "hosts.txt"], arguments].concat();
        Job::start(self.command(site, &words), None)
    }

    fn cut(&self) {
        ip(&["-n", &self.names[1], "link", "set", "eth0", "down"]);
    }

    /// Processes on each host.
    fn processes(&self) -> [usize; 2] {
        [0, 1].map(|host| ip(&["netns", "pids", &self.names[host]]).lines().count())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // What a failed test has left runs in here, and nothing else does.
            let left = Command::new("ip").args(["netns", "pids", name]).output().map(|output| output.stdout).unwrap_or_default();
            for process in String::from_utf8_lossy(&left).split_whitespace() {
                let _ = Command::new("kill").args(["-9", process]).status();
            }
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

const DTP: &str = "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2";

#[test]
#[ignore = "make test-cluster"]
fn two_hosts_train_as_one_does() {
    let site = Site::new();
    let hosts = Hosts::new(&site);
    let config = site.configure("same", DTP, "[training]\nepochs = 3\nlog_every_steps = 3");
    site.succeed(2, &["train", &config, "--out", "one"]);
    let outcome = hosts.launch(&site, &["train", &config, "--out", "two"]).wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("2 ranks") && outcome.stdout.contains("on h1, h2"), "{outcome:?}");
    site.assert_same("one", "two");
}

#[test]
#[ignore = "make test-cluster"]
fn ranks_of_a_host_share_memory_and_factors_travel_while_layers_compute() {
    let site = Site::new();
    let hosts = Hosts::new(&site);
    let config = site.configure("wide", DTP, "[training]\nepochs = 3\nlog_every_steps = 3\n[parallel]\nverify_every_steps = 4");
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("units = 24", "units = 800").replace("units = 20", "units = 700")).unwrap();
    site.succeed(1, &["train", &config, "--out", "one"]);
    for overlap in ["true", "false"] {
        let (set, trace) = (format!("parallel.overlap={overlap}"), format!("{overlap}.json"));
        let arguments = ["train", &config, "--out", overlap, "--set", &set, "--trace", &trace];
        let outcome = hosts.mpirun(&site, 2, &arguments).wait();
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.contains("4 ranks") && outcome.stdout.contains("on h1, h2"), "{outcome:?}");
        site.assert_same("one", overlap);
        let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(site.path(&trace)).unwrap()).unwrap();
        let events = crate::spans::events(&trace);
        let beside = |factor: &&crate::spans::Event| {
            let compute = events.iter().filter(|event| event.row == "compute");
            factor.name.starts_with("factors ") && compute.into_iter().any(|event| event.overlaps(factor))
        };
        let travelled = events.iter().filter(|event| event.row == "exchange (background)");
        assert_eq!(travelled.filter(beside).count() > 0, overlap == "true");
    }
    // One copy of the parameters a host: the sum over ranks counts shared pages once.
    let memory = |ranks_a_host: usize| {
        let wide = ["--set", "network.layers=[{kind = \"dense\", units = 4000}, {kind = \"dense\", units = 4000}]"];
        let bench = ["bench", "step", &config, "--input", "6x6x1", "--classes", "10", "--steps", "2", "--json"];
        let outcome = hosts.mpirun(&site, ranks_a_host, &[&bench[..], &wide[..]].concat()).wait();
        let last: serde_json::Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
        assert!(last["phases"]["exchange"]["bytes_received"].as_f64().unwrap() > 0.0, "{last}");
        last["memory_bytes"].as_f64().unwrap()
    };
    // Parameters and moments of 32 million weights are 384 MB.
    let (one, two) = (memory(1), memory(2));
    assert!(two - one < 300e6, "{one} bytes on 2 ranks, {two} on 4");
}

#[test]
#[ignore = "make test-cluster"]
fn a_rank_that_is_stopped_on_another_host_is_named_by_both() {
    let site = Site::new();
    let hosts = Hosts::new(&site);
    let more = "[training]\nmax_steps = 100000000\nlog_every_steps = 20\neval_every_epochs = 0\n[parallel]\nstall_timeout = 3";
    let config = site.configure("watched", DTP, more);
    let job = hosts.launch(&site, &["--max-restarts", "0", "train", &config, "--out", "run"]);
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 2);
    let rank = ip(&["netns", "pids", &hosts.names[1]]);
    let rank = rank.lines().find(|process| {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        name.trim() == "biodist"
    });
    output(Command::new("kill").args(["-STOP", rank.expect("a rank runs on the second host")]));
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(76), "{outcome:?}");
    assert!(outcome.stderr.contains("rank 1 on h2 has given no sign of life for 3."), "{outcome:?}");
    wait_for("the end of all processes", || hosts.processes() == [0, 0]);
}

#[test]
#[ignore = "make test-cluster"]
fn a_cut_cable_is_reported_and_training_goes_on_where_it_can() {
    let site = Site::new();
    let hosts = Hosts::new(&site);
    let more = "[training]\nmax_steps = 100000000\nlog_every_steps = 20\neval_every_epochs = 0\ncheckpoint_every_steps = 50\n\
                [parallel]\nstall_timeout = 5";
    let config = site.configure("cut", DTP, more);
    let job = hosts.launch(&site, &["train", &config, "--out", "run"]);
    let metrics = site.path("run/metrics.jsonl");
    wait_for("metrics", || lines(&metrics) > 5);
    hosts.cut();
    let cut = Instant::now();
    let log = |attempt: usize, rank: usize| {
        let launch = std::fs::read_dir(site.path("logs")).unwrap().next().unwrap().unwrap().path();
        std::fs::read_to_string(launch.join(format!("attempt-{attempt}/rank-{rank}.log"))).unwrap_or_default()
    };
    wait_for("a report", || log(1, 0).contains("rank 1 on h2 has given no sign of life"));
    assert!(cut.elapsed() < Duration::from_secs(30), "{:?}", cut.elapsed());
    wait_for("the end of the lost host's processes", || hosts.processes()[1] == 0);
    assert!(cut.elapsed() < Duration::from_secs(60), "{:?}", cut.elapsed());
    // The host that is left goes on alone.
    wait_for("a second attempt", || log(2, 0).contains("1 rank x "));
    let before = lines(&metrics);
    wait_for("more metrics", || lines(&metrics) > before + 5);
    job.signal(libc::SIGUSR1);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    assert!(outcome.stderr.contains("10.77.0.2 is lost: no route to 10.77.0.2"), "{outcome:?}");
    assert_eq!(hosts.processes(), [0, 0]);
}
