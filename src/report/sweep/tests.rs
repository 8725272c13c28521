use super::*;
use crate::training::RUN;

fn sweep(lines: &str) -> Result<Sweep> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(results::FILE_NAME), lines).unwrap();
    Sweep::read(folder.path())
}

#[test]
fn trials_are_ranked_by_validation() {
    let sweep = sweep(
        r#"{"trial":0,"values":{"learning.sigma":0.1,"optimizer.forward.beta1":0.9},"validation_error":0.5,"test_error":0.1,"epochs":3,"status":"done"}
{"trial":2,"values":{"learning.sigma":0.3},"validation_error":0.2,"epochs":1,"status":"diverged"}
{"trial":1,"values":{"learning.sigma":0.2,"optimizer.forward.beta1":0.9},"validation_error":0.25,"test_error":0.3,"epochs":3,"status":"done"}
"#,
    )
    .unwrap();
    // By the images set apart, of the trials that have a result.
    assert_eq!(sweep.accuracies(), [50.0, 75.0]);
    let table = table(1, &sweep);
    let Row::Cells(best) = &table.rows[0] else { panic!("{table:?}") };
    assert_eq!(best, &["1", "done", "25.00", "30.00", "3", "0.2"]);
    assert_eq!(table.rows.len(), 2);
    assert_eq!(lengths(&[&sweep]), "3 epochs");
}

#[test]
fn of_equal_errors_the_loss_decides_then_the_number() {
    let line = |trial: usize, error: f64, loss: f64| {
        format!(
            "{{\"trial\":{trial},\"values\":{{}},\"validation_error\":{error},\"validation_loss\":{loss},\"epochs\":3,\"status\":\"done\"}}\n"
        )
    };
    let lines = [line(3, 0.25, 0.5), line(0, 0.25, 0.75), line(2, 0.25, 0.5), line(1, 0.125, 9.0)].concat();
    let sweep = sweep(&lines).unwrap();
    assert_eq!(sweep.ranked().iter().map(|trial| trial.trial).collect::<Vec<_>>(), [1, 2, 3, 0]);
}

#[test]
fn one_result_has_an_axis_of_accuracies() {
    for (values, expected) in [
        (vec![97.0], Some((96.5, 97.5))),
        (vec![100.0, 100.0], Some((99.5, 100.0))),
        (vec![0.0], Some((0.0, 0.5))),
        (vec![12.5, 99.0, 50.0], Some((12.5, 99.0))),
        (vec![], None),
    ] {
        assert_eq!(bounds(&values), expected);
        if let Some((low, high)) = expected {
            let (first, last) = Axis::linear("", low, high).range();
            let close = |value: f64| (value * 1e6).round() / 1e6;
            assert!((0.0..=low).contains(&close(first)) && (high..=100.0).contains(&close(last)), "{first} to {last} of {values:?}");
        }
    }
}

#[test]
fn autoencoders_are_ranked_by_loss() {
    let sweep = sweep(
        r#"{"trial":0,"values":{},"validation_loss":5.0,"epochs":3,"status":"done","rungs":[]}
{"trial":1,"values":{},"validation_loss":4.0,"test_loss":4.25,"epochs":3,"status":"done","rungs":[]}
"#,
    )
    .unwrap();
    let Row::Cells(best) = &table(1, &sweep).rows[0] else { panic!() };
    assert_eq!(best, &["1", "done", "4.000", "4.250", "3"]);
    assert!(histogram(1, "", Split::Validation, &[&sweep]).is_none());
}

#[test]
fn the_best_configuration_names_a_search_whose_trials_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(results::FILE_NAME), "{\"trial\":0,\"values\":{},\"epochs\":1,\"status\":\"done\"}\n").unwrap();
    assert_eq!(Sweep::read(folder.path()).unwrap().name(), folder.path().display().to_string());
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let config = Config::load(&configs.join("mnist_fc_sdtp_alternating.toml"), &[]).unwrap();
    std::fs::write(folder.path().join(BEST_CONFIG), config.to_toml()).unwrap();
    assert_eq!(Sweep::read(folder.path()).unwrap().name(), "SDTP, alternating");
}

