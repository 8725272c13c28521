//! What maps have beside their weights' updates: as many moments as their optimiser needs, and signs that follow other weights.

use biodist::compute::Buffer;
use biodist::network::Role;

use super::stand_in::Early;
use super::{configured, learner, samples};
use crate::support::Learner;

#[test]
fn an_optimizer_has_the_moments_that_it_needs() {
    let layers = r#"network.layers=[{ kind = "dense", units = 600 }]"#;
    let sgd = |momentum: &str| format!("optimizer.forward={{ method = \"sgd\", learning_rate = 0.05, momentum = {momentum} }}");
    let optimizers = [sgd("0.0"), sgd("0.9"), "optimizer.forward.learning_rate=0.01".to_owned()];
    let taken = optimizers.each_ref().map(|optimizer| {
        let config = configured(&[layers, "learning.rule=bp", optimizer]);
        let ((mut ours, gpu), mut cpu) = (learner(&config, Early::None), Learner::new(&config, &samples(), 1));
        ours.steps(3);
        cpu.steps(3);
        for (name, map, part) in cpu.tensors() {
            for (ours, wanted) in ours.read(&name).iter().zip(cpu.read(&name)) {
                assert!((ours - wanted).abs() < 1e-5, "{optimizer}: {name} has {ours} for {wanted}");
            }
            // A CPU's checkpoint has more.
            for buffer in [Buffer::FirstMoment, Buffer::SecondMoment] {
                let values = cpu.engine.read(map, part, buffer);
                ours.engine.write(map, part, buffer, &values).unwrap();
                assert!(ours.engine.write(map, part, buffer, &values[1..]).is_err());
                assert_eq!(ours.engine.read(map, part, buffer).len(), values.len());
            }
        }
        gpu.taken.get()
    });
    // Weights and biases are padded to whole lines.
    let padded = |parameters: usize| 4 * parameters.next_multiple_of(64);
    let moments = padded(126 * 600) + padded(600) + padded(600 * 12) + padded(12);
    assert_eq!([taken[1] - taken[0], taken[2] - taken[1]], [moments; 2]);
}

#[test]
fn feedback_follows_signs_on_the_gpu_without_a_wait() {
    let conv = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 5, stride = 1 }, { kind = "conv", kernel = 3, channels = 6, stride = 2 }]"#;
    for rule in ["usf", "frsf", "brsf"] {
        for layers in [super::LAYERS, conv] {
            let config = configured(&[layers, &format!("learning.rule={rule}")]);
            let ((mut ours, gpu), mut cpu) = (learner(&config, Early::None), Learner::new(&config, &samples(), 1));
            for step in 0..4 {
                for (name, map, _) in ours.tensors() {
                    if ours.engine.maps().get(map).role != Role::Feedback {
                        continue;
                    }
                    let weights = ours.read(&name.replace("feedback.", ""));
                    for ((weight, ours), theirs) in weights.iter().zip(ours.read(&name)).zip(cpu.read(&name)) {
                        assert_eq!(ours.to_bits(), theirs.abs().copysign(*weight).to_bits(), "{rule}, {layers}: {name} after {step} steps");
                    }
                }
                gpu.log.borrow_mut().clear();
                ours.step();
                cpu.step();
                // The batch, in three parts, the optimisers' constants, and measures alone travel.
                let travelled = gpu.log.borrow().iter().filter(|entry| entry.contains("load")).count();
                assert!(travelled <= 3 + 1 + 1, "{:?}", gpu.log.borrow());
            }
        }
    }
}
