//! What a data set is and holds, for people and for programs.

use std::fmt::Write;

use biodist_process::quote::plain;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use shards::dataset::Dataset;
use shards::format::Encoding;

use super::number;

/// Classes that are listed by name.
const LISTED: usize = 20;

/// Everything as one JSON object.
pub fn json(dataset: &Dataset) -> Value {
    let manifest = dataset.manifest();
    json!({
        "folder": dataset.folder().to_string_lossy(),
        "samples": manifest.samples,
        "classes": manifest.classes,
        "class_names": manifest.class_names,
        "samples_per_class": samples_per_class(dataset),
        "channels": manifest.channels,
        "shape": manifest.shape,
        "encoding": manifest.encoding,
        "statistics": manifest.statistics,
        "shards": manifest.shards.len(),
        "bytes": dataset.bytes(),
        "version": manifest.version,
        "made_by": manifest.made_by,
    })
}

/// The lines of `data-prep info`.
pub fn describe(dataset: &Dataset) -> String {
    let manifest = dataset.manifest();
    let shape = match manifest.shape {
        Some([height, width, channels]) => format!("{height} x {width} x {channels}"),
        None => format!("frames differ, {} channels", manifest.channels),
    };
    let encoding = match manifest.encoding {
        Encoding::Raw => "raw pixels",
        Encoding::Jpeg => "JPEG",
    };
    let mut text = format!(
        "{}\n  samples   {} ({shape}, {encoding})\n  shards    {} ({})\n  classes   {}\n",
        dataset.folder().display(),
        HumanCount(manifest.samples),
        manifest.shards.len(),
        HumanBytes(dataset.bytes()),
        manifest.classes
    );
    for (name, count) in manifest.class_names.iter().zip(samples_per_class(dataset)).take(LISTED) {
        let _ = writeln!(text, "            {:>9}  {}", HumanCount(count).to_string(), plain(name));
    }
    if manifest.class_names.len() > LISTED {
        let _ = writeln!(text, "            ... and {} more (all with --json)", manifest.class_names.len() - LISTED);
    }
    let made = |key: &str| plain(manifest.made_by[key].as_str().unwrap_or("?"));
    let _ = writeln!(text, "  made by   {} {}", made("program"), made("command"));
    if let Some(note) = manifest.note() {
        let _ = writeln!(text, "  note      {}", plain(note));
    }
    if let Some(unreadable) = manifest.made_by["unreadable"].as_u64() {
        let _ = writeln!(text, "  left out  {}, listed in unreadable.txt", number(unreadable, "unreadable photo"));
    }
    text
}

/// The numbers of `data-prep stats`.
pub fn statistics(dataset: &Dataset) -> Value {
    let counts = samples_per_class(dataset);
    let frames = dataset.shards().iter().flat_map(|shard| shard.frames());
    let (mut least, mut most, mut pixels) = ([u32::MAX; 2], [0; 2], 0u64);
    for (height, width) in frames {
        least = [least[0].min(height), least[1].min(width)];
        most = [most[0].max(height), most[1].max(width)];
        pixels += u64::from(height) * u64::from(width);
    }
    json!({
        "folder": dataset.folder().to_string_lossy(),
        "samples": dataset.len(),
        "mean": dataset.statistics().mean,
        "deviation": dataset.statistics().deviation,
        "smallest_height_width": least,
        "largest_height_width": most,
        "mean_pixels": pixels as f64 / dataset.len() as f64,
        "samples_per_class": counts,
        "fewest_in_a_class": counts.iter().min(),
        "most_in_a_class": counts.iter().max(),
    })
}

/// The lines of `data-prep stats`.
pub fn describe_statistics(dataset: &Dataset) -> String {
    let numbers = statistics(dataset);
    let statistics = dataset.statistics();
    let mut text = format!("{}\n  per channel of x / 255: mean and population deviation\n", dataset.folder().display());
    for (channel, (mean, deviation)) in statistics.mean.iter().zip(&statistics.deviation).enumerate() {
        let _ = writeln!(text, "    {channel:>2}  {mean:.6}  {deviation:.6}");
    }
    let pair = |key: &str| format!("{} x {}", numbers[key][0], numbers[key][1]);
    let _ = writeln!(text, "  height x width: from {} to {}", pair("smallest_height_width"), pair("largest_height_width"));
    let mean = dataset.len() as f64 / dataset.classes() as f64;
    let (fewest, most) = (&numbers["fewest_in_a_class"], &numbers["most_in_a_class"]);
    let _ = writeln!(text, "  samples per class: {fewest} to {most}, mean {mean:.1}");
    text
}

fn samples_per_class(dataset: &Dataset) -> Vec<u64> {
    let mut counts = vec![0; dataset.classes()];
    dataset.shards().iter().flat_map(|shard| shard.labels()).for_each(|&label| counts[label as usize] += 1);
    counts
}
