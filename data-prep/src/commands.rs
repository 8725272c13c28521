//! What each subcommand does and prints: one function for each, errors as exit codes.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use biodist_process::exit::Exit;
use biodist_process::quote::{self, lines};
use data_prep::inspect::{info, number, parts, show, verify};
use data_prep::photo::Treatment;
use data_prep::prepare::{Made, arrays, cifar, fetch, folder, idx, imagenet, npy, photos};
use serde_json::Value;
use shards::augment::Augmentation;
use shards::format::Encoding;
use shards::{Dataset, Manifest};

use crate::arguments::{
    Arguments, Cifar10, Cifar100, Command, Fetch, Folder, Idx, Imagenet, Inspect, Labels, Layout, Npy, Out, Published, SHARD_MIB, Show,
    Store, Storing, Verify,
};

/// Runs the command line and gives the exit code: 0 done, 1 failed, 2 wrong usage.
pub fn run(arguments: Arguments) -> ExitCode {
    shards::install_fault_handler("data-prep");
    biodist_process::signals::survive_limit_on_files();
    let log = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(log).format(|line, record| writeln!(line, "warning: {}", lines(&record.args().to_string()))).init();
    let result = match arguments.command {
        Command::Fetch(arguments) => fetch(arguments),
        Command::Idx(arguments) => idx(arguments),
        Command::Npy(arguments) => npy(arguments),
        Command::Cifar10(Cifar10 { batches, out }) => cifar(cifar::Set::Ten, batches, out),
        Command::Cifar100(arguments) => cifar100(arguments),
        Command::Folder(arguments) => folder(arguments),
        Command::Imagenet(arguments) => imagenet(arguments),
        Command::Info(arguments) => inspect(&arguments, info::json, info::describe),
        Command::Stats(arguments) => inspect(&arguments, info::statistics, info::describe_statistics),
        Command::Verify(arguments) => verify(&arguments),
        Command::Show(arguments) => show(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where even stderr is closed.
            let _ = writeln!(std::io::stderr(), "{}", lines(&format!("data-prep: {error:#}")));
            ExitCode::from(Exit::of(&error) as u8)
        }
    }
}

fn idx(arguments: Idx) -> Result<()> {
    let Idx { images, labels, classes, out } = arguments;
    done(idx::run(&idx::Options { images, labels, out: out.out, classes, shard_mib: out.shard_mib }))
}

fn fetch(arguments: Fetch) -> Result<()> {
    let Fetch { set, out, from } = arguments;
    let mut set = match set {
        Published::Mnist => fetch::Set::mnist(),
        Published::Fashion => fetch::Set::fashion(),
    };
    if let Some(mirror) = from {
        set.mirrors = vec![mirror.trim_end_matches('/').to_owned()];
    }
    let out = out.unwrap_or_else(|| Path::new("data").join(set.name));
    done(fetch::run(&fetch::Options { set, out, shard_mib: SHARD_MIB, patience: fetch::PATIENCE }))
}

fn npy(arguments: Npy) -> Result<()> {
    let Npy { images, labels, classes, layout, out } = arguments;
    let layout = layout.map(|layout| match layout {
        Layout::Hwc => arrays::Layout::Pixels,
        Layout::Chw => arrays::Layout::Planes,
    });
    done(npy::run(&npy::Options { images, labels, out: out.out, classes, layout, shard_mib: out.shard_mib }))
}

fn cifar100(arguments: Cifar100) -> Result<()> {
    let set = match arguments.labels {
        Labels::Fine => cifar::Set::Fine,
        Labels::Coarse => cifar::Set::Coarse,
    };
    cifar(set, arguments.batches, arguments.out)
}

fn cifar(set: cifar::Set, batches: PathBuf, out: Out) -> Result<()> {
    done(cifar::run(&cifar::Options { set, batches, out: out.out, shard_mib: out.shard_mib }))
}

fn folder(arguments: Folder) -> Result<()> {
    let storing = storing(&arguments.storing, arguments.size, arguments.out.shard_mib);
    let out = arguments.out.out;
    let Folder { images, shuffle_seed, note, .. } = arguments;
    done(folder::run(&folder::Options { images, out, storing, shuffle_seed, note }))
}

