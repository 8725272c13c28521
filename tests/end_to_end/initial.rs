//! `learning.initial`: a run begins with parameters of a file.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::site::Site;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

const SHORT: &str = "[training]\nmax_steps = 4";

fn parameters(site: &Site, run: &str, step: u64) -> Tensors {
    let bytes = std::fs::read(site.path(&format!("{run}/checkpoints/{step:08}/model.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    tensors.iter().map(|(name, tensor)| (name.to_owned(), (tensor.shape().to_vec(), values(tensor.data())))).collect()
}

fn write(site: &Site, file: &str, tensors: &Tensors) {
    let bytes: BTreeMap<&String, Vec<u8>> =
        tensors.iter().map(|(name, (_, values))| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect())).collect();
    let view = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<f32>))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap())
    };
    std::fs::write(site.path(file), serialize(tensors.iter().map(view), None).unwrap()).unwrap();
}

/// The parameters of seed 7 in a run of seed 0: all of them, on any number of ranks, or some, and the others as seed 0 draws them.
#[test]
fn a_run_begins_with_what_the_file_holds() {
    let site = Site::new();
    let config = site.configure("net", "rule = \"sdtp\"\nsigma = 0.1", SHORT);
    site.succeed(1, &["train", &config, "--out", "zero"]);
    site.succeed(1, &["train", &config, "--out", "seven", "--set", "experiment.seed=7"]);
    let (zero, seven) = (parameters(&site, "zero", 0), parameters(&site, "seven", 0));
    write(&site, "all.safetensors", &seven);
    for (run, ranks) in [("all", 1), ("all-on-two", 2)] {
        site.succeed(ranks, &["train", &config, "--out", run, "--set", "learning.initial=all.safetensors"]);
    }
    assert!(parameters(&site, "all", 0) == seven && parameters(&site, "all", 4) != parameters(&site, "seven", 4));
    site.assert_same("all", "all-on-two");

    let some: Tensors =
        seven.clone().into_iter().filter(|(name, _)| ["layers.1.weight", "layers.2.bias"].contains(&name.as_str())).collect();
    write(&site, "some.safetensors", &some);
    site.succeed(1, &["train", &config, "--out", "some", "--set", "learning.initial=some.safetensors"]);
    let expected: Tensors = zero.into_iter().chain(some.clone()).collect();
    assert!(parameters(&site, "some", 0) == expected);

    // What is transposed is of the given weights, unless it is given too.
    let transposed = ["--set", "learning.inverse_weights=transposed", "--set", "learning.initial=some.safetensors"];
    site.succeed(1, &[&["train", &config, "--out", "transposed"][..], &transposed].concat());
    let begun = parameters(&site, "transposed", 0);
    let ((shape, weight), (_, inverse)) = (&some["layers.1.weight"], &begun["layers.1.inverse.weight"]);
    assert!((0..weight.len()).all(|at| weight[at] == inverse[at % shape[1] * shape[0] + at / shape[1]]));
    write(&site, "some.safetensors", &seven);
    site.succeed(1, &[&["train", &config, "--out", "both"][..], &transposed].concat());
    assert!(parameters(&site, "both", 0) == seven);
}

#[test]
fn other_files_are_refused_by_name() {
    let site = Site::new();
    let config = site.configure("net", "rule = \"bp\"", SHORT);
    let named = |name: &str, shape: &[usize], value: f32| -> Tensors {
        [(name.to_owned(), (shape.to_vec(), vec![value; shape.iter().product()]))].into()
    };
    write(&site, "name.safetensors", &named("layers.9.weight", &[2], 0.0));
    write(&site, "shape.safetensors", &named("layers.0.bias", &[23], 0.0));
    write(&site, "infinite.safetensors", &named("layers.0.bias", &[24], f32::INFINITY));
    write(&site, "empty.safetensors", &Tensors::new());
    std::fs::write(site.path("text.safetensors"), "some text that is no tensor").unwrap();
    for (file, words) in [
        ("name", "it has layers.9.weight, which this one has not; this network has layers.0.weight, layers.0.bias, layers.1.weight"),
        ("shape", "layers.0.bias is F32 [23] there, and F32 [24] in this one"),
        ("infinite", "layers.0.bias of"),
        ("empty", "holds no parameters; this network has layers.0.weight"),
        ("text", "is no safetensors file"),
        ("none", "cannot be read: No such file"),
    ] {
        let set = format!("learning.initial={file}.safetensors");
        for command in [&["train", config.as_str(), "--out", "run"][..], &["check", config.as_str()]] {
            let outcome = site.run(1, &[command, &["--set", &set]].concat());
            let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
            assert!(outcome.code == Some(2) && said.len() == 1, "{file}: {outcome:?}");
            assert!(said[0].contains("biodist: learning.initial: ") && said[0].contains(words), "{file}: {outcome:?}");
            assert!(said[0].contains(&format!("{file}.safetensors")), "{file}: {outcome:?}");
        }
        assert!(!site.path("run").exists(), "nothing was begun");
    }
}

/// By what the file holds: for ranks, whose paths may differ, and for a run that goes on, where the file may be gone.
#[test]
fn the_content_is_the_runs() {
    let site = Site::new();
    let config = site.configure("net", "rule = \"bp\"", SHORT);
    site.succeed(1, &["train", &config, "--out", "seed"]);
    let mut tensors = parameters(&site, "seed", 4);
    write(&site, "a.safetensors", &tensors);
    write(&site, "copy.safetensors", &tensors);
    tensors.get_mut("layers.0.bias").unwrap().1[0] += 1.0;
    write(&site, "b.safetensors", &tensors);
    let train =
        |file: &str| ["train", &config, "--out", "run", "--set", &format!("learning.initial={file}.safetensors")].map(str::to_owned);
    let each = |files: [&str; 2]| {
        let lines = files.map(train);
        let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.iter().map(String::as_str).collect()).collect();
        site.run_each(&[&lines[0], &lines[1]])
    };
    let apart = each(["a", "b"]);
    assert!(apart.code == Some(2) && apart.stderr.contains("the content of learning.initial (checksum of its parameters)"), "{apart:?}");
    assert!(!site.path("run").exists(), "nothing was begun");
    let alike = each(["a", "copy"]);
    assert_eq!(alike.code, Some(0), "{alike:?}");

    let on = |set: &[&str]| site.run(1, &[&["train", &config, "--out", "run", "--resume", "--set", "training.max_steps=8"], set].concat());
    let file = |name: &str| format!("learning.initial={name}.safetensors");
    for (set, words) in [(&["--set", &file("b")][..], "and is "), (&[], "and is absent")] {
        let outcome = on(set);
        assert!(outcome.code == Some(2) && outcome.stderr.contains("learning.initial (by the checksum") && outcome.stderr.contains(words));
    }
    std::fs::remove_file(site.path("a.safetensors")).unwrap();
    assert_eq!(on(&["--set", &file("copy")]).code, Some(0));
    site.succeed(1, &["train", "run/config.toml", "--resume", "--set", "training.max_steps=9", "--set", &file("a")]);
    let again = site.run(1, &["train", &config, "--out", "seed", "--resume", "--set", "training.max_steps=8", "--set", &file("copy")]);
    assert!(again.code == Some(2) && again.stderr.contains("was absent when the run began"), "{again:?}");
    site.succeed(1, &["eval", "run"]);
}