/// A search in a folder with the configuration of its first trial, in which `set` changes keys.
fn of_values(folder: &Path, set: &[&str], values: &[&str]) -> Sweep {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist_fc_dtp_parallel.toml");
    let set: Vec<String> = set.iter().chain(&["data.train=\"/nowhere/mnist/train\""]).map(|set| set.to_string()).collect();
    let trial = folder.join(TRIALS).join("000");
    std::fs::create_dir_all(&trial).unwrap();
    std::fs::write(trial.join(CONFIG), Config::load(&shipped, &set).unwrap().to_toml()).unwrap();
    let line = |(trial, values): (usize, &&str)| {
        format!("{{\"trial\":{trial},\"values\":{{{values}}},\"validation_error\":0.5,\"epochs\":1,\"status\":\"done\"}}\n")
    };
    std::fs::write(folder.join(results::FILE_NAME), values.iter().enumerate().map(line).collect::<String>()).unwrap();
    Sweep::read(folder).unwrap()
}

#[test]
fn a_title_names_no_value_of_what_is_searched() {
    let rule = |name: &str| format!("\"learning.rule\":\"{name}\"");
    let layers = |units: usize| format!("\"network.layers\":[{{\"kind\":\"dense\",\"units\":{units}}}]");
    let schedule = |name: &str| format!("\"learning.schedule\":\"{name}\"");
    let many = ["bp", "fa", "dfa", "tp", "dtp", "ao_sdtp"].map(rule);
    for (values, title) in [
        (vec![rule("dtp"), rule("ao_sdtp"), rule("dtp")], "AO-SDTP or DTP on MNIST, fully connected"),
        (vec![rule("dtp"), rule("dtp")], "DTP, parallel on MNIST, fully connected"),
        (many.to_vec(), "6 rules on MNIST, fully connected"),
        (vec![layers(64), layers(128)], "DTP, parallel on MNIST, several networks"),
        (vec![schedule("parallel"), schedule("alternating")], "DTP on MNIST, fully connected"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sweep = of_values(folder.path(), &[], &values.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(sweep.title(), title);
    }
}

#[test]
fn a_part_of_an_epoch_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let trial = folder.path().join(TRIALS).join("000");
    let epochs = || {
        let sweep = of_values(folder.path(), &["training.max_steps=50"], &["", ""]);
        (sweep.trials.iter().map(|trial| trial.epochs.0).collect::<Vec<_>>(), lengths(&[&sweep]))
    };
    assert_eq!(epochs(), (vec![1.0, 1.0], "1 epoch".to_owned()), "nothing tells");
    std::fs::write(trial.join(RUN), "{\"steps_per_epoch\":200}").unwrap();
    std::fs::write(trial.join("metrics.jsonl"), "{\"split\":\"validation\",\"step\":50,\"epoch\":1,\"loss\":1}\n").unwrap();
    assert_eq!(epochs(), (vec![0.25, 1.0], "0.25 or 1 epochs".to_owned()));
}

#[test]
fn a_search_that_has_just_begun_has_no_result_yet() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sweep.json"), "{}").unwrap();
    let sweep = Sweep::read(folder.path()).unwrap();
    let blocks = blocks(&[sweep]);
    assert!(matches!(&blocks[..], [Block::Text(text)] if text.contains("no result yet")));
}

#[test]
fn damage_is_named() {
    for (lines, words) in [
        ("{\"trial\":0}\n", "results.jsonl:1 is damaged"),
        ("{\"trial\":0,\"values\":{},\"test_error\":43.5,\"epochs\":1,\"status\":\"done\"}\n", "43.5"),
    ] {
        let error = format!("{:#}", sweep(lines).err().unwrap());
        assert!(error.contains(words) && error.contains(results::FILE_NAME), "{error}");
    }
}
