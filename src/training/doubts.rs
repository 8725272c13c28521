//! What of a run's length and of its schedules is seldom meant. Nothing of it is wrong, so it is said and not refused: a run that is cut by
//! another key than the one that was typed, one that ends with what no test shows, and learning rates that do not go where they were to go.

use std::collections::BTreeSet;

use super::schedule::Schedule;
use crate::config::{Config, LearningRateSchedule, Training};

const EPOCHS: &str = "training.epochs";
const STEPS: &str = "training.max_steps";

/// Each with the keys, their values, and what to type instead. `typed` holds the keys of the command line.
pub fn doubts(config: &Config, steps_per_epoch: usize, typed: &BTreeSet<String>) -> Vec<String> {
    let run = Length::new(config, steps_per_epoch);
    if run.schedule.last_step() == 0 {
        return Vec::new();
    }
    [run.cut(typed), no_turns(config, typed), run.ends_with_inverses(), run.rates(config)].into_iter().flatten().collect()
}

/// Who types the schedule is told that it changes nothing, as of any key.
fn no_turns(config: &Config, typed: &BTreeSet<String>) -> Option<String> {
    let wanted = config.learning.schedule != config.schedule() && !typed.contains("learning.schedule");
    wanted.then(|| {
        "learning.schedule is \"alternating\" and learning.inverses \"fixed\": nothing is trained in epochs of inverses, so every epoch trains \
         the forward model, as under \"parallel\""
            .to_owned()
    })
}

/// What to type for a run of `config` to last for `epochs` epochs, where it is shorter.
pub fn longer(config: &Config, steps_per_epoch: usize, epochs: u64) -> String {
    Length::new(config, steps_per_epoch).longer(epochs)
}

struct Length<'a> {
    training: &'a Training,
    schedule: Schedule,
}

