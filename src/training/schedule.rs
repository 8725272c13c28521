//! Which model learns when, and how long: pure functions of the number of steps done, so that a resumed run needs to know nothing else.

use crate::config::{self, Config, LearningRateSchedule, Optimizer};
use crate::data::Position;
use crate::rules::Phase;

#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    alternating: bool,
    steps_per_epoch: usize,
    epochs: Option<u64>,
    max_steps: Option<u64>,
    /// Epochs and steps.
    eval_every: (u64, u64),
    rates: Rates,
}

/// How learning rates change, in epochs.
#[derive(Clone, Copy, Debug)]
struct Rates {
    schedule: LearningRateSchedule,
    warmup: f64,
    /// Of one step to the next, and what it multiplies by.
    step: (u64, f64),
    /// The end of the cosine.
    end: f64,
}

impl Rates {
    fn new(optimizer: &Optimizer) -> Rates {
        Rates {
            schedule: optimizer.learning_rate_schedule,
            warmup: optimizer.warmup_epochs,
            step: (optimizer.step_epochs, optimizer.step_factor),
            end: optimizer.cosine_epochs.unwrap_or(f64::INFINITY),
        }
    }
}

impl Schedule {
    pub fn new(config: &Config, steps_per_epoch: usize) -> Schedule {
        assert!(steps_per_epoch > 0, "an epoch has at least one batch");
        Schedule {
            alternating: config.schedule() == config::Schedule::Alternating,
            steps_per_epoch,
            epochs: config.training.epochs,
            max_steps: config.training.max_steps,
            eval_every: (config.training.eval_every_epochs, config.training.eval_every_steps),
            rates: Rates::new(&config.optimizer),
        }
    }

    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// The batch that comes after `step` steps. Every pass over the data is an epoch, and its steps are steps, whichever model learns.
    pub fn position(&self, step: u64) -> Position {
        Position::after(step, self.steps_per_epoch)
    }

    /// What learns in the epoch that follows `epoch` others: in turn the inverse and then the forward model, or both.
    pub fn phase(&self, epoch: u64) -> Phase {
        match (self.alternating, epoch % 2) {
            (false, _) => Phase::Both,
            (true, 0) => Phase::Inverse,
            (true, _) => Phase::Forward,
        }
    }

    /// Where the run ends in an epoch that trains the inverses alone, and so leaves what is tested as it was: the epochs before that one.
    pub fn ends_with_inverses(&self) -> Option<u64> {
        let epoch = self.position(self.last_step().checked_sub(1)?).epoch;
        (self.phase(epoch) == Phase::Inverse).then_some(epoch)
    }

