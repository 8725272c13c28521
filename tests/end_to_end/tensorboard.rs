//! TensorBoard's files say what the metrics say, as a reader sees them that knows the format from its definition.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::site::{Site, lines, wait_for};

/// By tag and step.
type Scalars = BTreeMap<(String, u64), f32>;

const ALTERNATING: &str = "rule = \"sdtp\"\nschedule = \"alternating\"\nsigma = 0.2";

#[test]
fn interrupted_runs_show_every_point_once() {
    let site = Site::new();
    let more = "[training]\nepochs = 4\nlog_every_steps = 4\ncheckpoint_every_steps = 5\nkeep_checkpoints = 100";
    let config = site.configure("turns", ALTERNATING, more);
    // Ends between regular lines, so that the next start cuts a line of training that is older than the checkpoint.
    for (stop, ranks) in [("6", 1), ("17", 2), ("44", 1)] {
        let stop = format!("training.max_steps={stop}");
        site.succeed(ranks, &["train", &config, "--out", "run", "--resume", "--set", &stop]);
        assert_same(&site.path("run"));
    }
    let scalars = shown(&site.path("run"));
    for tag in
        ["loss/train", "loss/inverse_train", "speed/samples_per_second_train", "speed/seconds/load", "error/top5_test", "loss/validation"]
    {
        assert!(scalars.keys().any(|(known, _)| known == tag), "{tag}");
    }

    // Events that were lost are made again from the metrics.
    event_files(&site.path("run")).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    site.succeed(1, &["train", &config, "--out", "run", "--resume", "--set", "training.epochs=5"]);
    assert_same(&site.path("run"));
}

#[test]
fn a_killed_run_shows_what_it_did_once_more() {
    let site = Site::new();
    let more = "[training]\nepochs = 30\nlog_every_steps = 2\ncheckpoint_every_steps = 9";
    let config = site.configure("both", "rule = \"bp\"", more);
    let metrics = site.path("run/metrics.jsonl");
    for _ in 0..2 {
        let job = site.start(1, &["train", &config, "--out", "run", "--resume"]);
        let before = lines(&metrics);
        wait_for("a line of metrics", || lines(&metrics) > before + 5 || !job.runs());
        job.signal(libc::SIGKILL);
        job.wait();
    }
    site.succeed(1, &["train", &config, "--out", "run", "--resume"]);
    assert_same(&site.path("run"));
}

fn assert_same(run: &Path) {
    let (shown, measured) = (shown(run), measured(run));
    // Reading a number from JSON may round it the other way.
    let near = |a: &f32, b: &f32| (a - b).abs() <= f32::EPSILON * a.abs();
    let differs = |key: &&(String, u64)| !shown.get(*key).zip(measured.get(*key)).is_some_and(|(a, b)| near(a, b));
    let differences: Vec<_> =
        shown.keys().chain(measured.keys()).filter(differs).map(|key| (key, shown.get(key), measured.get(key))).collect();
    assert!(differences.is_empty(), "tag and step, shown, measured: {differences:?}");
}

/// TensorBoard sorts by tag: what is looked at first comes first. Runs are compared by what they were trained with.
#[test]
fn errors_come_first_and_runs_tell_their_settings() {
    let site = Site::new();
    let more = "[training]\nepochs = 1\ndiagnostics = true";
    let config = site.configure("seen", "rule = \"dtp\"\nalpha = 0.25\nsigma = 0.2", more);
    site.succeed(1, &["train", &config, "--out", "run"]);
    let mut groups: Vec<String> = shown(&site.path("run")).keys().map(|(tag, _)| tag.split('/').next().unwrap().to_owned()).collect();
    groups.dedup();
    assert_eq!(groups, ["error", "loss", "network", "speed"]);
    assert!(shown(&site.path("run")).keys().any(|(tag, _)| tag == "network/angle_degrees/layers.0"));
    let bytes = std::fs::read(&event_files(&site.path("run"))[0]).unwrap();
    let summary = |event: &[u8]| fields(event).into_iter().find(|(field, _)| *field == 5).map(|(_, value)| value.bytes().to_vec());
    let settings = records(&bytes).into_iter().filter_map(summary).find(|summary| summary.windows(9).any(|part| part == b"_hparams_"));
    let settings = String::from_utf8_lossy(&settings.unwrap()).into_owned();
    for key in ["learning.rule", "learning.alpha", "experiment.seed", "optimizer.forward.learning_rate", "network.layers"] {
        assert!(settings.contains(key), "{key} in {settings}");
    }
    for key in ["parallel.threads_per_rank", "data.train", "training.log_every_steps"] {
        assert!(!settings.contains(key), "{key} in {settings}");
    }
}

