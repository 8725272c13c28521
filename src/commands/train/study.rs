//! One configuration several times: with several seeds, since what an error means depends on how much it varies, and with several values
//! of keys, which is how a study of those keys is made. Of several keys every combination is trained.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;

use super::axis::{Axis, SEED, Seeds};
use crate::compute::Measure;
use crate::config::{Config, Loaded, Output};
use crate::exit::Exit;
use crate::job::say;
use crate::report::Spread;
use crate::search::Ended;
use crate::text::table;
use crate::training::{Best, records};

/// Part `index` of `of` parts of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: usize,
    of: usize,
}

impl FromStr for Part {
    type Err = &'static str;

    /// I/N.
    fn from_str(text: &str) -> Result<Part, &'static str> {
        let numbers = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        let part = numbers.map(|(index, of)| Part { index, of }).filter(|part| part.index < part.of);
        part.ok_or("write I/N with I from 0 to N - 1, for instance 0/4, 1/4, 2/4 and 3/4 for four jobs")
    }
}

/// A run of a study.
#[derive(Clone, Debug)]
pub struct Member {
    /// By axis.
    values: Vec<String>,
    /// `KEY=VALUE` by axis.
    pub assignments: Vec<String>,
    pub folder: PathBuf,
}

/// What is trained: every combination of the values of some keys.
#[derive(Clone, Debug)]
pub struct Study {
    axes: Vec<Axis>,
}

