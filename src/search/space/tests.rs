use super::*;
use crate::rules::RuleChoice;

fn numbers(domain: Domain, count: usize) -> Vec<f64> {
    let space = Space { name: "test".into(), domains: vec![("learning.alpha".into(), domain)] };
    (0..count).map(|trial| space.draw(7, trial)[0].1.as_float().unwrap()).collect()
}

/// The largest distance between the distribution of `values` in [0, 1] and the uniform one (Kolmogorov and Smirnov), times the root of
/// their number: above 1.95 for one sample in a thousand.
fn kolmogorov(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let distance =
        values.iter().enumerate().map(|(at, value)| (value - at as f64 / count).abs().max((value - (at + 1) as f64 / count).abs()));
    distance.fold(0.0, f64::max) * count.sqrt()
}

#[test]
fn log_uniform_values_are_uniform_in_their_logarithm() {
    let (low, high) = (1e-5, 3e-4);
    let values = numbers(Domain::LogUniform(low, high), 4000);
    assert!(values.iter().all(|value| (low..=high).contains(value)));
    let logarithms = values.iter().map(|value| (value / low).ln() / (high / low).ln()).collect();
    let statistic = kolmogorov(logarithms);
    assert!(statistic < 1.95, "{statistic}");
    let plain = kolmogorov(values.iter().map(|value| (value - low) / (high - low)).collect());
    assert!(plain > 10.0, "the check tells the two apart: {plain}");
}

#[test]
fn uniform_values_and_choices_are_even() {
    let values = numbers(Domain::Uniform(0.01, 0.2), 4000);
    let statistic = kolmogorov(values.iter().map(|value| (value - 0.01) / 0.19).collect());
    assert!(statistic < 1.95, "{statistic}");
    let values = numbers(Domain::Choice(vec![Value::Float(1e-4), Value::Float(1e-6), Value::Float(1e-8)]), 3000);
    for expected in [1e-4, 1e-6, 1e-8] {
        let count = values.iter().filter(|value| **value == expected).count();
        // Four standard deviations.
        assert!(count.abs_diff(1000) < 104, "{count} of {expected}");
    }
}

#[test]
fn values_depend_on_seed_trial_and_key_alone() {
    let space = Space::named("paper").unwrap();
    for trial in [0, 1, 59] {
        assert_eq!(space.draw(3, trial), space.draw(3, trial));
        assert_ne!(space.draw(3, trial), space.draw(4, trial));
        assert_ne!(space.draw(3, trial), space.draw(3, trial + 1));
    }
    let mut fewer = space.clone();
    fewer.domains.remove(0);
    assert_eq!(fewer.draw(3, 5), space.draw(3, 5)[1..]);
    // No key follows another.
    let draws = space.draw(3, 5);
    let value = |key: &str| draws.iter().find(|(name, _)| name == key).unwrap().1.clone();
    assert_ne!(value("optimizer.forward.learning_rate"), value("optimizer.inverse.learning_rate"));
}

#[test]
fn the_papers_space_is_table_4() {
    let domains = Space::named("paper").unwrap().domains;
    let of = |key: &str| domains.iter().find(|(name, _)| name == key).unwrap().1.clone();
    let floats = |values: &[f64]| Domain::Choice(values.iter().copied().map(Value::Float).collect());
    for model in ["forward", "inverse"] {
        assert_eq!(of(&format!("optimizer.{model}.learning_rate")), Domain::LogUniform(1e-5, 3e-4));
        assert_eq!(of(&format!("optimizer.{model}.beta1")), floats(&[0.9]));
        assert_eq!(of(&format!("optimizer.{model}.beta2")), floats(&[0.99, 0.999]));
        assert_eq!(of(&format!("optimizer.{model}.epsilon")), floats(&[1e-4, 1e-6, 1e-8]));
    }
    assert_eq!((of("learning.alpha"), of("learning.sigma")), (Domain::Uniform(0.01, 0.2), Domain::Uniform(0.01, 0.3)));
    assert_eq!(domains.len(), 10);
}

#[test]
fn the_wide_space_holds_what_every_configuration_has() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut outside_of_the_papers = 0;
    for path in std::fs::read_dir(configs).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let config = Config::load(&path, &[]).unwrap();
        let tree = Value::try_from(&config).unwrap();
        // The paper searched nothing for tp.
        for (name, must) in [("wide", config.learning.rule != RuleChoice::TP), ("paper", false)] {
            let mut space = Space::named(name).unwrap();
            space.restrict(&config, &BTreeSet::new(), |set| Config::load(&path, set));
            for (key, domain) in &space.domains {
                let value = key.split('.').fold(&tree, |value, part| &value[part]);
                assert!(!must || domain.contains(value), "{}: {key} = {value}", path.display());
                outside_of_the_papers += usize::from(!domain.contains(value));
            }
        }
    }
    assert!(outside_of_the_papers > 10, "Table 5 lies partly outside Table 4: {outside_of_the_papers}");
}

#[test]
fn only_keys_that_the_rule_uses_are_searched() {
    let keys = |config: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(config);
        let mut space = Space::named("paper").unwrap();
        let load = |set: &[String]| Config::load(&path, set);
        let out = space.restrict(&load(&[]).unwrap(), &BTreeSet::new(), load);
        assert_eq!(out.len() + space.domains.len(), 10);
        space.domains.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let forward = ["learning_rate", "beta1", "beta2", "epsilon"].map(|key| format!("optimizer.forward.{key}"));
    assert_eq!(keys("mnist_fc_bp.toml"), forward);
    assert_eq!(keys("mnist_fc_dtp_parallel.toml").len(), 10);
    let sdtp = keys("mnist_fc_sdtp_parallel.toml");
    assert!(sdtp.len() == 9 && !sdtp.contains(&"learning.alpha".to_owned()), "{sdtp:?}");
}

