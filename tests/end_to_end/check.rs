//! `check` says of a configuration what `train` would: the same questions have the same answers.

use std::path::Path;

use shards::format::Encoding;
use shards::{DatasetWriter, Description, PixelSums};

use crate::site::{Site, write_images};

/// Both answers to `set` on `ranks` ranks, which must be the same; whether they accept it.
fn accepted(site: &Site, ranks: usize, sets: &[&str]) -> bool {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let out = ["--out", "run", "--set", "training.max_steps=1", "--set", "training.eval_every_epochs=0"];
    let trained = site.run(ranks, &[&["train", "short.toml"], &out[..], &sets].concat());
    let checked = site.run(1, &[&["check", "short.toml", "--ranks", &ranks.to_string()], &out[2..], &sets].concat());
    let _ = std::fs::remove_dir_all(site.path("run"));
    // Not what ranks say of each other's end, nor warnings, which are for what is typed in vain.
    let said = |text: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with("biodist: ") && !line.starts_with("biodist: warn: "));
        lines.next().map(str::to_owned)
    };
    assert_eq!((trained.code, said(&trained.stderr)), (checked.code, said(&checked.stderr)), "{sets:?}: {trained:?}\n{checked:?}");
    assert!(matches!(checked.code, Some(0..=2)), "{checked:?}");
    checked.code == Some(0)
}

/// Ten gray images of 6 x 6 with these classes.
fn write_classes(folder: &Path, classes: &[&str]) {
    let class_names = classes.iter().map(|name| name.to_string()).collect();
    let description = Description { channels: 1, class_names, encoding: Encoding::Raw, made_by: "a test".into() };
    let writer = DatasetWriter::begin(folder, description).unwrap();
    let mut shard = writer.shard(0).unwrap();
    for number in 0..10u8 {
        let pixels = [number; 36];
        shard.add(&pixels, (6, 6), u32::from(number) % classes.len() as u32, &PixelSums::of(&pixels, 1)).unwrap();
    }
    writer.finish(vec![shard.finish().unwrap()]).unwrap();
}

#[test]
fn what_training_refuses_is_refused_in_the_same_words() {
    let site = Site::new();
    site.configure("short", "rule = \"bp\"", "");
    write_images(&site.path("twelve"), 40, 12);
    write_classes(&site.path("named"), &["ant", "bee"]);
    let crops: [(&[&str], bool); 9] = [
        (&["data.crop=[6, 6]"], true),
        (&["data.crop=[7, 6]"], false),
        // Padding is for random crops alone.
        (&["data.crop=[8, 8]", "data.crop_padding=1"], false),
        (&["data.crop=[8, 8]", "data.crop_padding=1", "data.augment=[\"horizontal_flip\"]"], false),
        (&["data.crop=[8, 8]", "data.crop_padding=1", "data.augment=[\"random_crop\"]"], true),
        (&["data.crop=[9, 8]", "data.crop_padding=1", "data.augment=[\"random_crop\"]"], false),
        (&["data.crop=[9, 9]", "data.augment=[\"random_resized_crop\"]"], false),
        (&["data.augment=[\"random_crop\"]"], false),
        (&["data.crop=[4, 4]", "data.augment=[\"random_crop\", \"random_resized_crop\"]"], false),
    ];
    let others: [(&[&str], bool); 9] = [
        (&["data.validation=184"], true),
        (&["data.validation=185"], false),
        (&["data.validation=200"], false),
        (&["data.batch_size=181"], false),
        (&["data.test=\"twelve\""], false),
        (&["data.test=\"twelve\"", "network.output=\"linear\""], false),
        (&["data.test=\"named\""], false),
        (&["data.train=\"nowhere\""], false),
        (&["parallel.kernels=\"libtorch\"", "training.diagnostics=true"], false),
    ];
    for (sets, expected) in crops.iter().chain(&others) {
        assert_eq!(accepted(&site, 1, sets), *expected, "{sets:?}");
    }
    assert!(accepted(&site, 2, &[]) && !accepted(&site, 2, &["data.batch_size=15"]));
    // An altered pixel.
    let shard = site.path("train/00000.shard");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[70] ^= 4;
    std::fs::write(&shard, bytes).unwrap();
    assert!(!accepted(&site, 1, &[]));
}

#[test]
fn what_this_machine_cannot_hold_is_said() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 1");
    let huge = ["--set", "network.layers=[{kind=\"dense\",units=1000000000}]"];
    let said = site.succeed(1, &[&["check", &config], &huge[..]].concat());
    assert!(said.stdout.contains(" of this machine, on which training with all ranks is refused"), "{said:?}");
    let refused = site.run(1, &[&["train", &config, "--out", "run"], &huge[..]].concat());
    assert!(refused.code == Some(2) && refused.stderr.contains("GB of memory"), "{refused:?}");
    let small = site.succeed(1, &["check", &config]);
    assert!(!small.stdout.contains("of this machine"), "{small:?}");
}

#[test]
fn an_image_that_the_crop_contradicts_is_refused() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 1");
    let check = |crop: &str, input: &str| {
        site.run(1, &["check", &config, "--set", &format!("data.crop={crop}"), "--input", input, "--classes", "10"])
    };
    let refused = check("[5, 4]", "6x6x1");
    assert!(refused.code == Some(2) && refused.stderr.contains("use --input 5x4x1, or --set 'data.crop=[6,6]'"), "{refused:?}");
    assert_eq!([check("[5, 4]", "5x4x1").code, check("[6,6]", "6x6x1").code], [Some(0); 2]);
}
