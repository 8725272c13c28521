//! That ranks on CPUs have the bits of one under every rule; how often they meet in a step and what they send, by their number. As threads of
//! this process; whole runs under mpirun are those of `end_to_end::same_bits`.

use biodist::config::Config;
use biodist::exchange::Transport;
use biodist::learner::Engine;
use biodist::network::Network;
use biodist::rules::{Inverses, definitions};

use crate::support::{Samples, config};
use crate::threads::{Counts, count_on, train_on};

/// Steps that a training of these ranks has.
const STEPS: usize = 3;

fn engine(config: &Config, network: &Network, transport: std::sync::Arc<dyn Transport>) -> Engine {
    Engine::new(config, network, transport, 1).expect("the engine can be made")
}

fn small(more: &str) -> Config {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 4, stride = 2 }, { kind = "dense", units = 21 }]"#;
    config("flat", &[layers, "learning.rule=dtp", "data.batch_size=24", more])
}

#[test]
fn ranks_of_a_host_meet_twice_a_step_and_send_nothing() {
    let samples = Samples::random([6, 7, 2], 10, 48);
    let config = small("parallel.exchange=auto");
    let alone = train_on(1, &config, &samples, &engine);
    for ranks in [2, 4, 8] {
        let (tensors, counts) = count_on(ranks, true, &config, &samples, &engine);
        assert!(tensors == alone, "{ranks} ranks have the bits of one");
        assert_eq!(counts, Counts { host_barriers: 2 * ranks * STEPS, messages: 0, bytes: 0 });
    }
}

#[test]
fn ranks_that_share_no_memory_send_each_other_no_more_messages_the_more_they_are() {
    let samples = Samples::random([6, 7, 2], 10, 48);
    let config = small("parallel.exchange=activities");
    let alone = train_on(1, &config, &samples, &engine);
    // Messages of all steps and checkpoints from one rank to another.
    let each = |ranks: usize| {
        let (tensors, counts) = count_on(ranks, false, &config, &samples, &engine);
        assert!(tensors == alone, "{ranks} ranks have the bits of one");
        assert_eq!(counts.host_barriers, 0);
        counts.messages as f64 / (ranks * (ranks - 1)) as f64
    };
    let of_two = each(2);
    for ranks in [3, 4, 8] {
        assert!(each(ranks) <= of_two, "{ranks} ranks");
    }
}

#[test]
fn every_rule_has_the_bits_of_one_rank() {
    let samples = Samples::random([6, 7, 2], 10, 24);
    let local = r#"{ kind = "local", kernel = 3, channels = 4, stride = 2 }, { kind = "local", kernel = 2, channels = 18, stride = 1 }, { kind = "dense", units = 21 }"#;
    let pools = r#"{ kind = "conv", kernel = 3, channels = 5 }, { kind = "max_pool", kernel = 2, stride = 2 }, { kind = "average_pool", kernel = 2, stride = 1 }, { kind = "dense", units = 21 }"#;
    let residual = r#"{ kind = "conv", kernel = 3, channels = 5, normalization = "batch" }, { kind = "local", kernel = 2, channels = 5, normalization = "batch", shortcut = 0, nonlinearity = "gelu" }, { kind = "max_pool", kernel = 2, stride = 2 }, { kind = "dense", units = 21, normalization = "batch", from = 0 }, { kind = "dense", units = 21, from = 2, shortcut = 3 }"#;
    for rule in definitions() {
        let networks = [(local, true), (pools, true), (residual, rule.residual)];
        for (layers, _) in networks.into_iter().filter(|(_, allowed)| *allowed) {
            let (layers, key) = (format!("network.layers=[{layers}]"), format!("learning.rule={}", rule.name));
            let mut sets = vec![layers.as_str(), &key, "data.batch_size=12", "parallel.device=cpu"];
            sets.extend((rule.inverses != Inverses::None).then_some("learning.inverse_iterations=2"));
            let config = |exchange| config("flat", &[&sets[..], &[exchange]].concat());
            let alone = train_on(1, &config("parallel.exchange=auto"), &samples, &engine);
            for (ranks, one_host) in [(2, true), (2, false), (4, true), (4, false)] {
                let exchange = if one_host { "parallel.exchange=auto" } else { "parallel.exchange=activities" };
                let (together, _) = count_on(ranks, one_host, &config(exchange), &samples, &engine);
                assert!(together == alone, "{}, {layers}: {ranks} ranks, of one host: {one_host}", rule.name);
            }
        }
    }
}
