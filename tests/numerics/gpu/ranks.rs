//! Several ranks, each with a stand-in for a GPU, exchanging through the hosts' memory.

use std::ops::Range;
use std::rc::Rc;

use biodist::compute::Batch;
use biodist::compute::device::Kernels;
use biodist::config::{Config, ExchangeChoice, Parallel, Training, Wire};
use biodist::exchange::Sharing;
use biodist::learner::{Engine, LayerDiagnostics, OptimizerSteps};
use biodist::network::{Maps, Network};
use biodist::plan::{DataFacts, Plan};
use biodist::rules::Phase;

use super::stand_in::{Early, StandIn};
use super::{NORMALIZED, configured, samples};
use crate::support::{Samples, config, distance, norm};
use crate::threads::{checkpointed, learn, lonely, on_ranks, train_on};

/// What rank 0's checkpoint holds after three steps; all ranks have the same parameters.
fn on_stand_ins(size: usize, config: &Config, samples: &Samples) -> Vec<Vec<f32>> {
    train_on(size, config, samples, &|config, network, transport| {
        Engine::on_gpu(config, network, transport, Rc::new(StandIn::new(Early::None))).expect("the engine can be made")
    })
}

#[test]
fn ranks_that_exchange_activities_have_the_bits_of_one() {
    let conv = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#;
    // Several tiles along rows and columns, of which ranks own parts.
    let wide = r#"network.layers=[{ kind = "local", kernel = 3, channels = 100, stride = 3 }, { kind = "dense", units = 200 }]"#;
    let decaying = "optimizer.forward={ learning_rate = 0.01, weight_decay = 0.1 }";
    let sgd = "optimizer.forward={ method = \"sgd\", learning_rate = 0.05, momentum = 0.9 }";
    for (rule, more) in [
        ("bp", &[conv][..]),
        ("dfa", &[]),
        ("dtp", &[]),
        ("dtp", &[wide]),
        ("fa", &[decaying]),
        ("bp", &[sgd]),
        ("ao_sdtp", &[]),
        ("l_drl", &[]),
        ("pepita", &[conv]),
        ("bp", &[NORMALIZED]),
        ("dfa", &[NORMALIZED]),
        ("kp", &[NORMALIZED]),
    ] {
        let rule = format!("learning.rule={rule}");
        let overrides: Vec<&str> = [rule.as_str(), "parallel.exchange=activities"].into_iter().chain(more.iter().copied()).collect();
        let config = configured(&overrides);
        let alone = on_stand_ins(1, &config, &samples());
        for size in [2, 4] {
            let together = on_stand_ins(size, &config, &samples());
            assert_eq!(together.len(), alone.len());
            for (index, (ours, wanted)) in together.iter().zip(&alone).enumerate() {
                let same = ours.iter().zip(wanted).all(|(ours, wanted)| ours.to_bits() == wanted.to_bits());
                assert!(same && ours.len() == wanted.len(), "{rule}, {more:?} on {size} ranks: tensor {index}");
            }
        }
    }
}

#[test]
fn maps_are_shared_as_moves_fewer_bytes_on_any_number_of_ranks() {
    let config = configured(&[
        r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#,
        "learning.rule=bp",
    ]);
    let maps = Maps::new(&Network::new([6, 7, 2], 10, &config.network).unwrap(), &config.learning.needs());
    let plan = |size, choice, samples| Sharing::plan(&maps, size, choice, samples, Kernels::Own);
    // 114 parameters for 84 + 252 units a sample; 7590 for 252 + 30; 310 for 30 + 10.
    let (factors, gradients) = (Sharing::Activities, Sharing::Gradients);
    for ranks in [2, 3, 4] {
        assert_eq!(plan(ranks, ExchangeChoice::Auto, 24 / ranks), [gradients, factors, gradients], "on {ranks} ranks");
        assert_eq!(plan(ranks, ExchangeChoice::Auto, 36 / ranks), [gradients; 3], "on {ranks} ranks");
    }
    assert_eq!(plan(2, ExchangeChoice::Auto, 3), [gradients, factors, factors]);
    assert_eq!(plan(2, ExchangeChoice::Activities, 64), [factors; 3]);
    assert_eq!(plan(2, ExchangeChoice::Gradients, 1), [gradients; 3]);
    assert_eq!(plan(1, ExchangeChoice::Auto, 1), [Sharing::None; 3]);
}

/// What a checkpoint holds.
type Saved = (Vec<Vec<f32>>, OptimizerSteps);

/// The checkpoint of `size` ranks after these steps, which begin with what was saved.
fn go_on(size: usize, config: &Config, samples: &Samples, from: Option<&Saved>, steps: Range<u64>) -> Saved {
    let network = Network::new(samples.shape, samples.classes, &config.network).unwrap();
    let mut of_ranks = on_ranks(size, |transport| {
        let mut engine = Engine::on_gpu(config, &network, transport.clone(), Rc::new(StandIn::new(Early::None))).unwrap();
        engine.initialize().unwrap();
        let tensors = checkpointed(&engine);
        if let Some((values, steps)) = from {
            tensors.iter().zip(values).for_each(|((map, part, buffer), values)| engine.write(*map, *part, *buffer, values).unwrap());
            engine.set_steps(*steps);
        }
        steps.clone().for_each(|step| learn(&mut engine, config, samples, &*transport, step));
        engine.gather();
        let all = tensors.iter().filter(|_| transport.rank() == 0);
        (all.map(|(map, part, buffer)| engine.read(*map, *part, *buffer)).collect(), engine.steps())
    });
    of_ranks.swap_remove(0)
}

