//! `--trace`: what it records agrees with itself and with the metrics.

use serde_json::Value;

use crate::site::{Site, refused};
use crate::spans::{Event, events};

/// Steps of a traced run.
const STEPS: u64 = 44;

/// Nanoseconds become microseconds with three decimals.
const ROUNDING: f64 = 0.002;

#[test]
fn spans_nest_and_add_up_to_the_metrics() {
    let site = Site::new();
    let more = format!("[training]\nmax_steps = {STEPS}\nlog_every_steps = {STEPS}");
    let config = site.configure("traced", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", &more);
    for ranks in [1, 2] {
        // A process that loses its CPU between two clocks has that time in one of them alone: in one run of three it does not.
        let mut differences = Vec::new();
        let agrees = (1..=3).any(|attempt| {
            let (run, file) = (format!("run-{ranks}-{attempt}"), format!("trace-{ranks}-{attempt}.json"));
            site.succeed(ranks, &["train", &config, "--out", &run, "--trace", &file]);
            let trace: Value = serde_json::from_slice(&std::fs::read(site.path(&file)).unwrap()).unwrap();
            let events = events(&trace);
            assert_nested(&events, ranks);
            let found = differences_from_metrics(&site, &run, &events);
            let agrees = found.is_empty();
            differences.push(found);
            agrees
        });
        assert!(agrees, "{ranks} ranks: {differences:?}");
    }
}

/// Of every rank, spans lie within those that they belong to, and all that there should be are there.
fn assert_nested(events: &[Event], ranks: usize) {
    for rank in 0..ranks as u64 {
        let of_rank: Vec<&Event> = events.iter().filter(|event| event.rank == rank).collect();
        let steps: Vec<&&Event> = of_rank.iter().filter(|event| event.row == "step").collect();
        assert_eq!(steps.iter().map(|event| event.step).collect::<Vec<_>>(), (0..STEPS).collect::<Vec<_>>());
        // On a row, spans are apart or one within the other.
        for row in ["step", "load", "compute", "exchange", "update", "between steps"] {
            let mut open: Vec<f64> = Vec::new();
            let mut on_row: Vec<&&Event> = of_rank.iter().filter(|event| event.row == row).collect();
            on_row.sort_by(|a, b| a.begin.total_cmp(&b.begin).then(b.end.total_cmp(&a.end)));
            for event in on_row {
                open.retain(|end| *end > event.begin + ROUNDING);
                assert!(open.iter().all(|end| event.end <= end + ROUNDING), "{} on {row} sticks out", event.name);
                open.push(event.end);
            }
        }
        // Compute and update happen within the steps they say, or in an evaluation.
        for event in of_rank.iter().filter(|event| ["compute", "update"].contains(&event.row.as_str())) {
            let within = |outer: &&&Event| outer.begin <= event.begin + ROUNDING && event.end <= outer.end + ROUNDING;
            let step = steps.iter().copied().find(within);
            let evaluation = of_rank.iter().filter(|outer| outer.name == "evaluation").find(within);
            assert!(step.is_some_and(|step| step.step == event.step) || evaluation.is_some(), "{} in step {}", event.name, event.step);
        }
        for layer in ["forward 0", "forward 1", "forward 2", "inverse 1"] {
            assert!(of_rank.iter().any(|event| event.name == layer), "{layer}");
        }
        for span in ["checkpoint", "evaluation"] {
            assert!(of_rank.iter().any(|event| event.name == span), "{span}");
        }
    }
}

/// Where the spans of rank 0 and its metrics disagree about the time in something.
fn differences_from_metrics(site: &Site, run: &str, events: &[Event]) -> Vec<String> {
    let text = std::fs::read_to_string(site.path(run).join("metrics.jsonl")).unwrap();
    let line: Value = text.lines().map(|line| serde_json::from_str(line).unwrap()).find(|line: &Value| line["split"] == "train").unwrap();
    let in_steps = |row: &str| {
        let steps: Vec<&Event> = events.iter().filter(|event| event.rank == 0 && event.row == "step").collect();
        let of_row = events.iter().filter(|event| event.rank == 0 && event.row == row);
        let within = of_row.filter(|event| steps.iter().any(|step| step.begin <= event.begin && event.end <= step.end + ROUNDING));
        within.map(|event| event.end - event.begin).sum::<f64>() / 1e6
    };
    let mut differences = Vec::new();
    for row in ["load", "compute", "update"] {
        let measured = line["seconds"][row].as_f64().unwrap() * STEPS as f64;
        // Each clock is read a little earlier or later: a microsecond a span, of about 30 in a step.
        let (traced, tolerance) = (in_steps(row), 0.25 * measured + STEPS as f64 * 30e-6);
        let agrees = (traced - measured).abs() <= tolerance;
        if !agrees {
            differences.push(format!("{row}: {traced} s traced, {measured} s measured"));
        }
    }
    differences
}

#[test]
fn what_travels_in_the_background_has_a_row_of_its_own() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 200\n[parallel]\nexchange = \"gradients\"";
    let config = site.configure("traced", "rule = \"bp\"", more);
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("units = 24", "units = 400")).unwrap();
    let traced = |run: &str, overlap: &str| {
        site.succeed(2, &["train", &config, "--out", run, "--trace", &format!("{run}.json"), "--set", overlap]);
        let trace: Value = serde_json::from_slice(&std::fs::read(site.path(&format!("{run}.json"))).unwrap()).unwrap();
        events(&trace)
    };
    // A gradient travels while the layers below it compute, or after all of them.
    let beside_compute = |events: &[Event]| {
        let gradients = events.iter().filter(|event| event.row == "exchange (background)" && event.name.starts_with("gradient "));
        let compute: Vec<&Event> = events.iter().filter(|event| event.row == "compute").collect();
        gradients.map(|gradient| compute.iter().filter(|event| gradient.overlaps(event)).count()).collect::<Vec<_>>()
    };
    let (with, without) = (traced("with", "parallel.overlap=true"), traced("without", "parallel.overlap=false"));
    let counts = beside_compute(&with);
    assert_eq!(counts.len(), 2 * 200 * 3, "a gradient a layer, step and rank");
    assert!(counts.iter().filter(|count| **count > 0).count() > 200, "{counts:?}");
    assert!(beside_compute(&without).iter().all(|count| *count == 0));
    // One link: its spans are apart.
    for rank in 0..2 {
        let row = |event: &&Event| event.rank == rank && event.row == "exchange (background)";
        let mut spans: Vec<&Event> = with.iter().filter(row).collect();
        spans.sort_by(|a, b| a.begin.total_cmp(&b.begin));
        assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].begin + 0.002));
        assert!(spans.iter().any(|span| span.name == "new parameters 0"));
    }
}

