//! The output that the engine hands out is the one whose loss it measures.

use biodist::compute::{Batch, Measure};

use crate::support::{Learner, Samples, config};

#[test]
fn an_autoencoders_loss_is_the_distance_of_its_output() {
    for name in ["dense_autoencoder", "local_autoencoder"] {
        let config = config(name, &[]);
        let samples = Samples::random([6, 5, 2], 10, 7);
        let on_tensors = Learner::on_tensors(&config, &samples).into_iter().map(|(_, learner)| learner);
        for mut learner in [Learner::new(&config, &samples, 2)].into_iter().chain(on_tensors) {
            // Fewer samples than there is room for.
            let count = config.data.batch_size.min(7) - 1;
            let pixels = &samples.pixels[..count * samples.units()];
            learner.engine.evaluate(&Batch { pixels: pixels.into(), labels: &[], samples: count, first: 0, step: 0 }).unwrap();
            let output = learner.engine.output().unwrap();
            assert_eq!(output.len(), pixels.len(), "{name}");
            for (sample, measured) in learner.engine.measure(Measure::Loss).iter().enumerate() {
                let of_sample = sample * samples.units()..(sample + 1) * samples.units();
                let squares = output[of_sample.clone()].iter().zip(&pixels[of_sample]).map(|(h, x)| f64::from(h - x).powi(2));
                let loss: f64 = squares.sum();
                assert!((loss - f64::from(*measured)).abs() < 1e-4 * loss, "{name}: {loss} for {measured}");
            }
        }
    }
}
