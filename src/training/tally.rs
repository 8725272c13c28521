//! What steps measured, on its way into a line of metrics.
//!
//! Each rank keeps its samples' measures until a line is due; then they are added up on all ranks in one order, that of steps and of samples
//! within the global batch. So a mean has the same bits on any number of ranks. What a checkpoint interrupts is kept in it.

use serde::{Deserialize, Serialize};

use crate::compute::{Measure, Of};
use crate::exchange::Transport;
use crate::learner::{Engine, Seconds};
use crate::rules::Phase;

/// Sums over the samples since the last line, in float64.
///
/// In JSON they are the numbers' bits: no reader or writer rounds those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredSums", into = "StoredSums")]
pub struct Sums {
    pub samples: u64,
    /// Samples that trained an inverse.
    inverse_samples: u64,
    sums: [f64; Measure::COUNT],
}

#[derive(Serialize, Deserialize)]
struct StoredSums {
    samples: u64,
    inverse_samples: u64,
    bits: [u64; Measure::COUNT],
}

impl From<StoredSums> for Sums {
    fn from(StoredSums { samples, inverse_samples, bits }: StoredSums) -> Sums {
        Sums { samples, inverse_samples, sums: bits.map(f64::from_bits) }
    }
}

impl From<Sums> for StoredSums {
    fn from(Sums { samples, inverse_samples, sums }: Sums) -> StoredSums {
        StoredSums { samples, inverse_samples, bits: sums.map(f64::to_bits) }
    }
}

impl Sums {
    /// Adds samples in their order. `inverse` where they trained one.
    pub fn add(&mut self, values: [&[f32]; Measure::COUNT], trained_inverse: bool) {
        let samples = values[Measure::Loss as usize].len() as u64;
        self.samples += samples;
        self.inverse_samples += if trained_inverse { samples } else { 0 };
        for (measure, values) in Measure::ALL.into_iter().zip(values) {
            if trained_inverse || measure.of() != Of::TrainedInverse {
                values.iter().for_each(|value| self.sums[measure as usize] += f64::from(*value));
            }
        }
    }

    pub fn sum(&self, measure: Measure) -> f64 {
        self.sums[measure as usize]
    }

    /// Over the samples that it has a meaning for.
    pub fn mean(&self, measure: Measure) -> f64 {
        let samples = if measure.of() == Of::TrainedInverse { self.inverse_samples } else { self.samples };
        self.sum(measure) / samples as f64
    }

    /// The measures that have a meaning, with their means.
    pub fn means(&self, classifies: bool) -> impl Iterator<Item = (Measure, f64)> {
        let has_meaning = move |measure: &Measure| match measure.of() {
            Of::All => true,
            Of::Classified => classifies,
            Of::TrainedInverse => self.inverse_samples > 0,
        };
        Measure::ALL.into_iter().filter(has_meaning).map(|measure| (measure, self.mean(measure)))
    }
}

/// Sums as a checkpoint keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tallied {
    /// Step of the last regular line.
    pub since: u64,
    pub sums: Sums,
}

/// Measures on their way into a line.
pub struct Tally {
    pub tallied: Tallied,
    /// This rank's, `[step][measure][sample]`.
    pending: Vec<f32>,
    /// Of each pending step, whether it trained an inverse.
    trained_inverse: Vec<bool>,
    trains_inverses: bool,
}

/// Values after which a rank's measures are added up before their line is due: 4 MB.
const MOST_PENDING: usize = 1 << 20;

impl Tally {
    pub fn new(tallied: Tallied, trains_inverses: bool) -> Tally {
        Tally { tallied, pending: Vec::new(), trained_inverse: Vec::new(), trains_inverses }
    }

    /// Takes the measures of the step that `engine` has just done. Collective, now and then.
    pub fn add(&mut self, engine: &Engine, phase: Phase, transport: &dyn Transport) {
        for measure in Measure::ALL {
            self.pending.extend_from_slice(engine.measure(measure));
        }
        self.trained_inverse.push(self.trains_inverses && phase.trains_inverse());
        if self.pending.len() >= MOST_PENDING {
            self.settle(transport);
        }
    }

    /// Adds up what all ranks measured. Collective.
    pub fn settle(&mut self, transport: &dyn Transport) {
        let steps = self.trained_inverse.len();
        if steps == 0 {
            return;
        }
        let all = transport.all_of(&self.pending);
        let (of_rank, of_step) = (self.pending.len(), self.pending.len() / steps);
        let samples = of_step / Measure::COUNT;
        for (step, trained_inverse) in self.trained_inverse.iter().enumerate() {
            for rank in all.chunks_exact(of_rank) {
                let measures = &rank[step * of_step..(step + 1) * of_step];
                let of = |measure: Measure| &measures[measure as usize * samples..(measure as usize + 1) * samples];
                self.tallied.sums.add(Measure::ALL.map(of), *trained_inverse);
            }
        }
        self.pending.clear();
        self.trained_inverse.clear();
    }

    /// The sums of a regular line at `step`; the next line begins there.
    pub fn take(&mut self, step: u64) -> Sums {
        std::mem::replace(&mut self.tallied, Tallied { since: step, sums: Sums::default() }).sums
    }
}

/// Where time went since the last line, on rank 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    pub steps: u64,
    pub samples: u64,
    /// From the beginning of each step to its end.
    pub total: f64,
    /// Waiting for data.
    pub load: f64,
    /// What the engine did.
    pub engine: Seconds,
}

impl Clock {
    /// Enters a step that took `total` seconds, `load` of them waiting for its `samples`.
    pub fn step(&mut self, samples: usize, total: f64, load: f64) {
        self.steps += 1;
        self.samples += samples as u64;
        self.total += total;
        self.load += load;
    }

    /// Takes over what `engine` has measured since it was last asked.
    pub fn absorb(&mut self, engine: &mut Engine) {
        let Seconds { compute, exchange, update } = engine.seconds();
        engine.reset_profile();
        self.engine.compute += compute;
        self.engine.exchange += exchange;
        self.engine.update += update;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_their_bits_in_a_checkpoint() {
        let sums = Sums { samples: 3, inverse_samples: 2, sums: [0.1 + 0.2, 1.0 / 3.0, f64::MIN_POSITIVE, 1e300] };
        let text = serde_json::to_string(&Tallied { since: 7, sums }).unwrap();
        // Loss, top-1, top-5, inverse loss, whatever becomes of the list of measures: checkpoints have them so.
        assert!(
            text.contains(&format!("\"bits\":[{}", (0.1f64 + 0.2).to_bits())) && text.ends_with(&format!("{}]}}}}", 1e300f64.to_bits()))
        );
        assert_eq!(serde_json::from_str::<Tallied>(&text).unwrap(), Tallied { since: 7, sums });
    }
}