#[test]
fn a_stopped_run_is_traced_and_a_place_that_cannot_be_written_is_refused_at_once() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 100000000\nlog_every_steps = 5\neval_every_epochs = 0\ncheckpoint_every_epochs = 0";
    let config = site.configure("traced", "rule = \"bp\"", more);
    let outcome = site.run(2, &["train", &config, "--out", "run", "--trace", "nowhere/trace.json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("--trace nowhere/trace.json cannot be written"), "{outcome:?}");
    assert!(!site.path("run").exists());
    refused(&site.run(1, &["train", &config, "--out", "run", "--trace", &config]), 2, &["is a file that holds no trace; name another"]);
    assert!(!site.path("run").exists() && std::fs::read_to_string(site.path(&config)).unwrap().contains("max_steps"));

    let job = site.start(2, &["train", &config, "--out", "other", "--trace", "trace.json"]);
    crate::site::wait_for("a line of metrics", || crate::site::lines(&site.path("other/metrics.jsonl")) > 2);
    job.signal(libc::SIGUSR1);
    assert_eq!(job.wait().code, Some(75));
    let trace: Value = serde_json::from_slice(&std::fs::read(site.path("trace.json")).unwrap()).unwrap();
    let spans = events(&trace);
    assert!((0..2).all(|rank| spans.iter().any(|event| event.rank == rank)) && !site.path("trace.json.partial").exists());
}

/// On one rank: two would wait for each other at each of so many steps, for minutes where the machine is busy.
#[test]
fn a_trace_keeps_the_latest_spans() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 12000\nlog_every_steps = 4000\neval_every_epochs = 0\ncheckpoint_every_epochs = 0";
    let config = site.configure("traced", "rule = \"bp\"", more);
    site.succeed(1, &["train", &config, "--out", "run", "--trace", "trace.json"]);
    let trace: Value = serde_json::from_slice(&std::fs::read(site.path("trace.json")).unwrap()).unwrap();
    let spans = events(&trace);
    assert_eq!(spans.len(), 65_536);
    assert!(spans.iter().any(|event| event.step == 11_999) && spans.iter().all(|event| event.step > 0));
    let name = &trace["traceEvents"][0]["args"]["name"];
    assert!(name.as_str().unwrap().contains("without the first"), "{name}");
}
