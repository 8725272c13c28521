use super::*;
use crate::compute::Backend;
use crate::compute::cpu::{Arena, CpuBackend, Parameters, Setup, simd::Isa};
use crate::config::Loaded;
use crate::config::Purpose;
use crate::rules::{Phase, definitions};

const CONFIG: &str = r#"
[data]
train = "absent"
batch_size = 8
[learning]
rule = "bp"
alpha = 0.1
sigma = 0.1
auxiliary_units = 4
[optimizer.forward]
learning_rate = 1e-3
[training]
epochs = 3
[[network.layers]]
kind = "dense"
units = 7
[[network.layers]]
kind = "dense"
units = 5
"#;

fn config(sets: &[&str]) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    Loaded::read(&path, &sets, Purpose::Training).unwrap().config
}

fn plan(sets: &[&str], facts: DataFacts, ranks: usize) -> Plan {
    Plan::new(&config(sets), &facts, ranks).unwrap()
}

fn refused(sets: &[&str], facts: DataFacts, ranks: usize) -> String {
    let error = Plan::new(&config(sets), &facts, ranks).unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Usage);
    error.to_string()
}

/// Inputs 6, hidden 7 and 5, classes 3.
const SMALL: DataFacts = DataFacts { input: [2, 3, 1], classes: 3, train: None, test: None };
/// Weights of each layer, bottom up.
const W: [f64; 3] = [42.0, 35.0, 15.0];

#[test]
fn a_steps_work_is_that_of_its_formulas() {
    let forward = W[0] + W[1] + W[2];
    // By rule: weights that products go through per sample, and weights whose gradients are made.
    let cases = [
        ("bp", forward + W[1] + W[2], forward),
        ("fa", forward + W[1] + W[2], forward),
        ("dfa", forward + 3.0 * (7.0 + 5.0), forward),
        // Clean and corrupted up through layer 2; down once through the transpose of 3, three times through the inverse of 2.
        ("dtp", forward + W[1] + W[2] + 3.0 * W[1], forward + W[1]),
        ("sdtp", forward + W[1] + W[2] + 3.0 * (W[1] + W[2]), forward + W[1] + W[2]),
        // Without the difference, down twice.
        ("tp", forward + W[1] + W[2] + 2.0 * (W[1] + W[2]), forward + W[1] + W[2]),
        // Four auxiliary units of five inputs: features of clean and corrupted activity, and an inverse that reads them.
        ("ao_sdtp", forward + W[1] + W[2] + 2.0 * 20.0 + 3.0 * (W[1] + W[2] + 20.0), forward + W[1] + W[2] + 20.0),
    ];
    for (rule, passes, gradients) in cases {
        let plan = plan(&[&format!("learning.rule={rule}")], SMALL, 2);
        assert_eq!(plan.steps.len(), 1, "{rule}");
        assert_eq!(plan.steps[0].passes, 2.0 * 4.0 * passes, "{rule}");
        assert_eq!(plan.steps[0].gradients, 2.0 * 4.0 * gradients, "{rule}");
    }
}

#[test]
fn alternating_epochs_each_have_their_work() {
    let plan = plan(&["learning.rule=sdtp", "learning.schedule=alternating"], SMALL, 1);
    let forward = W[0] + W[1] + W[2];
    let phases: Vec<Phase> = plan.steps.iter().map(|step| step.phase).collect();
    assert_eq!(phases, [Phase::Inverse, Phase::Forward]);
    assert_eq!(plan.steps[0].passes, 2.0 * 8.0 * (forward + 2.0 * (W[1] + W[2])));
    assert_eq!(plan.steps[0].gradients, 2.0 * 8.0 * (W[1] + W[2]));
    assert_eq!(plan.steps[1].passes, 2.0 * 8.0 * (forward + 2.0 * (W[1] + W[2])));
    assert_eq!(plan.steps[1].gradients, 2.0 * 8.0 * forward);
}

#[test]
fn bytes_on_disk_are_those_of_the_tensors() {
    let plan = plan(&["learning.rule=sdtp", "training.keep_checkpoints=3"], SMALL, 1);
    let forward = 42 + 7 + 35 + 5 + 15 + 3;
    let inverse = 35 + 7 + 15 + 5;
    assert_eq!(plan.disk, Disk { model: 4 * (forward + inverse), optimizer: 8 * (forward + inverse), checkpoints: 5 });
    let plan = self::plan(&["learning.rule=fa", "data.validation=10"], SMALL, 1);
    // The two that are kept, step 0, the best, and the one being written.
    assert_eq!(plan.disk.checkpoints, 5);
    assert_eq!(plan.disk.model, 4 * (forward + 35 + 15));
    assert_eq!(plan.disk.optimizer, 8 * forward);
}

