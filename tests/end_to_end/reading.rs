//! The program in docs/reading_runs.md does what the page says, on a run; and what a command has to say does not get lost.

use std::process::Command;

use safetensors::SafeTensors;

use crate::site::{Site, refused};

#[test]
fn the_pages_program_reads_metrics_and_parameters() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"sdtp\"\nsigma = 0.1", "[training]\nepochs = 2");
    site.succeed(1, &["train", &config, "--out", "run"]);
    let page = include_str!("../../docs/reading_runs.md");
    let program = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let output = Command::new("python3").args(["-c", program]).arg(site.path("run")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();

    let metrics = site.metrics("run");
    for split in ["train", "validation", "test"] {
        let last = metrics.iter().rfind(|line| line["split"] == split).unwrap();
        assert!(printed.contains(&format!("{split} {} {}\n", last["loss"], last["top1_error"])), "{printed}");
    }
    let file = std::fs::read(site.path("run/checkpoints/00000022/model.safetensors")).unwrap();
    let parameters = SafeTensors::deserialize(&file).unwrap();
    assert!(parameters.names().contains(&"layers.1.inverse.weight"));
    assert_eq!(printed.lines().count(), 3 + parameters.len());
    for (name, tensor) in parameters.iter() {
        let start = format!("{name} {:?} mean ", tensor.shape());
        let line = printed.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start:?} in {printed}"));
        let values = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        let mean = values.sum::<f64>() / (tensor.data().len() / 4) as f64;
        assert!((line[start.len()..].parse::<f64>().unwrap() - mean).abs() < 1e-12, "{line}");
    }
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 2");
    site.succeed(1, &["train", &config, "--out", "run"]);
    for command in [&["eval", "run"][..], &["eval", "run", "--json"], &["check", &config], &["keys"], &["report", "run", "--out", "report"]]
    {
        let script = "exec \"$@\" > /dev/full";
        let program = [&["-c", script, "sh", env!("CARGO_BIN_EXE_biodist")], command].concat();
        let outcome = site.run_of(std::path::Path::new("sh"), 1, &program);
        refused(&outcome, 1, &["the standard output cannot be written: No space left on device"]);
    }
}