fn imagenet(arguments: Imagenet) -> Result<()> {
    let storing = storing(&arguments.storing, Some(arguments.size), arguments.out.shard_mib);
    let Imagenet { train, val, devkit, seed, out, .. } = arguments;
    done(imagenet::run(&imagenet::Options { train, val, devkit, out: out.out, storing, seed }))
}

/// Says of a preparation for which the disk, or the longest file that is allowed, was too small that it is not lost.
fn going_on(result: Result<Made>) -> Result<Made> {
    result.map_err(|error| {
        let remedy = error.chain().find_map(|cause| match cause.downcast_ref::<std::io::Error>()?.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("free some space"),
            ErrorKind::FileTooLarge => Some("raise `ulimit -f`"),
            _ => None,
        });
        match remedy {
            Some(remedy) => anyhow::anyhow!("{error:#}; {remedy} and run the same command again, it goes on"),
            None => error,
        }
    })
}

fn storing(arguments: &Storing, size: Option<u32>, shard_mib: u32) -> photos::Options {
    let encoding = match arguments.store {
        Store::Raw => Encoding::Raw,
        Store::Jpeg => Encoding::Jpeg,
    };
    let treatment = Treatment {
        size,
        square: size.is_some() && !arguments.full_frame,
        encoding,
        quality: arguments.quality,
        exif_orientation: arguments.exif_orientation,
    };
    photos::Options { treatment, shard_mib, threads: arguments.threads, strict: arguments.strict }
}

fn inspect(arguments: &Inspect, json: fn(&Dataset) -> Value, describe: fn(&Dataset) -> String) -> Result<()> {
    let datasets = parts(&arguments.folder).iter().map(|part| Dataset::open(part)).collect::<Result<Vec<_>>>()?;
    if !arguments.json {
        return datasets.iter().try_for_each(|dataset| say(describe(dataset).trim_end()));
    }
    if let [dataset] = &datasets[..] {
        return say_json(&json(dataset));
    }
    let name = |dataset: &Dataset| dataset.folder().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let all: serde_json::Map<String, Value> = datasets.iter().map(|dataset| (name(dataset), json(dataset))).collect();
    say_json(&all.into())
}

fn verify(arguments: &Verify) -> Result<()> {
    for part in parts(&arguments.folder) {
        let dataset = verify::verify(&part, arguments.threads)?;
        say(&format!(
            "{}: {} in {}, all intact",
            part.display(),
            number(dataset.len() as u64, "sample"),
            number(dataset.shards().len() as u64, "shard")
        ))?;
    }
    Ok(())
}

fn show(arguments: Show) -> Result<()> {
    let asked = |name: &str| arguments.augment.iter().any(|augmentation| augmentation == name);
    let augmentation = Augmentation {
        crop: arguments.crop.first_chunk().copied(),
        padding: arguments.crop_padding,
        horizontal_flip: asked("horizontal_flip"),
        vertical_flip: asked("vertical_flip"),
        random_crop: asked("random_crop"),
        random_resized_crop: asked("random_resized_crop"),
    };
    let options = show::Options {
        folder: arguments.folder,
        indices: arguments.indices,
        count: arguments.count,
        out: arguments.out.clone(),
        seed: arguments.seed,
        epoch: arguments.epoch,
        augmentation: (augmentation != Augmentation::default()).then_some(augmentation),
    };
    let shown = show::show(&options)?;
    say(&format!("{}: {}", arguments.out.display(), number(shown.len() as u64, "sample")))
}

/// Tells what was made, or was there.
fn done(made: Result<Made>) -> Result<()> {
    let made = going_on(made)?;
    let before = if made.before { ": complete, made before" } else { "" };
    made.parts.iter().try_for_each(|(folder, manifest)| say(&format!("{}{before}", summary(folder, manifest))))
}

fn summary(folder: &Path, manifest: &Manifest) -> String {
    let shape = manifest.shape.map_or("differing frames".to_owned(), |[h, w, c]| format!("{h} x {w} x {c}"));
    let (samples, classes) = (number(manifest.samples, "sample"), number(manifest.classes.into(), "class"));
    format!("{}: {samples} of {shape}, {classes}", folder.display())
}

fn say_json(value: &Value) -> Result<()> {
    print(&quote::json(&value.to_string()))
}

fn say(text: &str) -> Result<()> {
    print(&lines(text))
}

/// Prints to stdout; a reader that went away is no error.
fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
