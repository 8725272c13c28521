//! Variables that launchers of other jobs left in the environment: a process alone is one, and speaks, or says what to unset.

use std::path::Path;
use std::process::Command;

use crate::site::{Job, Outcome, Site, turn};

fn run(site: &Site, ranks: usize, arguments: &[&str], variables: &[(String, String)], without: &[&str]) -> Outcome {
    let mut command = site.command(ranks, arguments);
    command.envs(variables.iter().cloned());
    for name in without {
        command.env_remove(name);
    }
    Job::start(command, turn(ranks)).wait()
}

fn set(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

const CHECK: [&str; 3] = ["check", "a.toml", "--json"];

#[test]
fn a_rank_that_nobody_started_is_a_process_alone() {
    let site = Site::new();
    site.configure("a", "rule = \"bp\"", "[training]\nepochs = 1");
    for variables in [
        &[("SLURM_PROCID", "3")][..],
        &[("SLURM_PROCID", "3"), ("SLURM_JOB_ID", "7"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_NTASKS", "4")],
        &[("PMI_RANK", "3")],
        &[("PMIX_RANK", "3")],
        &[("PMIX_RANK", "3"), ("PMIX_NAMESPACE", "1518796801")],
        &[("OMPI_COMM_WORLD_RANK", "3")],
        &[("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_LOCAL_RANK", "3"), ("OMPI_UNIVERSE_SIZE", "4")],
        &[("MPI_LOCALNRANKS", "4"), ("PMI_RANK", "3")],
    ] {
        let outcome = run(&site, 1, &CHECK, &set(variables), &[]);
        assert!(outcome.code == Some(0) && outcome.stdout.contains("\"ranks\""), "{variables:?}: {outcome:?}");
    }
    let rank_3 = set(&[("SLURM_PROCID", "3"), ("PMI_RANK", "3"), ("PMIX_RANK", "3"), ("OMPI_COMM_WORLD_RANK", "3")]);
    for (arguments, said) in [
        (&["--help"][..], "Usage: biodist"),
        (&["--version"], "biodist 0."),
        (&["--nonsense"], "--nonsense"),
        (&["check", "nowhere.toml"], "nowhere.toml: no such configuration"),
    ] {
        let outcome = run(&site, 1, arguments, &rank_3, &[]);
        let text = outcome.stdout.clone() + &outcome.stderr;
        assert!(text.contains(said), "{arguments:?}: {outcome:?}");
    }
}

/// The environment of a rank whose job has ended.
fn left_over(site: &Site) -> Vec<(String, String)> {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["-n", "1", "env"]).current_dir(site.path(""));
    crate::site::prepare(&mut mpirun);
    crate::site::allow_mpirun(&mut mpirun);
    let said = Job::start(mpirun, turn(2)).wait().stdout;
    let variables = said.lines().filter_map(|line| line.split_once('='));
    let of_a_rank = variables.filter(|(name, _)| name.starts_with("OMPI_") || name.starts_with("PMIX_"));
    of_a_rank.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_job_that_has_ended_is_named_with_what_to_unset() {
    let site = Site::new();
    site.configure("a", "rule = \"bp\"", "[training]\nepochs = 1");
    let ended = left_over(&site);
    assert!(ended.iter().any(|(name, _)| name.starts_with("PMIX_SERVER_URI")), "{ended:?}");
    for variables in [
        ended,
        set(&[("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4")]),
        set(&[("PMI_RANK", "3"), ("PMI_SIZE", "4")]),
        set(&[("PMIX_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4"), ("PMIX_SERVER_URI4", "1.0;tcp4://127.0.0.1:1")]),
    ] {
        let outcome = run(&site, 1, &CHECK, &variables, &[]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        let (_, advised) = outcome.stderr.trim().rsplit_once("; unset ").unwrap_or_else(|| panic!("{outcome:?}"));
        // As it advises.
        let outcome = run(&site, 1, &CHECK, &variables, &advised.split(' ').collect::<Vec<_>>());
        assert_eq!(outcome.code, Some(0), "{advised}: {outcome:?}");
    }
}

#[test]
fn of_several_ranks_one_speaks() {
    let site = Site::new();
    site.configure("a", "rule = \"bp\"", "[training]\nepochs = 1");
    // What a batch script's shell has, and its ranks inherit.
    let variables = set(&[("SLURM_PROCID", "0")]);
    for (arguments, said) in [
        (&["--help"][..], "Train networks with biologically"),
        (&["train", "--help"], "Record what each rank does and when"),
        (&["--version"], "biodist 0."),
        (&["--nonsense"], "unexpected argument '--nonsense'"),
        (&["check", "nowhere.toml"], "nowhere.toml: no such configuration"),
        (&["check", "a.toml"], "forward"),
    ] {
        let outcome = run(&site, 3, arguments, &variables, &[]);
        let text = outcome.stdout.clone() + &outcome.stderr;
        let once = if said == "forward" { text.contains(said) } else { text.matches(said).count() == 1 };
        assert!(once, "{arguments:?}: {outcome:?}");
    }
}

/// One rank's limit ends them all, with a word of that rank's.
#[test]
fn threads_that_cannot_be_had_are_told() {
    let site = Site::new();
    let config = site.configure("a", "rule = \"bp\"", "[training]\nepochs = 1\n[parallel]\nthreads_per_rank = 1000");
    // Stacks take two MiB each.
    let limited = "[ \"$OMPI_COMM_WORLD_RANK\" = 0 ] || ulimit -v 2000000; exec \"$0\" \"$@\"";
    for ranks in [1, 2] {
        let outcome =
            site.run_of(Path::new("sh"), ranks, &["-c", limited, env!("CARGO_BIN_EXE_biodist"), "train", &config, "--out", "run"]);
        let said = outcome.stderr.lines().filter(|line| line.contains("no thread can be started: ")).count();
        assert!(outcome.code == Some(1) && said == 1 && !outcome.stderr.contains("internal error"), "{outcome:?}");
        assert!(outcome.stderr.contains("(`ulimit -v` is 2000000)"), "{outcome:?}");
    }
}