impl<'a> Length<'a> {
    fn new(config: &'a Config, steps_per_epoch: usize) -> Length<'a> {
        Length { training: &config.training, schedule: Schedule::new(config, steps_per_epoch) }
    }

    fn steps(&self, epochs: u64) -> u64 {
        epochs.saturating_mul(self.schedule.steps_per_epoch() as u64)
    }

    /// What ends the run.
    fn end(&self) -> String {
        match *self.training {
            Training { epochs: Some(epochs), max_steps, .. } if max_steps.is_none_or(|steps| self.steps(epochs) <= steps) => {
                format!("{EPOCHS} = {epochs}")
            }
            Training { max_steps, .. } => format!("{STEPS} = {}", max_steps.unwrap_or(u64::MAX)),
        }
    }

    fn longer(&self, epochs: u64) -> String {
        let own = self.training.epochs.filter(|own| *own < epochs).map(|_| format!("{EPOCHS}={epochs}"));
        let steps = self.training.max_steps.filter(|steps| *steps < self.steps(epochs)).map(|_| format!("{STEPS}={}", self.steps(epochs)));
        [own, steps].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Of the two keys of a run's length one was typed, and the other, which stands in a file, ends it earlier.
    fn cut(&self, typed: &BTreeSet<String>) -> Option<String> {
        let (epochs, steps) = (self.training.epochs?, self.training.max_steps?);
        let (of_epochs, of_step) = (self.steps(epochs), self.schedule.steps_per_epoch() as u64);
        let (given, instead) = match (typed.contains(EPOCHS), typed.contains(STEPS)) {
            (true, false) if steps < of_epochs => (format!("{EPOCHS} = {epochs}"), format!("{STEPS}={of_epochs}")),
            (false, true) if of_epochs < steps => (format!("{STEPS} = {steps}"), format!("{EPOCHS}={}", steps.div_ceil(of_step))),
            _ => return None,
        };
        Some(format!("{given} was given, and {} ends the run earlier; {instead} trains all of it", self.end()))
    }

    fn ends_with_inverses(&self) -> Option<String> {
        let before = self.schedule.ends_with_inverses()?;
        let stays = if before == 0 { "began".to_owned() } else { format!("was after epoch {before}") };
        Some(format!(
            "learning.schedule is \"alternating\", and {} ends the run in epoch {}, which trains the inverses alone: the forward model, \
             which is tested, stays as it {stays}; {} ends with the forward model",
            self.end(),
            before + 1,
            self.longer(before + 2)
        ))
    }

    fn rates(&self, config: &Config) -> Option<String> {
        let optimizer = &config.optimizer;
        let (last, per_epoch) = (self.schedule.last_step(), self.schedule.steps_per_epoch() as f64);
        let (end, length, warmup) = (self.end(), last as f64 / per_epoch, optimizer.warmup_epochs);
        let cosine = optimizer.cosine_epochs.filter(|_| optimizer.learning_rate_schedule == LearningRateSchedule::Cosine);
        let every = Some(optimizer.step_epochs).filter(|_| optimizer.learning_rate_schedule == LearningRateSchedule::Step);
        if warmup > 0.0 && warmup >= length {
            let (never, and) = cosine.map_or((String::new(), String::new()), |cosine| {
                (format!(", and the fall to optimizer.cosine_epochs = {cosine} never begins"), format!(" optimizer.cosine_epochs={length}"))
            });
            let instead = format!("optimizer.warmup_epochs=0{and}");
            return Some(format!(
                "optimizer.warmup_epochs = {warmup} fills the run, which {end} ends, so that learning rates only rise{never}; {instead} \
                 leaves the rise out"
            ));
        }
        // To the step.
        if let Some(cosine) = cosine.filter(|cosine| ((cosine - length) * per_epoch).abs() > 0.5) {
            let what = if cosine < length {
                "is before the run ends, so that learning rates are 0 in the rest of it".to_owned()
            } else {
                let left = 100.0 * self.schedule.learning_rate(last - 1);
                format!("is after the run ends, so that learning rates fall to {left:.0} % and no further")
            };
            return Some(format!("optimizer.cosine_epochs = {cosine} {what} ({end}); optimizer.cosine_epochs={length} ends with it"));
        }
        let every = every.filter(|every| self.schedule.position(last - 1).epoch < *every)?;
        let half = (length / 2.0) as u64;
        let instead = match half {
            0 => "optimizer.learning_rate_schedule=constant is the same".to_owned(),
            half => format!("optimizer.step_epochs={half} has them fall"),
        };
        Some(format!("optimizer.step_epochs = {every} is not before the run ends, so that learning rates never fall ({end}); {instead}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What is said of a run with `sets`, of which those before `typed` stand in a file, with eleven steps an epoch.
    fn said(file: &[&str], typed: &[&str]) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist_fc_dtp_parallel.toml");
        let sets: Vec<String> = [file, typed].concat().iter().map(|set| set.to_string()).collect();
        let typed = typed.iter().map(|set| set.split('=').next().unwrap().to_owned()).collect();
        doubts(&Config::load(&path, &sets).unwrap(), 11, &typed)
    }

    #[test]
    fn what_cuts_a_typed_length_is_named() {
        let [said_of_epochs] = &said(&["training.max_steps=11"], &["training.epochs=3"])[..] else { panic!("one doubt") };
        assert!(said_of_epochs.starts_with("training.epochs = 3 was given, and training.max_steps = 11 ends the run earlier"));
        assert!(said_of_epochs.contains("; training.max_steps=33 trains"), "{said_of_epochs}");
        let [said_of_steps] = &said(&["training.epochs=2"], &["training.max_steps=100"])[..] else { panic!("one doubt") };
        assert!(said_of_steps.contains("training.epochs = 2 ends") && said_of_steps.contains("; training.epochs=10 trains"));
        let meant: [(&[&str], &[&str]); 4] = [
            (&["training.max_steps=33"], &["training.epochs=3"]),
            (&["training.epochs=3"], &["training.max_steps=7"]),
            (&[], &["training.epochs=3", "training.max_steps=7"]),
            (&["training.epochs=3", "training.max_steps=7"], &[]),
        ];
        meant.iter().for_each(|(file, typed)| assert!(said(file, typed).is_empty(), "{file:?} {typed:?}"));
    }

    #[test]
    fn a_run_that_ends_with_its_inverses_is_told_how_to_end_otherwise() {
        let fixed = "learning.inverses=fixed";
        let [doubt] = &said(&["learning.schedule=alternating", "training.epochs=3"], &[fixed])[..] else { panic!("one doubt") };
        assert!(doubt.contains("every epoch trains the forward model"), "{doubt}");
        assert!(said(&[fixed, "training.epochs=3"], &["learning.schedule=alternating"]).is_empty(), "it is said to change nothing");
        let of = |length: &[&str]| said(&["learning.schedule=alternating"], length);
        for (length, stays, instead) in [
            (&["training.epochs=1"][..], "stays as it began", "; training.epochs=2 ends"),
            (&["training.epochs=3"], "was after epoch 2", "; training.epochs=4 ends"),
            (&["training.max_steps=5"], "stays as it began", "; training.max_steps=22 ends"),
            (&["training.epochs=1", "training.max_steps=5"], "stays as it began", "; training.epochs=2 training.max_steps=22 ends"),
        ] {
            let [said] = &of(length)[..] else { panic!("one doubt of {length:?}: {:?}", of(length)) };
            assert!(said.contains(stays) && said.contains(instead), "{said}");
        }
        for length in [["training.epochs=2"], ["training.max_steps=12"], ["training.epochs=0"]] {
            assert!(of(&length).is_empty(), "{length:?}");
        }
        assert!(said(&[], &["training.epochs=3"]).is_empty(), "in parallel both learn");
    }

    #[test]
    fn schedules_that_do_not_fit_the_run_are_named() {
        let of = |sets: &[&str]| said(&["training.epochs=4"], sets);
        let (cosine, steps) = ("optimizer.learning_rate_schedule=cosine", "optimizer.learning_rate_schedule=step");
        for (sets, words) in [
            (&[cosine, "optimizer.cosine_epochs=3"][..], "optimizer.cosine_epochs = 3 is before the run ends"),
            // The last step, number 43 of 88, comes just before the middle.
            (&[cosine, "optimizer.cosine_epochs=8"], "fall to 52 % and no further (training.epochs = 4); optimizer.cosine_epochs=4 ends"),
            (&["optimizer.warmup_epochs=4"], "optimizer.warmup_epochs = 4 fills the run, which training.epochs = 4 ends"),
            (
                &[cosine, "optimizer.cosine_epochs=60", "optimizer.warmup_epochs=5"],
                "optimizer.cosine_epochs = 60 never begins; optimizer.warmup_epochs=0 optimizer.cosine_epochs=4 leaves",
            ),
            (&[steps], "optimizer.step_epochs = 30 is not before the run ends"),
            (&[steps, "training.epochs=1"], "optimizer.learning_rate_schedule=constant is the same"),
        ] {
            let [said] = &of(sets)[..] else { panic!("one doubt of {sets:?}: {:?}", of(sets)) };
            assert!(said.contains(words), "{words:?} in {said}");
        }
        for meant in [&[cosine, "optimizer.cosine_epochs=4", "optimizer.warmup_epochs=3"][..], &[steps, "optimizer.step_epochs=3"], &[]] {
            assert!(of(meant).is_empty(), "{meant:?}: {:?}", of(meant));
        }
    }
}