/// What decides on the use of a key may itself be drawn.
#[test]
fn keys_that_some_draw_uses_are_searched() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist_fc_bp.toml");
    let load = |set: &[String]| Config::load(&path, set);
    let names = |names: &[&str]| Domain::Choice(names.iter().map(|name| Value::from(*name)).collect());
    let momentum = || ("optimizer.forward.momentum", Domain::Uniform(0.5, 0.9));
    let target = || [("learning.alpha", Domain::Uniform(0.1, 0.2)), ("learning.sigma", Domain::Uniform(0.1, 0.2))];
    let rules = |rules: &[&str]| ("learning.rule", names(rules));
    let methods = ("optimizer.forward.method", names(&["adam", "sgd"]));
    let inverses = ("learning.inverses", names(&["fixed", "trained"]));
    let layers = |counts: &[usize]| {
        let dense: Value = Value::Table(Table::from_iter([("kind".into(), "dense".into()), ("units".into(), 8.into())]));
        ("network.layers", Domain::Choice(counts.iter().map(|count| Value::Array(vec![dense.clone(); *count])).collect()))
    };
    let [alpha, sigma] = target();
    for (space, typed, left_out) in [
        (vec![methods.clone(), momentum()], None, vec![]),
        (vec![momentum(), methods.clone()], Some(&methods.0), vec![momentum().0, methods.0]),
        (vec![momentum()], None, vec![momentum().0]),
        (vec![rules(&["bp", "dtp"]), alpha.clone(), sigma.clone(), inverses.clone()], None, vec![]),
        (vec![rules(&["bp", "sdtp"]), alpha.clone(), sigma.clone()], None, vec![alpha.0]),
        (vec![rules(&["dtp"]), alpha.clone(), sigma.clone(), layers(&[0, 1]), inverses.clone()], None, vec![sigma.0, inverses.0]),
        (vec![rules(&["dtp"]), alpha.clone(), sigma.clone(), layers(&[0, 2]), inverses], None, vec![]),
        // The inverses' method is the forward model's.
        (vec![rules(&["sdtp"]), sigma, methods.clone(), ("optimizer.inverse.momentum", momentum().1)], None, vec![]),
    ] {
        let domains = space.into_iter().map(|(key, domain)| (key.to_owned(), domain)).collect();
        let mut space = Space { name: "test".into(), domains };
        let before = space.draw(3, 5);
        let typed = typed.into_iter().map(|key| key.to_string()).collect();
        let out: Vec<String> = space.restrict(&load(&[]).unwrap(), &typed, load).into_iter().map(|(key, _)| key).collect();
        assert_eq!(out, left_out);
        let kept: Values = before.into_iter().filter(|(key, _)| !out.contains(key)).collect();
        assert_eq!(space.draw(3, 5), kept);
    }
}

#[test]
fn files_are_read_and_their_mistakes_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("space.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Space::named(path.to_str().unwrap())
    };
    let space = read(
        "learning.alpha = { uniform = [0, 1] }\n[optimizer.forward]\nlearning_rate = { log_uniform = [1e-5, 1e-3] }\n\
         [data]\nbatch_size = { choice = [32, 64] }\nscaling = { choice = [\"unit\", \"standardize\"] }",
    );
    let texts = |values: &[&str]| Domain::Choice(values.iter().map(|text| Value::String(text.to_string())).collect());
    let expected = [
        ("learning.alpha", Domain::Uniform(0.0, 1.0)),
        ("optimizer.forward.learning_rate", Domain::LogUniform(1e-5, 1e-3)),
        ("data.batch_size", Domain::Choice(vec![Value::Integer(32), Value::Integer(64)])),
        ("data.scaling", texts(&["unit", "standardize"])),
    ];
    assert_eq!(space.unwrap().domains, expected.map(|(key, domain)| (key.to_owned(), domain)));
    for (text, words) in [
        ("learning.alpha = 0.1", ["learning.alpha", "log_uniform"]),
        ("learning.alpha = { log_uniform = [0, 1] }", ["learning.alpha", "above 0"]),
        ("learning.alpha = { uniform = [1, 0] }", ["learning.alpha", "ascending"]),
        ("learning.alpha = { choice = [] }", ["learning.alpha", "array"]),
        ("learning.alpha = { normal = [0, 1] }", ["learning.alpha.normal", "expected a domain"]),
        ("learning.alpha = ", ["space.toml", "TOML"]),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{text}: {error}");
    }
    assert!(Space::named("papers").unwrap_err().to_string().contains("\"paper\""));

    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist_fc_dtp_parallel.toml");
    let check = |text: &str| read(text).unwrap().check(|set| Config::load(&base, set)).unwrap_err().to_string();
    assert!(check("learning.alhpa = { uniform = [0, 1] }").ends_with("space.toml: learning.alhpa: unknown key; did you mean `alpha`?"));
    assert!(check("learning.hybrid = { uniform = [0, 2] }").contains("learning.hybrid: expected a number from 0 to 1"));
    assert!(check("experiment.seed = { choice = [1, 2] }").contains("experiment.seed: trials are compared"));
    assert!(check("").contains("no key"));
}
