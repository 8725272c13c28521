//! Evaluation: every sample once, each rank its part, the same bits on any number of ranks.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::tally::Sums;
use crate::compute::{Batch, Measure, Of};
use crate::data::{DataSet, evaluation_batches, evaluation_part};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::learner::Engine;
use crate::observe::{Doing, span};

/// What an evaluation found.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation {
    pub sums: Sums,
    pub seconds: f64,
}

impl Evaluation {
    /// Refuses errors that were counted where the loss on `data` is not finite; `advice` ends the message.
    pub fn of_finite_loss(self, data: impl Display, advice: &str) -> Result<Evaluation> {
        let loss = self.sums.mean(Measure::Loss);
        if loss.is_finite() {
            return Ok(self);
        }
        Err(Exit::NotFinite.error(format!("the loss on {data} is {loss}, so its errors mean nothing; {advice}")))
    }
}

/// Runs the network on all of `data`. Collective.
///
/// `stopped` is asked before each batch; where it says so (on all ranks alike), there is no result.
pub fn evaluate(
    engine: &mut Engine,
    data: &Arc<DataSet>,
    transport: &dyn Transport,
    mut stopped: impl FnMut() -> bool,
) -> Result<Option<Evaluation>> {
    let started = Instant::now();
    let (rank, size) = (transport.rank(), transport.size());
    let parts: Vec<usize> = (0..size).map(|rank| evaluation_part(data.len(), rank, size).len()).collect();
    let longest = parts.iter().copied().max().unwrap_or(0);
    // Ranks have parts of different length, and must ask the same number of times.
    let rounds = longest.div_ceil(engine.capacity());
    let mut batches = evaluation_batches(data.clone(), rank, size, engine.capacity(), engine.form());
    // Nothing trains an inverse here.
    let evaluated = |measure: &Measure| measure.of() != Of::TrainedInverse;
    let mut measures = [const { Vec::new() }; Measure::COUNT];
    for _ in 0..rounds {
        if stopped() {
            return Ok(None);
        }
        let next = {
            let _span = span(Doing::Load, None);
            batches.next()
        };
        let Some(batch) = next else { continue };
        let (places, batch) = batch?;
        engine.evaluate(&Batch { pixels: batch.input(), labels: &batch.labels, samples: places.len(), first: 0, step: 0 })?;
        for measure in Measure::ALL.into_iter().filter(evaluated) {
            measures[measure as usize].extend_from_slice(engine.measure(measure));
        }
        batches.recycle(batch);
    }
    for measure in Measure::ALL.into_iter().filter(evaluated) {
        let own = std::mem::take(&mut measures[measure as usize]);
        measures[measure as usize] = in_order(own, &parts, transport);
    }
    let mut sums = Sums::default();
    sums.add(measures.each_ref().map(Vec::as_slice), false);
    Ok(Some(Evaluation { sums, seconds: started.elapsed().as_secs_f64() }))
}

/// All ranks' values, in the order of the data set. Collective.
fn in_order(mut own: Vec<f32>, parts: &[usize], transport: &dyn Transport) -> Vec<f32> {
    let longest = parts.iter().copied().max().unwrap_or(0);
    own.resize(longest, 0.0);
    let all = transport.all_of(&own);
    all.chunks(longest.max(1)).zip(parts).flat_map(|(values, len)| &values[..*len]).copied().collect()
}
