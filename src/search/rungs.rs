//! How long trials are trained, and how many of them: successive halving (Jamieson and Talwalkar 2016), of which the paper's ImageNet
//! protocol, all trials to 10 epochs and the best one on, is a case.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::config::Config;

/// Passes over the training set, which may end within one: of a large set a tenth tells good values from bad ones.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Epochs(pub f64);

/// A length of training, and the number of trials that get it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Absent: as long as the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<Epochs>,
    pub trials: usize,
}

/// From the shortest training of all trials to the longest of the few that did best; at least one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rungs(pub Vec<Rung>);

impl Epochs {
    /// Lets `config` train so long on `samples` samples.
    pub fn give(self, config: &mut Config, samples: usize) {
        config.training.epochs = Some(self.0.ceil() as u64);
        let steps = (self.0 * (samples / config.data.batch_size) as f64).round().max(1.0);
        config.training.max_steps = (self.0.fract() > 0.0).then_some(steps as u64);
    }
}

impl fmt::Display for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} epoch{}", self.0, if self.0 == 1.0 { "" } else { "s" })
    }
}

impl Serialize for Epochs {
    /// Whole ones without a point.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 { serializer.serialize_u64(self.0 as u64) } else { serializer.serialize_f64(self.0) }
    }
}

impl Eq for Epochs {}

impl PartialOrd for Epochs {
    fn partial_cmp(&self, other: &Epochs) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Epochs {
    fn cmp(&self, other: &Epochs) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Rungs {
    /// All trials as long as the configuration says.
    pub fn plain(trials: usize) -> Rungs {
        Rungs(vec![Rung { epochs: None, trials }])
    }

    /// The same, but that each ends in an epoch of even number: alternating, those that train the forward model are.
    pub fn in_turns(&self) -> Rungs {
        let mut before = 0.0;
        let turned = self.0.iter().map(|rung| {
            let epochs = rung.epochs.map(|Epochs(own)| {
                let ends = own.ceil() + own.ceil() % 2.0;
                before = if ends <= before { before + 2.0 } else { ends };
                // One that ends within such an epoch stays as it is.
                Epochs(if before == own.ceil() { own } else { before })
            });
            Rung { epochs, ..*rung }
        });
        Rungs(turned.collect())
    }

    /// Whether all trials are trained as long as the configuration says.
    pub fn are_plain(&self) -> bool {
        matches!(self.0[..], [Rung { epochs: None, .. }])
    }

    /// Number of trials that begin.
    pub fn trials(&self) -> usize {
        self.0[0].trials
    }
}

impl fmt::Display for Rungs {
    /// As it is typed.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let rung = |rung: &Rung| format!("{}:{}", rung.epochs.map_or(String::new(), |epochs| epochs.0.to_string()), rung.trials);
        f.write_str(&self.0.iter().map(rung).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Rungs {
    type Err = String;

    /// "0.5:60,10:10,500:1": EPOCHS:TRIALS, epochs rising and trials falling.
    fn from_str(text: &str) -> Result<Rungs, String> {
        let rung = |part: &str| {
            let (epochs, trials) = part.split_once(':')?;
            let (epochs, trials): (f64, usize) = (epochs.trim().parse().ok()?, trials.trim().parse().ok()?);
            ((1e-9..=1e9).contains(&epochs) && trials > 0).then_some(Rung { epochs: Some(Epochs(epochs)), trials })
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
        let rungs: Rungs = "0.25:60, 50:10,500:1".parse().unwrap();
        let expected = [(0.25, 60), (50.0, 10), (500.0, 1)].map(|(epochs, trials)| Rung { epochs: Some(Epochs(epochs)), trials });
        assert_eq!((rungs.0.as_slice(), rungs.trials()), (expected.as_slice(), 60));
        for text in ["", "10", "10:", "0:5", "5:0", "a:b", "10:60,", "-1:3", "nan:3", "inf:3", "1:0.5"] {
            assert!(text.parse::<Rungs>().unwrap_err().contains("EPOCHS:TRIALS"), "{text}");
        }
        for text in ["10:60,10:5", "50:60,10:5", "10:5,50:6"] {
            assert!(text.parse::<Rungs>().unwrap_err().contains("must rise"), "{text}");
        }
        // Whole epochs are written as they were before there were parts.
        let written = r#"[{"epochs":0.25,"trials":60},{"epochs":50,"trials":10},{"epochs":500,"trials":1}]"#;
        assert_eq!(serde_json::to_string(&rungs).unwrap(), written);
        assert_eq!(serde_json::from_str::<Rungs>(written).unwrap(), rungs);
    }

    #[test]
    fn rungs_of_turns_end_with_the_forward_model() {
        for (given, turned) in [
            ("0.2:4,1:2,2:1", "2:4,4:2,6:1"),
            ("10:60,500:1", "10:60,500:1"),
            ("1.5:9,3:3,5:1", "1.5:9,4:3,6:1"),
            ("2.5:9,3.5:3", "4:9,6:3"),
        ] {
            let rungs = given.parse::<Rungs>().unwrap().in_turns();
            assert_eq!(rungs.to_string(), turned, "{given}");
            assert_eq!(turned.parse::<Rungs>().unwrap(), rungs, "it can be typed");
        }
    }

    #[test]
    fn a_part_of_an_epoch_is_so_many_steps() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist_fc_bp.toml");
        let mut config = Config::load(&path, &["data.batch_size=8".to_owned()]).unwrap();
        for (epochs, expected) in [(0.25, (1, Some(3))), (2.5, (3, Some(25))), (0.001, (1, Some(1))), (3.0, (3, None))] {
            Epochs(epochs).give(&mut config, 83);
            assert_eq!((config.training.epochs, config.training.max_steps), (Some(expected.0), expected.1), "{epochs}");
        }
    }
}