#[test]
fn a_checkpoint_goes_on_on_another_number_of_ranks() {
    let config = configured(&["learning.rule=dtp", "parallel.exchange=activities"]);
    let go_on = |size, from: Option<&Saved>, steps| go_on(size, &config, &samples(), from, steps);
    let wanted = go_on(1, None, 0..4);
    for (before, after) in [(1, 4), (4, 1), (2, 4), (4, 2)] {
        let found = go_on(after, Some(&go_on(before, None, 0..2)), 2..4);
        let same =
            |(ours, wanted): (&Vec<f32>, &Vec<f32>)| bytemuck::cast_slice::<f32, u32>(ours) == bytemuck::cast_slice::<f32, u32>(wanted);
        assert!(found.0.len() == wanted.0.len() && found.0.iter().zip(&wanted.0).all(same), "from {before} ranks on {after}");
    }
}

#[test]
fn ranks_that_exchange_gradients_stay_near_one() {
    let conv = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#;
    let doubles = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
    for (rule, layers) in [("bp", Some(conv)), ("dtp", None), ("l_drl", None), ("bp", Some(NORMALIZED))] {
        for exchange in ["auto", "gradients"] {
            let (rule, exchange) = (format!("learning.rule={rule}"), format!("parallel.exchange={exchange}"));
            let overrides: Vec<&str> = [rule.as_str(), exchange.as_str()].into_iter().chain(layers).collect();
            let config = configured(&overrides);
            let alone = on_stand_ins(1, &config, &samples());
            for size in [2, 4] {
                let together = on_stand_ins(size, &config, &samples());
                for (index, (ours, wanted)) in together.iter().zip(&alone).enumerate().filter(|(_, (ours, wanted))| ours != wanted) {
                    let found = distance(&doubles(ours), &doubles(wanted));
                    assert!(found < 1e-4, "{rule}, {exchange} on {size} ranks: tensor {index} is {found:.1e} away");
                }
            }
        }
    }
}

#[test]
fn what_travels_may_be_rounded_to_half() {
    let conv = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#;
    let doubles = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
    // Adam's first steps have the size of its learning rate, however small a gradient is: SGD's tell what was rounded. The inverses of l_drl,
    // which learn by Adam, need only be the same on all ranks.
    let cases = [("bp", Some(conv), 3e-2), ("dtp", None, 3e-2), ("l_drl", None, f64::INFINITY), ("bp", Some(NORMALIZED), 3e-2)];
    for (rule, layers, most) in cases {
        for exchange in ["activities", "gradients"] {
            let (rule, exchange) = (format!("learning.rule={rule}"), format!("parallel.exchange={exchange}"));
            let sgd = "optimizer.forward={ method = \"sgd\", learning_rate = 0.05, momentum = 0.9 }";
            let overrides: Vec<&str> = [rule.as_str(), exchange.as_str(), sgd, "parallel.wire=bf16"].into_iter().chain(layers).collect();
            let config = configured(&overrides);
            let alone = on_stand_ins(1, &config, &samples());
            for size in [2, 4] {
                // Replicas that differ are seen there.
                let together = on_stand_ins(size, &config, &samples());
                let apart = together.iter().zip(&alone).map(|(ours, wanted)| match norm(doubles(wanted)) {
                    0.0 => 0.0,
                    _ => distance(&doubles(ours), &doubles(wanted)),
                });
                let farthest = apart.fold(0.0, f64::max);
                assert!((1e-5..most).contains(&farthest), "{rule}, {exchange} on {size} ranks: {farthest:.1e} away");
            }
        }
    }
}

