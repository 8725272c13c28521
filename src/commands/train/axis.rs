//! What `--vary` and `--seeds` take: lists of values, of which each names a folder.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub const SEED: &str = "experiment.seed";

/// A key, and the values that are trained with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    pub key: String,
    pub values: Vec<String>,
}

impl Axis {
    pub fn of_seeds(seeds: &[Seeds]) -> Axis {
        Axis { key: SEED.to_owned(), values: seeds.iter().flat_map(|seeds| seeds.0.clone()).map(|seed| seed.to_string()).collect() }
    }

    /// The last part of the key: `auxiliary_units` of `learning.auxiliary_units`.
    pub fn name(&self) -> &str {
        self.key.rsplit('.').next().expect("a text has a last part")
    }

    /// The folder of the runs with value number `value`.
    pub fn folder(&self, value: usize) -> String {
        let text = &self.values[value];
        let part = folder(text).unwrap_or_else(|| format!("number_{value}"));
        format!("{}_{part}", self.name())
    }
}

/// What a shell or a file system takes for something else than a part of a name.
const UNSAFE: [char; 10] = ['/', '\\', '[', ']', '{', '}', '"', '\'', ',', '='];
/// Bytes of a value in a folder's name.
const LONGEST: usize = 80;

/// A value as a part of a folder's name: `[0.1, 0.2]` is `0.1_0.2`. None of one that is too long to be read there.
fn folder(value: &str) -> Option<String> {
    if !value.contains(UNSAFE) {
        return Some(value.to_owned());
    }
    let parts = value.split(|c: char| UNSAFE.contains(&c) || c.is_whitespace()).filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join("_");
    (!name.is_empty() && name.len() <= LONGEST).then_some(name)
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.values.join(","))
    }
}

impl FromStr for Axis {
    type Err = String;

    /// KEY=VALUE,VALUE,...
    fn from_str(text: &str) -> Result<Axis, String> {
        let (key, values) = text.split_once('=').ok_or("write KEY=VALUE,VALUE,..., for instance learning.auxiliary_units=8,32,128")?;
        let values =
            split(values).ok_or_else(|| format!("{values}: a bracket or a quote has no other; arrays are written [0.1,0.2],[0.3,0.4]"))?;
        if values.iter().any(String::is_empty) {
            return Err("there is no value before or after one of the commas; write KEY=VALUE,VALUE,...".to_owned());
        }
        Ok(Axis { key: key.trim().to_owned(), values })
    }
}

/// What stands between the commas of `text` that are in no array, table or quotes; None where one of these does not end.
fn split(text: &str) -> Option<Vec<String>> {
    let mut values = vec![String::new()];
    let mut quote = None;
    let mut open = Vec::new();
    for c in text.chars() {
        match (quote, c) {
            (Some(quoted), _) => quote = Some(quoted).filter(|quoted| *quoted != c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => open.push(']'),
            (None, '{') => open.push('}'),
            (None, ']' | '}') => {
                open.pop().filter(|expected| *expected == c)?;
            }
            (None, ',') if open.is_empty() => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        values.last_mut().expect("there is one").push(c);
    }
    (quote.is_none() && open.is_empty()).then(|| values.iter().map(|value| value.trim().to_owned()).collect())
}

/// One seed, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(RangeInclusive<u64>);

/// Seeds of a range; more are a slip of the finger.
const MOST_SEEDS: u64 = 10_000;

impl FromStr for Seeds {
    type Err = String;

    /// SEED, or FIRST-LAST.
    fn from_str(text: &str) -> Result<Seeds, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u64>(), last.trim().parse::<u64>()) else {
            return Err("expected whole numbers, 0 or more, and ranges of them, for instance 0,1,2 or 0-4".to_owned());
        };
        if first > last {
            return Err(format!("a range begins with the lower seed: {last}-{first}"));
        }
        if last - first >= MOST_SEEDS {
            return Err(format!("a range has at most {MOST_SEEDS} seeds"));
        }
        Ok(Seeds(first..=last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_read_from_key_and_values() {
        let axis: Axis = "learning.auxiliary_units=2, 8,32".parse().unwrap();
        assert_eq!((axis.name(), axis.values.len()), ("auxiliary_units", 3));
        assert_eq!((axis.folder(0), axis.folder(1)), ("auxiliary_units_2".to_owned(), "auxiliary_units_8".to_owned()));
        let axis: Axis = "learning.sigma=[0.1, 0.2],0.3,[[1],[2]]".parse().unwrap();
        assert_eq!(axis.values, ["[0.1, 0.2]", "0.3", "[[1],[2]]"]);
        assert_eq!([0, 1, 2].map(|value| axis.folder(value)), ["sigma_0.1_0.2", "sigma_0.3", "sigma_1_2"]);
        let axis: Axis = r#"network.layers=[{kind="dense",units=2}],[],["a]", 'b"[']"#.parse().unwrap();
        assert_eq!([0, 1, 2].map(|value| axis.folder(value)), ["layers_kind_dense_units_2", "layers_number_1", "layers_a_b"]);
        assert!(format!("a.b=[{}]", ["1"; 99].join(",")).parse::<Axis>().unwrap().folder(0) == "b_number_0", "it would be too long");
        assert_eq!("data.train=a/b,c".parse::<Axis>().unwrap().folder(0), "train_a_b");
        for wrong in ["learning.hybrid", "learning.hybrid=", "learning.hybrid=1,,2", "data.crop=[28,28", "a=1]", "a=[1}", "a=\"b,c"] {
            assert!(wrong.parse::<Axis>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds_are_numbers_and_ranges() {
        let seeds = ["7", "0-2", " 4 - 4"].map(|text| text.parse::<Seeds>().unwrap());
        assert_eq!(Axis::of_seeds(&seeds).values, ["7", "0", "1", "2", "4"]);
        for (wrong, why) in [("a", "0,1,2 or 0-4"), ("-1", "0,1,2 or 0-4"), ("1-", "0-4"), ("4-0", "0-4"), ("0-10000", "at most")] {
            assert!(wrong.parse::<Seeds>().unwrap_err().contains(why), "{wrong}");
        }
    }
}