#[test]
fn memory_is_what_the_backend_takes() {
    let local = "network.layers=[{kind = \"local\", kernel = 3, channels = 4, stride = 2}, {kind = \"dense\", units = 130}]";
    let pools = "network.layers=[{kind = \"max_pool\", kernel = 3, stride = 2}, {kind = \"conv\", kernel = 3, channels = 20}, \
                 {kind = \"max_pool\", kernel = 2, stride = 2}]";
    let facts = DataFacts::of_shape([7, 6, 3], 10);
    let all = [local, pools].into_iter().flat_map(|layers| definitions().map(move |rule| (layers, rule.name)));
    for ((layers, rule), nonlinearity) in all.flat_map(|case| ["tanh", "gelu"].map(|nonlinearity| (case, nonlinearity))) {
        let nonlinearity = format!("network.nonlinearity={nonlinearity}");
        let sets = [layers, &nonlinearity, &format!("learning.rule={rule}"), "parallel.exchange=gradients"];
        let (config, plan) = (config(&sets), plan(&sets, facts, 2));
        let maps = plan.maps.clone();
        let (spans, sizes) = spans(&maps);
        let arena = |len| Arena::new(len).unwrap();
        let parameters = Parameters { spans, weights: arena(sizes.weights), first: arena(sizes.moments), second: arena(sizes.moments) };
        let setup = Setup {
            isa: Isa::choose(config.parallel.kernels, config.parallel.precision).unwrap(),
            threads: 1,
            seed: 0,
            capacity: 4,
            label_smoothing: 0.0,
        };
        let mut backend = CpuBackend::new(&plan.network, maps.clone(), parameters, &setup).unwrap();
        crate::rules::build(&config.learning, &plan.network, &maps, &mut backend).unwrap();
        let expected = Memory {
            parameters: 4 * backend.parameters.weights.len() as u64,
            moments: 8 * backend.parameters.first.len() as u64,
            activities: 4 * backend.activity_elements() as u64,
            // On two ranks as much again for half of the other's.
            gradients: 4 * backend.parameters.first.len() as u64 * 3 / 2,
        };
        assert_eq!(plan.memory, expected, "{rule}, {nonlinearity}, {layers}");
    }
}

/// What a rule of one's own gets wrong is told, and writes nothing past its activities.
#[test]
fn operations_refuse_activities_of_other_shapes() {
    let plan = plan(&["learning.rule=bp", "parallel.exchange=gradients"], SMALL, 2);
    let (spans, sizes) = spans(&plan.maps);
    let arena = |len| Arena::new(len).unwrap();
    let parameters = Parameters { spans, weights: arena(sizes.weights), first: arena(sizes.moments), second: arena(sizes.moments) };
    let setup = Setup { isa: Isa::Portable, threads: 1, seed: 0, capacity: 4, label_smoothing: 0.0 };
    let mut backend = CpuBackend::new(&plan.network, plan.maps.clone(), parameters, &setup).unwrap();
    let [h, other, narrow, output] = [1, 1, 2, 3].map(|layer| backend.activity(plan.network.shape(layer)));
    backend.allocate(arena(backend.activity_elements()));
    let (input, layer) = (backend.input(), plan.maps.forward[0]);
    let mut refuses =
        |operation: &dyn Fn(&mut CpuBackend)| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| operation(&mut backend))).is_err();
    assert!(!refuses(&|backend| backend.add(h, other, h)) && !refuses(&|backend| backend.apply(layer, &[(input, h), (input, other)])));
    for operation in [
        &(|backend: &mut CpuBackend| backend.add(h, narrow, h)) as &dyn Fn(&mut CpuBackend),
        &|backend| backend.step_along(h, 1.0, narrow, other),
        &|backend| backend.step_along(input, 1.0, input, h),
        &|backend| backend.add_noise(narrow, h, 1.0, 0),
        &|backend| backend.through_nonlinearity(narrow, h),
        &|backend| backend.error_through_nonlinearity(h, narrow, other, true),
        &|backend| backend.difference_through_nonlinearity(h, narrow, other),
        &|backend| backend.difference_target(h, [h, other], 1.0, Some((0.5, narrow)), other, None),
        &|backend| backend.apply(layer, &[(input, h), (input, narrow)]),
        &|backend| backend.apply(layer, &[(input, narrow)]),
        &|backend| backend.apply_transposed(layer, narrow, input),
        &|backend| backend.concatenate(h, narrow, output),
    ] {
        assert!(refuses(operation));
    }
}

