//! Every configuration that comes with the project trains: two steps each, an epoch apart, so that alternating ones do both of their kinds.

use std::path::Path;

use crate::site::{Site, write_samples};

/// Images of the data set that `name` is for, and the crop that makes the largest networks small.
fn cut(name: &str) -> (&'static str, Option<usize>) {
    let (data, network) = name.split_once('_').unwrap();
    let small = (!network.starts_with("fc") && !network.starts_with("autoencoder")).then_some(12);
    match data {
        "mnist" | "fashion" => ("gray", small),
        "cifar" => ("color", small),
        "imagenet" => ("color", Some(32)),
        other => panic!("configs/{name}.toml: data set {other}?"),
    }
}

#[test]
fn every_configuration_trains_two_steps() {
    let site = Site::new();
    for (folder, shape) in [("gray", [28, 28, 1]), ("color", [32, 32, 3])] {
        let size = shape.iter().product::<usize>();
        let image = |number: usize| (0..size).map(|at| ((at * (number + 3) * 7919) >> 3) as u8).collect::<Vec<u8>>();
        write_samples(&site.path(folder), shape, 10, &(0..4).map(|number| (2 * number, image(number))).collect::<Vec<_>>());
    }
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut trained = 0;
    for path in std::fs::read_dir(configs).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (data, crop) = cut(&name);
        let mut set = vec![format!("data.train={data}"), format!("data.test={data}"), "data.batch_size=4".to_owned()];
        set.extend(["training.max_steps=2", "training.log_every_steps=1", "training.eval_every_epochs=0"].map(str::to_owned));
        set.extend(crop.map(|size| format!("data.crop=[{size},{size}]")));
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        site.succeed(1, &[&["train", path.to_str().unwrap(), "--out", &name], &set[..]].concat());

        let metrics = site.metrics(&name);
        let losses: Vec<f64> = metrics.iter().filter(|line| line["split"] == "train").filter_map(|line| line["loss"].as_f64()).collect();
        // The first loss is that of random weights: about chance's, ln 10 of classes. (Alternating, the first step may be the inverses'.)
        let chance = name.contains("autoencoder") || (1.0..6.0).contains(&losses[0]);
        assert!(losses.iter().all(|loss| loss.is_finite()) && chance, "{name}: {metrics:?}");
        let models: Vec<_> = site.checkpoints(&name).into_iter().filter(|(file, _)| file.ends_with("model.safetensors")).collect();
        assert!(models.len() > 1 && models[0].1 != models[models.len() - 1].1, "{name}: parameters have not moved");
        // All together they would be gigabytes.
        std::fs::remove_dir_all(site.path(&name)).unwrap();
        trained += 1;
    }
    assert!(trained > 50, "{trained} configurations");
}