#[test]
fn ranks_measure_the_diagnostics_of_one() {
    let samples = samples();
    let cases = [("dtp", super::LAYERS), ("fa", NORMALIZED)];
    for ((rule, layers), exchange) in cases.into_iter().flat_map(|case| ["activities", "gradients"].map(|exchange| (case, exchange))) {
        let (rule, way) = (format!("learning.rule={rule}"), format!("parallel.exchange={exchange}"));
        let config = configured(&[layers, &rule, "training.diagnostics=true", &way]);
        let network = Network::new(samples.shape, samples.classes, &config.network).unwrap();
        let measured = |size: usize| {
            let mut of_ranks = on_ranks(size, |transport| {
                let (rank, each, units) = (transport.rank(), 8 / size, samples.units());
                let gpu = Rc::new(StandIn::new(Early::None));
                let mut engine = Engine::on_gpu(&config, &network, transport, gpu).unwrap();
                engine.initialize().unwrap();
                let pixels = (&samples.pixels[rank * each * units..(rank + 1) * each * units]).into();
                let labels = &samples.labels[rank * each..(rank + 1) * each];
                let batch = Batch { pixels, labels, samples: each, first: rank * each, step: 0 };
                let first = engine.diagnose(&batch).unwrap();
                engine.learn(&batch, Phase::Both, 1.0).unwrap();
                first
            });
            assert!(of_ranks.iter().all(|layers| *layers == of_ranks[0]), "ranks differ");
            of_ranks.swap_remove(0)
        };
        let alone = measured(1);
        assert!(alone.iter().any(|layer| layer.angle_degrees.is_some_and(|angle| angle > 1.0)), "{alone:?}");
        for size in [2, 4] {
            let together = measured(size);
            for (ours, wanted) in together.iter().zip(&alone) {
                if exchange == "activities" {
                    assert_eq!(ours, wanted, "{size} ranks");
                }
                let near = |ours: Option<f64>, wanted: Option<f64>| match (ours, wanted) {
                    (Some(ours), Some(wanted)) => (ours - wanted).abs() < 1e-3 * wanted.abs().max(1e-3),
                    (ours, wanted) => ours == wanted,
                };
                let all =
                    |layer: &LayerDiagnostics| [layer.angle_degrees, layer.norm_ratio, layer.reconstruction_error, layer.target_diversity];
                assert!(all(ours).into_iter().zip(all(wanted)).all(|(ours, wanted)| near(ours, wanted)), "{size}: {ours:?}, {wanted:?}");
            }
        }
    }
}

#[test]
fn ranks_meet_between_graphs_where_layers_are_normalized() {
    let samples = samples();
    let config = configured(&["learning.rule=bp", NORMALIZED]);
    let network = Network::new(samples.shape, samples.classes, &config.network).unwrap();
    // Once a layer on the way up, and once on the way down: each meeting ends a graph. Nobody meets one rank.
    for (size, graphs) in [(1, 1), (2, 3 + 3 + 1)] {
        let replays = on_ranks(size, |transport| {
            let (rank, each, units) = (transport.rank(), 8 / size, samples.units());
            let gpu = Rc::new(StandIn::new(Early::None));
            let mut engine = Engine::on_gpu(&config, &network, transport, gpu.clone()).unwrap();
            engine.initialize().unwrap();
            for step in 0..4 {
                let pixels = (&samples.pixels[rank * each * units..(rank + 1) * each * units]).into();
                let labels = &samples.labels[rank * each..(rank + 1) * each];
                engine.learn(&Batch { pixels, labels, samples: each, first: rank * each, step }, Phase::Both, 1.0).unwrap();
            }
            gpu.replays.get()
        });
        // The first step is done one by one; the updates are one graph.
        assert_eq!(replays, vec![3 * (graphs + 1); size]);
    }
}

#[test]
fn a_plan_tells_the_memory_that_a_gpu_needs() {
    for (rule, exchange) in [
        ("bp", "activities"),
        ("dtp", "auto"),
        ("sdtp", "gradients"),
        ("l_drl", "activities"),
        ("l_drl", "gradients"),
        ("pepita", "activities"),
    ] {
        let (exchange, normalized) =
            (format!("parallel.exchange={exchange}"), ["", ", normalization = \"batch\""][usize::from(rule == "bp")]);
        let layers = format!(
            "network.layers=[{{ kind = \"local\", kernel = 5, channels = 32, stride = 1{normalized} }}, \
             {{ kind = \"dense\", units = 600{normalized} }}]"
        );
        let config = configured(&[&format!("learning.rule={rule}"), &exchange, &layers]);
        let samples = Samples::random([14, 14, 16], 10, 24);
        for (ranks, diagnostics, wire) in [(1, false, Wire::F32), (2, false, Wire::F32), (2, true, Wire::F32), (2, false, Wire::Bf16)] {
            let (training, parallel) = (config.training.clone(), config.parallel.clone());
            let config =
                Config { training: Training { diagnostics, ..training }, parallel: Parallel { wire, ..parallel }, ..config.clone() };
            let plan = Plan::new(&config, &DataFacts::of_shape(samples.shape, samples.classes), ranks).unwrap();
            let (network, gpu) = (&plan.network, Rc::new(StandIn::new(Early::All)));
            let _engine = Engine::on_gpu(&config, network, lonely(ranks - 1, ranks), gpu.clone()).expect("the engine can be made");
            // The rest is tables, measures, and partial sums.
            let (planned, taken) = (plan.gpu_memory.whole() as f64, gpu.taken.get() as f64);
            assert!(planned <= taken && taken < 1.1 * planned, "{rule}, {exchange}, {ranks} ranks: {planned} planned, {taken} taken");
        }
    }
}

#[test]
fn what_one_rank_alone_computes_needs_no_exchange() {
    let config = config("flat", &["learning.rule=bp", "parallel.wire=bf16", "data.batch_size=8"]);
    assert_eq!(on_stand_ins(1, &config, &Samples::random([5, 4, 1], 10, 24)).len(), 6);
}
