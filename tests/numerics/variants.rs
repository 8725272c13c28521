//! The kernels' variants among themselves, and on one and several threads, on shapes that meet every edge of the cuts.

use crate::support::{Learner, Random, Samples, config, distance, kernels};

/// Channels at the edges of vectors, strips and items.
const CHANNELS: [usize; 9] = [1, 3, 15, 16, 17, 33, 48, 49, 65];

/// What three steps leave: the change of every trained tensor, and the bits of parameters and losses.
struct Outcome {
    changes: Vec<(String, Vec<f64>)>,
    bits: Vec<u64>,
}

fn run(shape: [usize; 3], overrides: &[&str], batch: usize, isa: &str, threads: usize) -> Outcome {
    let own = [format!("data.batch_size={batch}"), format!("parallel.kernels={isa}")];
    let overrides: Vec<&str> = overrides.iter().copied().chain(own.iter().map(String::as_str)).collect();
    let mut learner = Learner::new(&config("flat", &overrides), &Samples::random(shape, 10, 2 * batch), threads);
    let trained: Vec<String> = learner.tensors().into_iter().filter(|tensor| learner.trained(tensor.1)).map(|tensor| tensor.0).collect();
    let before: Vec<Vec<f32>> = trained.iter().map(|name| learner.read(name)).collect();
    let bits = learner.bits_after(3);
    let change = |(name, before): (String, Vec<f32>)| {
        let change = learner.read(&name).iter().zip(before).map(|(after, before)| f64::from(*after) - f64::from(before)).collect();
        (name, change)
    };
    Outcome { changes: trained.into_iter().zip(before).map(change).collect(), bits }
}

/// All variants that fuse multiplication and addition give the same bits, all give the same on any number of threads, and the portable one,
/// which rounds in between, is near them.
fn compare(shape: [usize; 3], overrides: &[&str], batch: usize) {
    let title = format!("{shape:?}, batch {batch}, {overrides:?}");
    let portable = run(shape, overrides, batch, "portable", 1);
    assert_eq!(run(shape, overrides, batch, "portable", 3).bits, portable.bits, "{title}: portable on 3 threads");
    let mut fused: Option<Vec<u64>> = None;
    for isa in kernels().into_iter().filter(|isa| *isa != "portable") {
        for threads in [1, 2, 3] {
            let outcome = run(shape, overrides, batch, isa, threads);
            assert_eq!(*fused.get_or_insert(outcome.bits.clone()), outcome.bits, "{title}: {isa} on {threads} threads");
            for ((name, ours), (_, portables)) in outcome.changes.iter().zip(&portable.changes) {
                let found = distance(ours, portables);
                assert!(found < 1e-3, "{title}: {name}: {isa} is {found:.1e} of the distance travelled away from portable");
            }
        }
    }
}

#[test]
fn variants_agree_on_dense_layers_of_any_size() {
    let mut random = Random::new(1);
    let mut size = || CHANNELS[random.below(CHANNELS.len())];
    for (index, rule) in ["bp", "fa", "dfa", "tp", "dtp", "sdtp", "ao_sdtp"].into_iter().cycle().take(14).enumerate() {
        // Inputs beyond a chunk of weight rows, hidden layers beyond a strip.
        let layers = format!(
            r#"network.layers=[{{ kind = "dense", units = {} }}, {{ kind = "dense", units = {} }}, {{ kind = "dense", units = 130 }}]"#,
            size(),
            size()
        );
        compare([20, 20 + index, 1], &[&layers, &format!("learning.rule={rule}")], 1 + 5 * index);
    }
}

#[test]
fn variants_agree_on_spatial_layers_of_any_size() {
    let mut random = Random::new(2);
    for (index, rule) in ["bp", "fa", "dfa", "tp", "dtp", "sdtp", "ao_sdtp"].into_iter().enumerate() {
        let mut layer = |kind: &str| {
            let (kernel, stride) = (1 + random.below(5), 1 + random.below(3));
            let channels = CHANNELS[random.below(CHANNELS.len())];
            format!(r#"{{ kind = "{kind}", kernel = {kernel}, channels = {channels}, stride = {stride} }}"#)
        };
        let shape = [7 + index, 12 - index, 1 + index % 4];
        let local = format!("network.layers=[{}, {}]", layer("local"), layer("local"));
        compare(shape, &[&local, &format!("learning.rule={rule}")], 3 + 4 * index);
        let conv = format!("network.layers=[{}, {}]", layer("conv"), layer("conv"));
        let rule = format!("learning.rule={}", ["bp", "fa", "dfa"][index % 3]);
        compare(shape, &[&conv, &rule], 3 + 4 * index);
    }
}

#[test]
fn variants_agree_on_every_nonlinearity() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 17, stride = 2 }, { kind = "dense", units = 130 }, { kind = "dense", units = 33 }]"#;
    for nonlinearity in ["relu", "leaky_relu", "gelu", "identity"] {
        let nonlinearity = format!("network.nonlinearity={nonlinearity}");
        for rule in ["learning.rule=bp", "learning.rule=sdtp"] {
            compare([9, 8, 3], &[layers, &nonlinearity, rule], 19);
        }
    }
}

#[test]
fn variants_agree_on_pools() {
    let layers = r#"network.layers=[{ kind = "max_pool", kernel = 2, stride = 1 }, { kind = "conv", kernel = 3, channels = 17, stride = 1 }, { kind = "max_pool", kernel = 4, stride = 3 }, { kind = "average_pool", kernel = 9, stride = 9 }]"#;
    for rule in ["bp", "fa", "dfa", "kp", "brsf", "wm", "dkp", "drtp", "pepita"].map(|rule| format!("learning.rule={rule}")) {
        compare([9, 8, 3], &[layers, &rule], 19);
    }
}

#[test]
fn threads_share_large_passes_without_a_trace() {
    // Large enough that elementwise passes are shared out too.
    let local = r#"network.layers=[{ kind = "local", kernel = 3, channels = 20, stride = 1 }, { kind = "local", kernel = 2, channels = 16, stride = 2 }]"#;
    let dense = r#"network.layers=[{ kind = "dense", units = 1200 }, { kind = "dense", units = 300 }]"#;
    for (shape, layers, batch) in [([16, 15, 3], local, 40), ([8, 8, 1], dense, 160)] {
        for rule in [&["learning.rule=dtp", "learning.hybrid=0.5"], &["learning.rule=ao_sdtp", "optimizer.epsilon_form=hat"]] {
            let overrides: Vec<&str> = rule.iter().copied().chain([layers]).collect();
            let alone = run(shape, &overrides, batch, "auto", 1).bits;
            for threads in [2, 5] {
                assert_eq!(run(shape, &overrides, batch, "auto", threads).bits, alone, "{rule:?}, {layers}: {threads} threads");
            }
        }
    }
}