/// The numbers of `metrics.jsonl`, by the tags that they are shown under.
fn measured(run: &Path) -> Scalars {
    let mut scalars = Scalars::new();
    for line in std::fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (split, step) = (line["split"].as_str().unwrap(), line["step"].as_u64().unwrap());
        let mut put = |tag: String, value: &Value| {
            if let Some(number) = value.as_f64() {
                scalars.insert((tag, step), number as f32);
            }
        };
        put(format!("loss/{split}"), &line["loss"]);
        put(format!("loss/inverse_{split}"), &line["inverse_loss"]);
        put(format!("error/top1_{split}"), &line["top1_error"]);
        put(format!("error/top5_{split}"), &line["top5_error"]);
        put(format!("speed/samples_per_second_{split}"), &line["samples_per_second"]);
        for part in ["load", "compute", "exchange", "update"] {
            put(format!("speed/seconds/{part}"), &line["seconds"][part]);
        }
    }
    scalars
}

fn event_files(run: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents.")).collect();
    files.sort();
    files
}

/// What TensorBoard shows: files by name, and what lies at or beyond the start of a session dropped there.
fn shown(run: &Path) -> Scalars {
    let mut scalars = Scalars::new();
    for file in event_files(run) {
        let bytes = std::fs::read(&file).unwrap();
        for (index, event) in records(&bytes).into_iter().enumerate() {
            let event = fields(event);
            let step = event.iter().find(|(field, _)| *field == 2).map_or(0, |(_, value)| value.number());
            for (field, value) in &event {
                match (index, field) {
                    (0, 3) => assert_eq!(value.bytes(), b"brain.Event:2"),
                    (_, 7) => {
                        assert_eq!(fields(value.bytes())[0].1.number(), 1, "a start");
                        scalars.retain(|(_, at), _| *at < step);
                    }
                    (_, 5) => {
                        for (_, summary) in fields(value.bytes()) {
                            let summary = fields(summary.bytes());
                            let tag = String::from_utf8(summary[0].1.bytes().to_vec()).unwrap();
                            if tag.starts_with("_hparams_") {
                                continue;
                            }
                            let number = f32::from_bits(summary[1].1.number() as u32);
                            assert!(scalars.insert((tag.clone(), step), number).is_none(), "{tag} at {step} twice");
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    scalars
}

/// The messages of a file of TFRecords, whose checksums are right. A last record that a kill cut is left out.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let mut records = Vec::new();
    while bytes.len() >= 12 {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(word(&bytes[8..]), masked(&bytes[..8]));
        let Some(message) = bytes.get(12..12 + length) else { break };
        let Some(checksum) = bytes.get(12 + length..16 + length) else { break };
        assert_eq!(word(checksum), masked(message));
        records.push(message);
        bytes = &bytes[16 + length..];
    }
    records
}

/// CRC-32C bit by bit, masked as TFRecord asks.
fn masked(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Bytes(bytes) => panic!("{bytes:?} is no number"),
        }
    }

    fn bytes(&self) -> &'a [u8] {
        match self {
            Field::Bytes(bytes) => bytes,
            Field::Number(number) => panic!("{number} is no message"),
        }
    }
}

/// The fields of a message of protocol buffers, by number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(count);
        *bytes = tail;
        head
    }
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = take(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
            5 => Field::Number(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()).into()),
            _ => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length))
            }
        };
        fields.push((key >> 3, field));
    }
    fields
}