impl Study {
    /// Of the keys in `vary`, each with every seed where there are several; None of a single run.
    pub fn new(vary: &[Axis], seeds: &[Seeds]) -> Result<Option<Study>> {
        let mut axes = vary.to_vec();
        axes.extend((!seeds.is_empty()).then(|| Axis::of_seeds(seeds)));
        // Runs that differ in their seed alone follow each other.
        axes.sort_by_key(|axis| axis.key == SEED);
        for (at, axis @ Axis { key, values }) in axes.iter().enumerate() {
            if axes[..at].iter().any(|before| before.key == *key) {
                return Err(Exit::Usage.error(format!("{key}: it is varied twice; name all its values together")));
            }
            if let Some((_, value)) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value)) {
                return Err(Exit::Usage.error(format!("{key}: {value} is named twice")));
            }
            let folders: Vec<String> = (0..values.len()).map(|value| axis.folder(value)).collect();
            if let Some(second) = (0..folders.len()).find(|at| folders[..*at].contains(&folders[*at])) {
                let (first, second, folder) =
                    (&values[folders.iter().position(|folder| *folder == folders[second]).unwrap_or(0)], &values[second], &folders[second]);
                return Err(
                    Exit::Usage.error(format!("{key}: {first} and {second} would both be in {folder}; train them with an --out each"))
                );
            }
        }
        Ok((!axes.is_empty()).then_some(Study { axes }))
    }

    /// Every run, in folders within `out` that are named by key and value, a level for each key.
    pub fn members(&self, out: &Path) -> Vec<Member> {
        let mut members = vec![Member { values: Vec::new(), assignments: Vec::new(), folder: out.to_owned() }];
        for axis in &self.axes {
            let with = |member: &Member, (at, value): (usize, &String)| Member {
                values: [member.values.as_slice(), std::slice::from_ref(value)].concat(),
                assignments: [member.assignments.as_slice(), &[format!("{}={value}", axis.key)]].concat(),
                folder: member.folder.join(axis.folder(at)),
            };
            members = members.iter().flat_map(|member| axis.values.iter().enumerate().map(move |value| with(member, value))).collect();
        }
        members
    }

    /// Refuses values that would show nothing: of a key that changes nothing, or two that are written differently and mean the same.
    /// `loaded` holds the configuration of each of `members`.
    pub fn check(&self, members: &[Member], loaded: &[Loaded]) -> Result<()> {
        for (at, member) in members.iter().enumerate() {
            for (axis, Axis { key, .. }) in self.axes.iter().enumerate() {
                let within = |unused: &str| unused.strip_prefix(key.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                if let Some(unused) = loaded[at].unused.iter().find(|unused| within(&unused.key)) {
                    let mut others = member.assignments.clone();
                    others.remove(axis);
                    let with = if others.is_empty() { String::new() } else { format!(" with {}", others.join(", ")) };
                    return Err(Exit::Usage.error(format!("--vary {key}: its values would make no difference{with}: {}", unused.reason)));
                }
            }
            if let Some(same) = (0..at).find(|before| loaded[*before].config == loaded[at].config)
                && let Some(axis) = (0..self.axes.len()).find(|axis| members[same].values[*axis] != member.values[*axis])
            {
                let (first, second) = (&members[same].values[axis], &member.values[axis]);
                return Err(Exit::Usage.error(format!("{}: {first} and {second} are the same; name it once", self.axes[axis].key)));
            }
        }
        Ok(())
    }

    /// Says what `members` came to, those of this part, which ended as `ended` says. `config` is that of one of them.
    pub fn report(&self, config: &Config, members: &[Member], ended: &[Ended]) -> Result<()> {
        let Some(split) = config.data.test.as_ref().map(|_| "test").or((config.data.validation > 0).then_some("validation")) else {
            return Ok(());
        };
        let classifies = config.network.output == Output::Softmax;
        let mut columns = vec![(if classifies { format!("{split} error") } else { format!("{split} loss") }, Vec::new())];
        let mut best = Vec::new();
        for (member, ended) in members.iter().zip(ended) {
            // What one that came to no end had reached before is no result to compare.
            let (last, of_best) = if *ended == Ended::Done { reached(&member.folder, split, classifies)? } else { (None, None) };
            columns[0].1.push(last);
            best.push(of_best);
        }
        if best.iter().any(Option::is_some) {
            columns.push(("at the best checkpoint".to_owned(), best));
        }
        say(format_args!("\n{}", table(&self.rows(members, ended, &columns, classifies), self.axes.len()).trim_end()));
        Ok(())
    }

    fn rows(&self, members: &[Member], ended: &[Ended], columns: &[(String, Vec<Option<f64>>)], classifies: bool) -> Vec<Vec<String>> {
        let show = |value: f64| if classifies { format!("{:.2} %", 100.0 * value) } else { format!("{value:.5}") };
        let cell = |value: Option<f64>| value.map_or("-".to_owned(), show);
        let with = |names: &[String], cells: Vec<String>| [names, &cells].concat();
        let mut names: Vec<String> = self.axes.iter().map(|axis| axis.name().to_owned()).collect();
        let heads: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        let each = |at: usize| {
            let cells = columns.iter().map(|(_, values)| word(&ended[at]).map_or_else(|| cell(values[at]), str::to_owned));
            with(&members[at].values, cells.collect())
        };
        let spreads = |alike: &[usize]| -> Vec<Option<Spread>> {
            let values = columns.iter().map(|(_, values)| alike.iter().filter_map(|at| values[*at]).collect::<Vec<f64>>());
            values.map(|values| Spread::of(&values)).collect()
        };
        let all: Vec<usize> = (0..members.len()).collect();
        // Of seeds there is a mean; of other keys' values it would say nothing.
        let seeds = self.axes.last().is_some_and(|axis| axis.key == SEED);
        if !seeds || names.len() == 1 {
            let mut rows = vec![with(&names, heads)];
            rows.extend(all.iter().map(|at| each(*at)));
            if seeds {
                let of =
                    |value: fn(&Spread) -> Option<f64>| spreads(&all).iter().map(|spread| cell(spread.as_ref().and_then(value))).collect();
                rows.push(with(&["mean".to_owned()], of(|spread| Some(spread.mean))));
                rows.push(with(&["deviation".to_owned()], of(|spread| spread.deviation)));
            }
            return rows;
        }
        let others = |at: usize| &members[at].values[..names.len() - 1];
        let groups: Vec<&[usize]> = all.chunk_by(|a, b| others(*a) == others(*b)).collect();
        let text = |spread: Option<Spread>| match spread {
            None => "-".to_owned(),
            Some(spread) if classifies => format!("{} %", spread.percent()),
            Some(spread) => spread.loss(),
        };
        let row = |group: &&[usize]| {
            let words: Vec<&str> = group.iter().filter_map(|at| word(&ended[*at])).collect();
            let mut count = (group.len() - words.len()).to_string();
            for kind in ["diverged", "failed"] {
                let number = words.iter().filter(|word| **word == kind).count();
                count += &if number > 0 { format!(", {number} {kind}") } else { String::new() };
            }
            [others(group[0]), &[count], &spreads(group).into_iter().map(text).collect::<Vec<_>>()].concat()
        };
        let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
        names.pop();
        [vec![[names, vec!["seeds".to_owned()], heads].concat()], rows].concat()
    }
}

/// What a table says of a run that did not come to its end.
fn word(ended: &Ended) -> Option<&'static str> {
    match ended {
        Ended::Done => None,
        Ended::Diverged => Some("diverged"),
        Ended::Stopped | Ended::Refused(_) | Ended::Failed(_) => Some("failed"),
    }
}

