//! Replicas that differ: one rank's parameters are changed from outside, in its memory, as a faulty module would.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use crate::site::{Site, wait_for};

/// Replaces `pattern` by `other` wherever it is in the process's own memory; returns how often. None where that is not allowed.
fn overwrite(process: i32, pattern: &[u8], other: &[u8]) -> Option<usize> {
    let memory = match OpenOptions::new().read(true).write(true).open(format!("/proc/{process}/mem")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
        memory => memory.unwrap(),
    };
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut found = 0;
    for map in maps.lines() {
        let words: Vec<&str> = map.split_whitespace().collect();
        if words[1] != "rw-p" || words.len() > 5 && words[5].starts_with("[stack") {
            continue;
        }
        let (start, end) = words[0].split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; (end - start) as usize];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        // Parameters lie at multiples of 64 bytes.
        for at in (0..bytes.len().saturating_sub(pattern.len())).step_by(64).filter(|at| bytes[*at..].starts_with(pattern)) {
            memory.write_all_at(other, start + at as u64).unwrap();
            found += 1;
        }
    }
    Some(found)
}

#[test]
fn the_rank_whose_parameters_changed_is_named() {
    let site = Site::new();
    // What is trained is overwritten by its owner's at every step; the fixed feedback weights stay as they are.
    let more = "[training]\nmax_steps = 100000000\nlog_every_steps = 1000\neval_every_epochs = 0\ncheckpoint_every_epochs = 0\n\
                [parallel]\nexchange = \"gradients\"\nverify_every_steps = 10";
    let config = site.configure("apart", "rule = \"fa\"", more);
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("batch_size = 16", "batch_size = 15")).unwrap();
    let job = site.start(3, &["train", &config, "--out", "run"]);
    wait_for("a line of metrics", || crate::site::lines(&site.path("run/metrics.jsonl")) > 0);

    let bytes = std::fs::read(site.path("run/checkpoints/00000000/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // Of one output, what goes to the first sixteen inputs: side by side in memory too.
    let pattern = &tensors.tensor("layers.1.feedback.weight").unwrap().data()[..64];
    let mut other = pattern.to_vec();
    other[0] ^= 1;
    let Some(found) = overwrite(job.ranks()[2], pattern, &other) else {
        eprintln!("skipped: no process may write to another's memory here");
        return;
    };
    assert!(found > 0, "the parameters are in memory");

    let outcome = job.wait();
    assert_eq!(outcome.code, Some(76), "{outcome:?}");
    assert!(outcome.stderr.contains("replicas differ after step ") && outcome.stderr.contains("rank 2 (on "), "{outcome:?}");
    assert!(outcome.stderr.contains("has other parameters than the rest"), "{outcome:?}");
}
