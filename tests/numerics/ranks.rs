//! Several ranks whose parameters are tensors, against one: as threads of this process, without MPI.

use biodist::compute::device::{Device, Kernels};
use biodist::config::{Config, ExchangeChoice};
use biodist::exchange::Sharing;
use biodist::learner::Engine;
use biodist::network::{Maps, Network};

use crate::support::{Samples, config, distance, norm};
use crate::threads::train_on;

fn on_tensors(size: usize, config: &Config, samples: &Samples) -> Vec<Vec<f32>> {
    train_on(size, config, samples, &|config, network, transport| {
        Engine::on_tensors(config, network, transport, Device::Cpu).expect("the engine can be made")
    })
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

#[test]
fn maps_are_shared_as_moves_fewer_bytes() {
    let layers = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#;
    let config = config("flat", &[layers]);
    let maps = Maps::new(&Network::new([6, 7, 2], 10, &config.network).expect("the network can be made"), &config.learning.needs());
    let plan = |size, choice, samples| Sharing::plan(&maps, size, choice, samples, Kernels::Libtorch);
    // 114 parameters for 84 + 252 units a sample; 7590 for 252 + 30; 310 for 30 + 10.
    let (factors, gradients) = (Sharing::Activities, Sharing::Gradients);
    assert_eq!(plan(2, ExchangeChoice::Auto, 6), [gradients, factors, factors]);
    assert_eq!(plan(2, ExchangeChoice::Auto, 8), [gradients, factors, gradients]);
    assert_eq!(plan(2, ExchangeChoice::Auto, 64), [gradients; 3]);
    assert_eq!(plan(2, ExchangeChoice::Activities, 64), [factors; 3]);
    assert_eq!(plan(2, ExchangeChoice::Gradients, 1), [gradients; 3]);
    assert_eq!(plan(1, ExchangeChoice::Gradients, 1), [Sharing::None; 3]);
}

#[test]
fn ranks_share_updates_of_tensors_in_every_way() {
    let local = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#;
    let dense = r#"network.layers=[{ kind = "local", kernel = 3, channels = 4, stride = 2 }, { kind = "dense", units = 21 }]"#;
    let pools = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "max_pool", kernel = 2, stride = 2 }, { kind = "dense", units = 30 }]"#;
    let shortcuts = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 5 }, { kind = "conv", kernel = 1, channels = 6, stride = 2 }, { kind = "conv", kernel = 3, channels = 6, stride = 2, from = 0, shortcut = 1 }]"#;
    for (layers, rule) in [
        (local, "bp"),
        (dense, "bp"),
        (dense, "dtp"),
        (dense, "ao_sdtp"),
        (dense, "kp"),
        (dense, "l_drl"),
        (pools, "fa"),
        (pools, "kp"),
        (shortcuts, "kp"),
        (pools, "pepita"),
    ] {
        let rule = format!("learning.rule={rule}");
        let samples = Samples::random([6, 7, 2], 10, 24);
        let settings = |exchange: &str| {
            let exchange = format!("parallel.exchange={exchange}");
            // Of pepita: its default leaves differences of which float32 keeps few digits.
            config("flat", &[layers, &rule, &exchange, "data.batch_size=12", "learning.modulation=0.5"])
        };
        let alone = on_tensors(1, &settings("auto"), &samples);
        for size in [2, 3, 4] {
            for exchange in ["auto", "activities", "gradients"] {
                let together = on_tensors(size, &settings(exchange), &samples);
                assert_eq!(together.len(), alone.len());
                for (index, (ours, wanted)) in together.iter().zip(&alone).enumerate().filter(|(_, (ours, wanted))| ours != wanted) {
                    let found = distance(&doubles(ours), &doubles(wanted));
                    assert!(found < 1e-4, "{rule}, {exchange} on {size} ranks: tensor {index} is {found:.1e} away");
                }
            }
        }
    }
}

#[test]
fn what_travels_in_bf16_leaves_replicas_equal_and_near() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 4, stride = 2 }, { kind = "dense", units = 21 }]"#;
    let samples = Samples::random([6, 7, 2], 10, 24);
    for exchange in ["activities", "gradients"] {
        let exchange = format!("parallel.exchange={exchange}");
        let of = |wire: &str, size| {
            let wire = format!("parallel.wire={wire}");
            on_tensors(size, &config("flat", &[layers, "learning.rule=dtp", &exchange, &wire, "data.batch_size=12"]), &samples)
        };
        // That all ranks have the same bits is checked where they train.
        for size in [2, 3] {
            let (exact, rounded) = (of("f32", size), of("bf16", size));
            assert_eq!(rounded.len(), exact.len());
            // How far apart they are, and how large; both are 0 where nothing was learned.
            let apart = |ours: &[f32], wanted: &[f32]| {
                assert_eq!(ours.len(), wanted.len());
                let differences = ours.iter().zip(wanted).map(|(ours, wanted)| f64::from(*ours) - f64::from(*wanted));
                (norm(differences), norm(doubles(wanted)))
            };
            let found: Vec<(f64, f64)> = rounded.iter().zip(&exact).map(|(ours, wanted)| apart(ours, wanted)).collect();
            assert!(found.iter().all(|(apart, of)| *apart <= 0.05 * of), "{exchange} on {size} ranks: {found:?}");
            assert!(found.iter().any(|(apart, of)| *apart > 1e-6 * of), "{exchange} on {size} ranks: nothing was rounded");
        }
    }
}