/// Names those of `members` that did not come to their end. Where all of these diverged, the error is what one run's would be.
pub fn settle(members: &[Member], ended: &[Ended]) -> Result<()> {
    let why = |(member, ended): (&Member, &Ended)| {
        let folder = member.folder.display();
        match ended {
            Ended::Done => None,
            Ended::Diverged => Some(format!("{folder} diverged")),
            Ended::Stopped => Some(format!("{folder} was stopped")),
            Ended::Refused(why) | Ended::Failed(why) => Some(format!("{folder}: {why}")),
        }
    };
    let all: Vec<String> = members.iter().zip(ended).filter_map(why).collect();
    if all.is_empty() {
        return Ok(());
    }
    let diverged = ended.iter().all(|ended| matches!(ended, Ended::Done | Ended::Diverged));
    let exit = if diverged { Exit::NotFinite } else { Exit::Failed };
    let on = if diverged { "" } else { "; the same command with --resume goes on with those that failed" };
    Err(exit.error(format!("{} of {} runs came to no result: {}{on}", all.len(), members.len(), all.join("; "))))
}

/// Those of `all` that one part has, or all.
pub fn part<T>(all: Vec<T>, part: Option<Part>) -> Vec<T> {
    let Some(Part { index, of }) = part else { return all };
    all.into_iter().skip(index).step_by(of).collect()
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.axes.iter().map(Axis::to_string).collect::<Vec<_>>().join(" "))
    }
}

/// Error or loss of a run's last evaluation on `split`, and at its best checkpoint.
fn reached(folder: &Path, split: &str, classifies: bool) -> Result<(Option<f64>, Option<f64>)> {
    let measure = |measured: &records::Measured| measured.get(if classifies { Measure::Top1Error } else { Measure::Loss });
    let lines = records::evaluations(folder)?;
    let last = lines.iter().rev().find(|line| line.split == split).and_then(|line| measure(&line.measured));
    let best = Best::read(folder)?.and_then(|best| if split == "test" { best.test } else { Some(best.validation) });
    Ok((last, best.as_ref().and_then(measure)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(texts: &[&str]) -> Vec<Axis> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn seeds(texts: &[&str]) -> Vec<Seeds> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_study_has_every_combination_seeds_last() {
        let study = Study::new(&axes(&["experiment.seed=0,1", "learning.rule=bp,fa", "a.b=1"]), &[]).unwrap().unwrap();
        let members = study.members(Path::new("runs"));
        let folders: Vec<&str> = members.iter().map(|member| member.folder.to_str().unwrap()).collect();
        assert_eq!(folders, ["runs/rule_bp/b_1/seed_0", "runs/rule_bp/b_1/seed_1", "runs/rule_fa/b_1/seed_0", "runs/rule_fa/b_1/seed_1"]);
        assert_eq!(members[2].assignments, ["learning.rule=fa", "a.b=1", "experiment.seed=0"]);
        let parts: Vec<Vec<Member>> = ["0/3", "1/3", "2/3"].map(|part| super::part(members.clone(), Some(part.parse().unwrap()))).into();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1], "each is in one part");
        for wrong in ["3/3", "1", "a/2", "-1/2", "0/0"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
        assert!(Study::new(&axes(&["experiment.seed=0"]), &seeds(&["1"])).unwrap_err().to_string().contains("varied twice"));
        assert!(Study::new(&[], &[]).unwrap().is_none());
        let same = Study::new(&axes(&["data.train=a/b,c,a_b"]), &[]).unwrap_err().to_string();
        assert!(same.starts_with("data.train: a/b and a_b would both be in train_a_b"), "{same}");
    }

    #[test]
    fn seeds_of_the_same_values_have_a_mean() {
        let study = Study::new(&axes(&["learning.rule=bp,fa"]), &seeds(&["0-1"])).unwrap().unwrap();
        let members = study.members(Path::new("runs"));
        let columns = [("test error".to_owned(), vec![Some(0.02), Some(0.04), Some(0.5), None])];
        let mut ended = [Ended::Done, Ended::Done, Ended::Done, Ended::Done];
        let rows = study.rows(&members, &ended, &columns, true);
        assert_eq!(rows, [["rule", "seeds", "test error"], ["bp", "2", "3.00 ± 1.41 %"], ["fa", "2", "50.00 %"]]);
        assert!(settle(&members, &ended).is_ok());
        ended[3] = Ended::Diverged;
        assert_eq!(study.rows(&members, &ended, &columns, true)[2], ["fa", "1, 1 diverged", "50.00 %"]);
        let error = settle(&members, &ended).unwrap_err();
        assert_eq!(
            (Exit::of(&error), error.to_string().as_str()),
            (Exit::NotFinite, "1 of 4 runs came to no result: runs/rule_fa/seed_1 diverged")
        );
        ended[0] = Ended::Failed("killed".to_owned());
        let error = settle(&members, &ended).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Failed);
        assert!(error.to_string().ends_with("; the same command with --resume goes on with those that failed"), "{error}");
    }
}