#[test]
fn exchanged_bytes_follow_from_factors_or_parameters() {
    let plan = plan(&["learning.rule=bp"], SMALL, 4);
    assert_eq!(plan.exchange, Sharing::Activities);
    let cost = &plan.steps[0];
    // Two samples a rank; activities of 7 and 5 units and three errors lie in rows of 16, the input in rows of 6.
    assert_eq!(cost.factor_bytes, 4 * 2 * (6 + 5 * 16));
    assert_eq!(cost.changed_bytes, 4 * 107);
    assert_eq!(plan.exchanged(cost, Sharing::Activities, true), 3 * cost.factor_bytes);
    assert_eq!(plan.exchanged(cost, Sharing::Activities, false), 3 * cost.factor_bytes + 321);
    assert_eq!(plan.exchanged(cost, Sharing::Gradients, true), 2 * 321);
    // On GPUs, which store no rows and choose for each map: of 49 parameters and 13 units, 40 and 12, 18 and 8, the parameters are fewer than
    // the units of 8 samples.
    assert_eq!((plan.exchanged_between_gpus(cost), plan.ways_between_gpus().as_str()), (2 * 321, "gradients"));
    let rounded = self::plan(&["learning.rule=bp", "parallel.wire=bf16"], SMALL, 4);
    assert_eq!(rounded.exchanged_between_gpus(cost), 321);
    let gathered = self::plan(&["learning.rule=bp", "parallel.exchange=activities"], SMALL, 4);
    // The others' factors, and new parameters.
    assert_eq!(gathered.exchanged_between_gpus(&gathered.steps[0]), 3 * 4 * 2 * (6 + 7 + 5 + 7 + 5 + 3) + 321);
    assert_eq!(self::plan(&["parallel.exchange=gradients"], SMALL, 4).exchange, Sharing::Gradients);
    assert_eq!(self::plan(&["parallel.exchange=gradients"], SMALL, 1).exchange, Sharing::None);
}

#[test]
fn epochs_leave_out_incomplete_batches() {
    let with = |train, sets: &[&str]| plan(sets, DataFacts { train: Some(train), test: Some(9), ..SMALL }, 1).epoch.unwrap();
    let expected = Epoch { samples: 61, steps: 7, left_out: 5, total_steps: Some(21), validation: 0, test: Some(9) };
    assert_eq!(with(61, &[]), expected);
    assert_eq!(with(61, &["training.max_steps=20"]).total_steps, Some(20));
    assert_eq!(with(61, &["training.max_steps=22"]).total_steps, Some(21));
    assert_eq!(
        with(61, &["data.validation=13"]),
        Epoch { samples: 48, steps: 6, left_out: 0, total_steps: Some(18), validation: 13, ..expected }
    );
    assert_eq!(with(8, &[]), Epoch { samples: 8, steps: 1, left_out: 0, total_steps: Some(3), ..expected });
}

#[test]
fn impossible_plans_are_refused() {
    const TWO_LOCAL: &str = "network.layers=[{kind = \"local\", kernel = 1, channels = 1}, {kind = \"local\", kernel = 1, channels = 1}]";
    let train = |train| DataFacts { train: Some(train), ..SMALL };
    let image = |side: usize| DataFacts::of_shape([side, side, 3], 10);
    let local = |kernel: usize, channels: usize| format!("network.layers=[{{kind = \"local\", kernel = {kernel}, channels = {channels}}}]");
    let cases: Vec<(Vec<String>, DataFacts, usize, &str)> = vec![
        (vec![], SMALL, 3, "data.batch_size = 8 cannot be divided among 3 ranks; --set data.batch_size=6 or 9"),
        (vec![], SMALL, 16, "data.batch_size = 8 cannot be divided among 16 ranks; --set data.batch_size=16,"),
        (vec![], train(7), 1, "has 7 samples, fewer than one batch (data.batch_size = 8)"),
        (vec!["data.validation=5".into()], train(12), 1, "has 7 samples beside data.validation = 5"),
        (vec!["data.validation=50".into()], train(12), 1, "has 0 samples beside"),
        (vec![local(1_000_000_000, 1)], image(32), 1, "network.layers[0] (local 1000000000x1000000000"),
        (vec![local(3, 1_000_000_000)], image(65_535), 1, "network.layers[0] (local 3x3"),
        (
            vec!["network.layers=[{kind = \"max_pool\", kernel = 5000, stride = 5000}]".into(), "learning.rule=bp".into()],
            image(5000),
            1,
            "places in a window",
        ),
        (vec![local(1, 1)], image(65_535), 1, "connected positions"),
        (vec!["network.layers=[{kind = \"dense\", units = 1000000000}]".into()], image(32), 1, "weights; make it smaller"),
        (
            vec![TWO_LOCAL.into(), "learning.rule=sdtp".into(), "learning.inverse_fields=dense".into()],
            image(224),
            1,
            "2.52e9 connected positions in its inverse",
        ),
        (
            vec![TWO_LOCAL.into(), "learning.rule=sdtp".into(), "learning.inverse_growth=254".into()],
            image(224),
            1,
            "3.26e9 connected positions in its inverse",
        ),
        (vec!["data.batch_size=1000000000".into()], image(32), 1, "activities in a batch"),
        (
            ["network.layers=[{kind = \"dense\", units = 3, normalization = \"batch\"}]", "learning.rule=bp", "data.batch_size=1"]
                .map(String::from)
                .to_vec(),
            SMALL,
            1,
            "network.layers[0] is normalised over batches of one value a channel",
        ),
        (
            vec!["learning.rule=ao_sdtp".into(), "learning.auxiliary_units=1000000000".into(), "network.layers=[]".into()],
            image(2000),
            1,
            "weights",
        ),
    ];
    for (sets, facts, ranks, expected) in cases {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let message = refused(&sets, facts, ranks);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}
