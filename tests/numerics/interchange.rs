//! Checkpoint layouts: what is written is read back, for every kind of map, and nothing else is touched.

use crate::support::{Learner, RULES, Samples, config};

const LAYERS: &str = r#"network.layers=[{ kind = "local", kernel = 2, channels = 18, stride = 3 }, { kind = "local", kernel = 3, channels = 5, stride = 1 }, { kind = "dense", units = 17 }, { kind = "dense", units = 33 }]"#;
const CONV: &str =
    r#"network.layers=[{ kind = "conv", kernel = 2, channels = 18, stride = 3 }, { kind = "conv", kernel = 3, channels = 5, stride = 1 }]"#;

fn learner(overrides: &[&str]) -> Learner {
    Learner::new(&config("flat", overrides), &Samples::random([7, 10, 3], 10, 11), 2)
}

/// Overrides that between them have every kind of map.
fn every_map() -> Vec<[String; 2]> {
    let rules = RULES.map(|rule| [LAYERS.to_string(), format!("learning.rule={}", rule.name())]);
    rules.into_iter().chain([[CONV.to_string(), "learning.rule=bp".to_string()]]).collect()
}

#[test]
fn tensors_have_the_documented_shapes() {
    let shapes = |learner: &Learner| {
        let maps = learner.engine.maps().all.iter();
        maps.flat_map(|map| map.tensors().map(|(_, name, shape)| (name.to_owned(), shape.to_vec()))).collect::<Vec<_>>()
    };
    let of = |overrides: &[&str]| shapes(&learner(overrides));
    let expect = |found: Vec<(String, Vec<usize>)>, expected: &[(&str, &[usize])]| {
        let expected: Vec<_> = expected.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
        assert_eq!(found, expected);
    };
    // [7, 10, 3] becomes [3, 4, 18], [3, 4, 5], 17, 33, 10.
    let forward: [(&str, &[usize]); 10] = [
        ("layers.0.weight", &[3, 4, 2, 2, 3, 18]),
        ("layers.0.bias", &[3, 4, 18]),
        ("layers.1.weight", &[3, 4, 3, 3, 18, 5]),
        ("layers.1.bias", &[3, 4, 5]),
        ("layers.2.weight", &[17, 60]),
        ("layers.2.bias", &[17]),
        ("layers.3.weight", &[33, 17]),
        ("layers.3.bias", &[33]),
        ("layers.4.weight", &[10, 33]),
        ("layers.4.bias", &[10]),
    ];
    let inverse: [(&str, &[usize]); 6] = [
        ("layers.1.inverse.weight", &[3, 4, 5, 3, 3, 18]),
        ("layers.1.inverse.bias", &[3, 4, 18]),
        ("layers.2.inverse.weight", &[60, 17]),
        ("layers.2.inverse.bias", &[60]),
        ("layers.3.inverse.weight", &[17, 33]),
        ("layers.3.inverse.bias", &[17]),
    ];
    let top = |units: &'static [usize]| [("layers.4.inverse.weight", units), ("layers.4.inverse.bias", &[33])];
    expect(of(&[LAYERS]), &forward);
    expect(of(&[LAYERS, "learning.rule=dtp"]), &[&forward[..], &inverse].concat());
    expect(of(&[LAYERS, "learning.rule=tp"]), &[&forward[..], &inverse, &top(&[33, 10])].concat());
    expect(of(&[LAYERS, "learning.rule=sdtp"]), &[&forward[..], &inverse, &top(&[33, 10])].concat());
    let auxiliary: [(&str, &[usize]); 2] = [("auxiliary.weight", &[9, 33]), ("auxiliary.bias", &[9])];
    expect(of(&[LAYERS, "learning.rule=ao_sdtp"]), &[&forward[..], &inverse, &top(&[33, 19]), &auxiliary].concat());
    let feedback: [(&str, &[usize]); 4] = [
        ("layers.1.feedback.weight", &[3, 4, 3, 3, 18, 5]),
        ("layers.2.feedback.weight", &[17, 60]),
        ("layers.3.feedback.weight", &[33, 17]),
        ("layers.4.feedback.weight", &[10, 33]),
    ];
    expect(of(&[LAYERS, "learning.rule=fa"]), &[&forward[..], &feedback].concat());
    let direct: [(&str, &[usize]); 4] = [
        ("layers.0.direct_feedback.weight", &[216, 10]),
        ("layers.1.direct_feedback.weight", &[60, 10]),
        ("layers.2.direct_feedback.weight", &[17, 10]),
        ("layers.3.direct_feedback.weight", &[33, 10]),
    ];
    expect(of(&[LAYERS, "learning.rule=dfa"]), &[&forward[..], &direct].concat());
    let conv: [(&str, &[usize]); 6] = [
        ("layers.0.weight", &[2, 2, 3, 18]),
        ("layers.0.bias", &[18]),
        ("layers.1.weight", &[3, 3, 18, 5]),
        ("layers.1.bias", &[5]),
        ("layers.2.weight", &[10, 60]),
        ("layers.2.bias", &[10]),
    ];
    expect(of(&[CONV]), &conv);
}

#[test]
fn what_is_written_is_read_back() {
    for overrides in every_map() {
        let mut learner = learner(&overrides.each_ref().map(String::as_str));
        let mut written = Vec::new();
        let mut number = 0.0f32;
        for (name, map, part) in learner.tensors() {
            for buffer in learner.buffers(map) {
                let mut values = learner.engine.read(map, part, *buffer);
                values.iter_mut().for_each(|value| (*value, number) = (number, number + 1.0));
                learner.engine.write(map, part, *buffer, &values).expect("the number of values is right");
                let error = learner.engine.write(map, part, *buffer, &values[1..]).expect_err("a value is missing");
                assert!(format!("{error:#}").contains(&name), "{name}: {error:#}");
                written.push((name.clone(), map, part, *buffer, values));
            }
        }
        assert!(number < 16_777_216.0, "float32 tells the numbers apart");
        for (name, map, part, buffer, values) in written {
            assert!(learner.engine.read(map, part, buffer) == values, "{name}, {buffer:?}");
        }
    }
}

#[test]
fn a_learner_made_from_what_another_wrote_goes_on_like_it() {
    for overrides in every_map() {
        let overrides = overrides.each_ref().map(String::as_str);
        let mut original = learner(&overrides);
        original.steps(3);
        // With parameters, moments and padding of its own, until all that is written says otherwise.
        let mut copy = learner(&overrides);
        copy.samples.pixels.reverse();
        copy.steps(2);
        for (_, map, part) in original.tensors() {
            for buffer in original.buffers(map) {
                let values = original.engine.read(map, part, *buffer);
                copy.engine.write(map, part, *buffer, &values).expect("the number of values is right");
            }
        }
        assert_eq!(original.engine.checksum(), copy.engine.checksum(), "{overrides:?}");
        copy.samples = original.samples.clone();
        copy.step = original.step;
        copy.engine.set_steps(original.engine.steps());
        assert_eq!(original.bits_after(2), copy.bits_after(2), "{overrides:?}");
    }
}