    /// What learning rates are multiplied by in the step that follows `step` others.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let Rates { schedule, warmup, step: (every, factor), end } = self.rates;
        let epochs = |steps: u64| steps as f64 / self.steps_per_epoch as f64;
        let risen = (epochs(step + 1) / warmup).min(1.0);
        let fallen = match schedule {
            LearningRateSchedule::Constant => 1.0,
            LearningRateSchedule::Step => factor.powf((self.position(step).epoch / every) as f64),
            LearningRateSchedule::Cosine => {
                let part = (epochs(step) - warmup) / (end - warmup);
                0.5 + 0.5 * (std::f64::consts::PI * part.clamp(0.0, 1.0)).cos()
            }
        };
        risen * fallen
    }

    /// Steps of the whole run: epochs or max_steps, whichever comes first.
    pub fn last_step(&self) -> u64 {
        let of_epochs = self.epochs.map(|epochs| epochs.saturating_mul(self.steps_per_epoch as u64));
        [of_epochs, self.max_steps].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Whether the network is evaluated after `step` steps: every so many epochs or steps, and at the end.
    pub fn evaluates(&self, step: u64) -> bool {
        let (epochs, steps) = self.eval_every;
        let by_steps = steps > 0 && step.is_multiple_of(steps);
        by_steps || self.every_epochs(epochs, step) || (epochs, steps) != (0, 0) && step == self.last_step()
    }

    /// Whether something that is due every so many epochs (0: never) is due after `step` steps.
    pub fn every_epochs(&self, epochs: u64, step: u64) -> bool {
        let position = self.position(step);
        epochs > 0 && position.epoch > 0 && position.batch == 0 && position.epoch.is_multiple_of(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(alternating: bool, epochs: Option<u64>, max_steps: Option<u64>) -> Schedule {
        let rates = Rates { schedule: LearningRateSchedule::Constant, warmup: 0.0, step: (30, 0.1), end: f64::INFINITY };
        Schedule { alternating, steps_per_epoch: 10, epochs, max_steps, eval_every: (2, 0), rates }
    }

    #[test]
    fn learning_rates_rise_and_fall_as_asked() {
        let with = |kind, warmup| {
            let schedule = schedule(false, Some(100), None);
            Schedule { rates: Rates { schedule: kind, warmup, step: (20, 0.5), end: 42.0 }, ..schedule }
        };
        let constant = with(LearningRateSchedule::Constant, 0.0);
        assert!((0..1000).all(|step| constant.learning_rate(step) == 1.0));
        let warm = with(LearningRateSchedule::Constant, 2.0);
        let rates: Vec<f64> = [0, 1, 9, 18, 19, 20, 500].map(|step| warm.learning_rate(step)).into();
        assert_eq!(rates, [0.05, 0.1, 0.5, 0.95, 1.0, 1.0, 1.0]);
        let steps = with(LearningRateSchedule::Step, 0.0);
        let rates: Vec<f64> = [0, 199, 200, 399, 400, 600].map(|step| steps.learning_rate(step)).into();
        assert_eq!(rates, [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]);
        let cosine = with(LearningRateSchedule::Cosine, 2.0);
        for (step, rate) in
            [(9, 0.5), (19, 1.0), (20, 1.0), (120, 0.853_553_390_6), (220, 0.5), (320, 0.146_446_609_4), (420, 0.0), (999, 0.0)]
        {
            assert!((cosine.learning_rate(step) - rate).abs() < 1e-10, "{step}: {}", cosine.learning_rate(step));
        }
    }

    #[test]
    fn whole_epochs_alternate_and_the_inverse_model_begins() {
        let schedule = schedule(true, Some(3), None);
        let phases: Vec<Phase> = (0..30).map(|step| schedule.phase(schedule.position(step).epoch)).collect();
        assert!(phases[..10].iter().all(|phase| *phase == Phase::Inverse));
        assert!(phases[10..20].iter().all(|phase| *phase == Phase::Forward));
        assert!(phases[20..].iter().all(|phase| *phase == Phase::Inverse), "an odd number of epochs ends with an inverse one");
        assert_eq!(schedule.ends_with_inverses(), Some(2));
    }

    #[test]
    fn whichever_comes_first_ends_a_run() {
        assert_eq!(schedule(false, Some(3), None).last_step(), 30);
        assert_eq!(schedule(false, Some(3), Some(25)).last_step(), 25);
        assert_eq!(schedule(false, Some(3), Some(40)).last_step(), 30);
        assert_eq!(schedule(false, None, Some(40)).last_step(), 40);
        assert_eq!(schedule(false, Some(0), None).last_step(), 0);
    }

    #[test]
    fn evaluations_come_by_epochs_by_steps_and_at_the_end() {
        let of = |eval_every| {
            let schedule = Schedule { eval_every, ..schedule(false, None, Some(25)) };
            (0..=25).filter(|step| schedule.evaluates(*step)).collect::<Vec<u64>>()
        };
        assert_eq!(of((1, 0)), [10, 20, 25]);
        assert_eq!(of((0, 8)), [0, 8, 16, 24, 25]);
        assert_eq!(of((2, 15)), [0, 15, 20, 25]);
        assert_eq!(of((0, 0)), [] as [u64; 0]);
    }

    #[test]
    fn intervals_of_epochs_end_with_an_epoch() {
        let schedule = schedule(false, Some(9), None);
        let due: Vec<u64> = (0..=90).filter(|step| schedule.every_epochs(3, *step)).collect();
        assert_eq!(due, [30, 60, 90]);
        assert!((0..=90).all(|step| !schedule.every_epochs(0, step)));
        let evaluated: Vec<u64> = (0..=90).filter(|step| schedule.evaluates(*step)).collect();
        assert_eq!(evaluated, [20, 40, 60, 80, 90]);
    }
}
