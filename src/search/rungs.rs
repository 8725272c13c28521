//! How long trials are trained, and how many of them: successive halving (Jamieson and Talwalkar 2016), of which the paper's ImageNet
//! protocol, all trials to 10 epochs and the best one on, is a case.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A length of training, and the number of trials that get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Absent: as long as the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    pub trials: usize,
}

/// From the shortest training of all trials to the longest of the few that did best; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rungs(pub Vec<Rung>);

impl Rungs {
    /// All trials as long as the configuration says.
    pub fn plain(trials: usize) -> Rungs {
        Rungs(vec![Rung { epochs: None, trials }])
    }

    /// Number of trials that begin.
    pub fn trials(&self) -> usize {
        self.0[0].trials
    }
}

impl FromStr for Rungs {
    type Err = String;

    /// "10:60,50:10,500:1": EPOCHS:TRIALS, epochs rising and trials falling.
    fn from_str(text: &str) -> Result<Rungs, String> {
        let rung = |part: &str| {
            let (epochs, trials) = part.split_once(':')?;
            let (epochs, trials) = (epochs.trim().parse().ok()?, trials.trim().parse().ok()?);
            (epochs > 0 && trials > 0).then_some(Rung { epochs: Some(epochs), trials })
        };
        let rungs: Option<Vec<Rung>> = text.split(',').map(rung).collect();
        let rungs = rungs.ok_or("expected EPOCHS:TRIALS,EPOCHS:TRIALS,..., such as 10:60,500:1")?;
        if rungs.windows(2).any(|pair| pair[0].epochs >= pair[1].epochs || pair[0].trials < pair[1].trials) {
            return Err("epochs must rise from rung to rung, and the number of trials must not".to_owned());
        }
        Ok(Rungs(rungs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_read_and_their_mistakes_named() {
        let rungs: Rungs = "10:60, 50:10,500:1".parse().unwrap();
        let expected = [(10, 60), (50, 10), (500, 1)].map(|(epochs, trials)| Rung { epochs: Some(epochs), trials });
        assert_eq!((rungs.0.as_slice(), rungs.trials()), (expected.as_slice(), 60));
        for text in ["", "10", "10:", "0:5", "5:0", "a:b", "10:60,", "-1:3"] {
            assert!(text.parse::<Rungs>().unwrap_err().contains("EPOCHS:TRIALS"), "{text}");
        }
        for text in ["10:60,10:5", "50:60,10:5", "10:5,50:6"] {
            assert!(text.parse::<Rungs>().unwrap_err().contains("must rise"), "{text}");
        }
    }
}
