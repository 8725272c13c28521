//! `bench step`, and how a rank finds its CPUs.

use std::process::Command;

use serde_json::Value;

use crate::site::{Job, Outcome, Site, allow_mpirun, leave_job, turn, write_images};

#[test]
fn steps_are_timed_phase_by_phase() {
    let site = Site::new();
    let config = site.configure("step", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", "");
    for (ranks, schedule) in [(1, "parallel"), (2, "alternating")] {
        let schedule = format!("learning.schedule=\"{schedule}\"");
        let arguments = ["bench", "step", &config, "--input", "6x6x1", "--classes", "10", "--steps", "5", "--set", &schedule, "--json"];
        let outcome = site.succeed(ranks, &arguments);
        let value: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(value["world_size"].as_u64(), Some(ranks as u64));
        for key in ["samples_per_second", "step_seconds", "threads_per_rank", "floor_seconds", "peak_rss_bytes", "memory_bytes"] {
            assert!(value[key].as_f64().unwrap() > 0.0, "{key}: {value}");
        }
        let phases = value["phases"].as_object().unwrap();
        let sum = |key: &str| phases.values().map(|phase| phase[key].as_f64().unwrap()).sum::<f64>();
        assert!(["forward", "inverse", "update_forward", "update_inverse"].iter().all(|phase| phases.contains_key(*phase)), "{value}");
        assert!(sum("seconds") <= 1.5 * value["step_seconds"].as_f64().unwrap(), "{value}");
        assert!((sum("floor_seconds") - value["floor_seconds"].as_f64().unwrap()).abs() < 1e-9);
        let speed = 16.0 / value["step_seconds"].as_f64().unwrap();
        assert!((value["samples_per_second"].as_f64().unwrap() / speed - 1.0).abs() < 1e-9);
        // Of rank 0, and of the rank that waits least.
        let [own, least] = ["seconds", "least_seconds"].map(|key| value["phases"]["exchange"][key].as_f64().unwrap());
        assert!(0.0 < least && if ranks == 1 { least == own } else { least <= own }, "{value}");
    }
}

#[test]
fn ranks_divide_the_cpus_whatever_mpirun_bound_them_to() {
    let site = Site::new();
    let config = site.configure("step", "rule = \"bp\"", "");
    let cpus = std::thread::available_parallelism().unwrap().get();
    for ranks in [1, 2] {
        // mpirun for one rank too: it binds that to a single core.
        let mut command = Command::new("mpirun");
        // Two ranks find one core where its two threads are all there is.
        command.args(["-n", &ranks.to_string(), "--oversubscribe", "--bind-to", "core:overload-allowed"]);
        command.arg(env!("CARGO_BIN_EXE_biodist"));
        command.args(["bench", "step", &config, "--input", "6x6x1", "--classes", "10", "--steps", "1", "--json"]);
        command.current_dir(site.path(""));
        leave_job(&mut command);
        allow_mpirun(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{ranks} ranks: {}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let value: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        assert_eq!(value["threads_per_rank"].as_u64(), Some((cpus / ranks).max(1) as u64), "{ranks} ranks on {cpus} CPUs");
    }
}

#[test]
fn scaling_starts_its_own_ranks_and_draws_them() {
    let site = Site::new();
    let config = site.configure("step", "rule = \"bp\"", "");
    let arguments = ["bench", "scaling", &config, "--input", "6x6x1", "--classes", "10", "--steps", "3", "--ranks"];
    let outcome = site.succeed(1, &[&arguments[..], &["1,4", "--json", "--plot", "speed.svg"]].concat());
    let value: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    let points = value["points"].as_array().unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    for ranks in [1, 4] {
        let warned = outcome.stderr.matches(&format!("warn: {ranks} ranks")).count();
        assert_eq!(warned, usize::from(ranks > cpus), "once, for both modes: {outcome:?}");
    }
    let column = |key: &str| points.iter().map(|point| point[key].clone()).collect::<Vec<_>>();
    assert_eq!(column("mode"), ["weak", "weak", "strong", "strong"]);
    assert_eq!(column("ranks"), [1, 4, 1, 4]);
    assert_eq!(column("batch_size"), [16, 64, 16, 16]);
    for pair in points.chunks(2) {
        let speed = |point: &Value| point["samples_per_second"].as_f64().unwrap();
        let efficiency = speed(&pair[1]) / speed(&pair[0]) / 4.0;
        assert!((pair[1]["efficiency"].as_f64().unwrap() - efficiency).abs() < 1e-9 && pair[0]["efficiency"] == 1.0, "{value}");
    }
    let drawing = std::fs::read_to_string(site.path("speed.svg")).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.contains("ideal") && drawing.contains("weak"), "{drawing}");

    let refused = |ranks: usize, numbers: &str, word: &str| {
        let outcome = site.run(ranks, &[&arguments[..], &[numbers]].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(word), "{outcome:?}");
    };
    refused(1, "1,3", "3 ranks");
    refused(1, "2,1", "ascend");
    refused(2, "1,2", "starts mpirun itself");
}

#[test]
fn loading_is_measured_by_shards_pixels_and_threads() {
    let site = Site::new();
    std::fs::create_dir(site.path("temporary")).unwrap();
    let arguments = ["bench", "loader", "--threads", "2", "--seconds", "0.03", "--json"];
    let start = |arguments: &[&str]| {
        let mut command = site.command(1, arguments);
        command.env("TMPDIR", site.path("temporary"));
        Job::start(command, turn(1)).wait()
    };
    let rows = |outcome: &Outcome| {
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let value: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
        value["rows"].as_array().unwrap().clone()
    };
    let column = |rows: &[Value], key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    let made_up = rows(&start(&arguments));
    assert_eq!(column(&made_up, "data"), ["raw", "raw", "raw", "raw", "JPEG", "JPEG", "JPEG", "JPEG"]);
    assert_eq!(column(&made_up, "pixels"), ["bytes", "bytes", "floats", "floats"].repeat(2));
    assert_eq!(column(&made_up, "threads"), [1, 2].repeat(4));
    for row in &made_up {
        let pixel = if row["pixels"] == "bytes" { 1.0 } else { 4.0 };
        let written = row["crops_per_second"].as_f64().unwrap() * 224.0 * 224.0 * 3.0 * pixel;
        assert!(written > 0.0 && (row["bytes_per_second"].as_f64().unwrap() / written - 1.0).abs() < 1e-9, "{row}");
    }
    assert_eq!(std::fs::read_dir(site.path("temporary")).unwrap().count(), 0, "made-up photos are removed");

    write_images(&site.path("digits"), 5, 2);
    let of_folder = rows(&start(&[&arguments[..], &["--crop", "5", "digits"]].concat()));
    assert_eq!(column(&of_folder, "data"), ["digits"; 4]);
    let refused = |ranks: usize, more: &[&str], word: &str| {
        let outcome = site.run(ranks, &[&arguments[..], more].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(word), "{outcome:?}");
    };
    refused(1, &["digits"], "data.crop = [224, 224] does not fit");
    refused(1, &["nowhere"], "nowhere");
    refused(2, &["--crop", "5", "digits"], "without mpirun");
}

#[test]
fn collectives_are_measured_and_checked() {
    let site = Site::new();
    for ranks in [2, 3] {
        let outcome = site.succeed(ranks, &["bench", "collectives", "--max", "64K", "--json"]);
        let value: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
        let results = value["results"].as_array().unwrap();
        assert_eq!(results.len(), 3 * 4, "three operations on 1K, 4K, 16K, 64K: {value}");
        for result in results {
            let number = |key: &str| result[key].as_f64().unwrap();
            let algorithm = number("bytes") / number("seconds");
            assert!((number("algorithm_bytes_per_second") / algorithm - 1.0).abs() < 1e-9);
            let others = (ranks - 1) as f64 / ranks as f64;
            let factor = if result["operation"] == "all-reduce" { 2.0 * others } else { others };
            assert!((number("bus_bytes_per_second") / algorithm / factor - 1.0).abs() < 1e-9, "{result}");
        }
    }
    let alone = site.run(1, &["bench", "collectives"]);
    assert_eq!(alone.code, Some(2), "{alone:?}");
}
