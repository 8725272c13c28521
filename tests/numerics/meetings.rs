//! How often ranks on CPUs meet in a step and what they send, by their number: as threads of this process.

use biodist::config::Config;
use biodist::exchange::Transport;
use biodist::learner::Engine;
use biodist::network::Network;

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
