//! Training on two hosts: the same bits as on one, and what happens when one of them, or the network to it, is lost.

use std::time::{Duration, Instant};

use crate::host::Hosts;
use crate::output;
use crate::site::{Site, lines, wait_for};

const DTP: &str = "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2";

/// A run without end, which waits `stall_timeout` seconds for a rank.
fn endless(site: &Site, stall_timeout: u32) -> String {
    let more = format!(
        "[training]\nmax_steps = 100000000\nlog_every_steps = 20\neval_every_epochs = 0\ncheckpoint_every_steps = 50\n\
         [parallel]\nstall_timeout = {stall_timeout}"
    );
    site.configure("endless", DTP, &more)
}

#[test]
#[ignore = "make test-cluster"]
fn two_hosts_train_as_one_does() {
    let site = Site::on_disk();
    let hosts = Hosts::new(&site);
    let config = site.configure("same", DTP, "[training]\nepochs = 3\nlog_every_steps = 3");
    site.succeed(2, &["train", &config, "--out", "one"]);
    let outcome = hosts.launch(&site, &["train", &config, "--out", "two"]).wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("2 ranks") && outcome.stdout.contains("on h1, h2"), "{outcome:?}");
    site.assert_same("one", "two");
    hosts.wait_for_the_end();
}

#[test]
#[ignore = "make test-cluster"]
fn ranks_of_a_host_share_memory_and_factors_travel_while_layers_compute() {
    let site = Site::on_disk();
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
        let transferred = events.iter().filter(|event| event.row == "exchange (background)");
        assert_eq!(transferred.filter(beside).count() > 0, overlap == "true");
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
    let site = Site::on_disk();
    let hosts = Hosts::new(&site);
    let job = hosts.launch(&site, &["--max-restarts", "0", "train", &endless(&site, 3), "--out", "run"]);
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 2);
    // SAFETY: kill only takes numbers.
    assert_eq!(unsafe { libc::kill(hosts.process(1, "biodist"), libc::SIGSTOP) }, 0);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(76), "{outcome:?}");
    assert!(outcome.stderr.contains("rank 1 on h2 has given no sign of life for 3."), "{outcome:?}");
    hosts.wait_for_the_end();
}

#[test]
#[ignore = "make test-cluster"]
fn a_cut_link_ends_the_job_with_the_code_of_a_stall_and_nothing_is_left() {
    // The ranks notice, or, long before them, Open MPI does.
    for (stall_timeout, said) in
        [(5, "stalled (code 76): rank 1 on h2 has given no sign of life"), (300, "the connection to 10.77.0.2 was lost")]
    {
        let site = Site::on_disk();
        let hosts = Hosts::new(&site);
        let job = hosts.launch(&site, &["--max-restarts", "0", "train", &endless(&site, stall_timeout), "--out", "run"]);
        wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 5);
        hosts.cut();
        let cut = Instant::now();
        let outcome = job.wait();
        let ended = cut.elapsed();
        assert_eq!(outcome.code, Some(76), "{outcome:?}");
        let report = outcome.stderr.rsplit("biodist-launch: ").next().unwrap();
        assert!(report.starts_with(said) && report.contains("not started again: --max-restarts is 0"), "{outcome:?}");
        hosts.wait_for_the_end();
        println!("stall_timeout {stall_timeout}: ended after {ended:?}, nothing left after {:?}; {report}", cut.elapsed());
        assert!(cut.elapsed() < Duration::from_secs(30), "{:?}: {outcome:?}", cut.elapsed());
    }
}

#[test]
#[ignore = "make test-cluster"]
fn a_cut_link_under_mpirun_alone_leaves_nothing_either() {
    let site = Site::on_disk();
    let hosts = Hosts::new(&site);
    let job = hosts.mpirun(&site, 1, &["train", &endless(&site, 5), "--out", "run"]);
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 5);
    hosts.cut();
    let cut = Instant::now();
    let outcome = job.wait();
    println!("code {:?} after {:?}", outcome.code, cut.elapsed());
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("rank 1 on h2 has given no sign of life"), "{outcome:?}");
    hosts.wait_for_the_end();
    assert!(cut.elapsed() < Duration::from_secs(30), "{:?}: {outcome:?}", cut.elapsed());
}

/// mpirun tells the daemon of the other host to end its rank, and waits for an answer: TCP for a quarter of an hour, since what was sent
/// and not acknowledged keeps it from noticing a lost connection. Nor does any rank's watchdog, whose limit is longer, end it.
#[test]
#[ignore = "make test-cluster"]
fn a_rank_that_fails_while_a_host_is_out_of_reach_ends_the_job_all_the_same() {
    let site = Site::on_disk();
    let hosts = Hosts::new(&site);
    let job = hosts.launch(&site, &["--max-restarts", "0", "train", &endless(&site, 300), "--out", "run"]);
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 5);
    hosts.cut();
    let cut = Instant::now();
    // SAFETY: kill only takes numbers.
    assert_eq!(unsafe { libc::kill(hosts.process(0, "biodist"), libc::SIGKILL) }, 0);
    let outcome = job.wait();
    println!("code {:?} after {:?}", outcome.code, cut.elapsed());
    assert!(outcome.code == Some(137) && outcome.stderr.contains("mpirun does not end by itself; killing it"), "{outcome:?}");
    assert!(cut.elapsed() < Duration::from_secs(30), "{:?}: {outcome:?}", cut.elapsed());
    hosts.wait_for_the_end();
}

#[test]
#[ignore = "make test-cluster"]
fn after_a_cut_link_training_goes_on_where_it_can() {
    let site = Site::on_disk();
    let hosts = Hosts::new(&site);
    let job = hosts.launch(&site, &["train", &endless(&site, 5), "--out", "run"]);
    let metrics = site.path("run/metrics.jsonl");
    wait_for("metrics", || lines(&metrics) > 5);
    hosts.cut();
    let log = |attempt: usize, rank: usize| {
        let launch = std::fs::read_dir(site.path("logs")).unwrap().next().unwrap().unwrap().path();
        std::fs::read_to_string(launch.join(format!("attempt-{attempt}/rank-{rank}.log"))).unwrap_or_default()
    };
    // The host that is left goes on alone.
    let cut = Instant::now();
    wait_for("the end of the lost host's processes", || hosts.processes(1).is_empty());
    wait_for("a second attempt", || log(2, 0).contains("1 rank x "));
    println!("a second attempt after {:?}", cut.elapsed());
    assert!(log(1, 0).contains("rank 1 on h2 has given no sign of life"), "{}", log(1, 0));
    let before = lines(&metrics);
    wait_for("more metrics", || lines(&metrics) > before + 5);
    output(std::process::Command::new("kill").args(["-USR1", &hosts.process(0, "biodist-launch").to_string()]));
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    assert!(outcome.stderr.contains("10.77.0.2 is lost: "), "{outcome:?}");
    hosts.wait_for_the_end();
}
