//! The allocation of a Slurm job, read from the variables that Slurm sets in it: nodes, and processes for each.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::hosts::Host;
use crate::placement::Share;
use crate::question::Question;
use crate::speech::say;
use biodist_process::exit::Exit;

/// A controller that takes longer is down, or busy with others.
const PATIENCE: Duration = Duration::from_secs(20);

/// The variable that names the nodes of a job.
pub const NODES: &str = "SLURM_JOB_NODELIST";

/// The nodes that Slurm gave to this job.
#[derive(Debug, PartialEq, Eq)]
pub struct Allocation {
    pub nodes: Vec<Node>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Processes that Slurm counts for it, and that Open MPI would start at most.
    pub tasks: usize,
    /// Processes to start by default.
    pub slots: usize,
}

impl Allocation {
    /// The allocation that this process runs in; `None` outside of one. `variable` looks up the environment.
    ///
    /// Processes per node are the tasks that were asked for (`--ntasks`, `--ntasks-per-node`), else the GPUs on a node, else Slurm's own
    /// default number of tasks.
    ///
    /// # Errors
    /// A variable that is missing or not of the form that Slurm documents.
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Allocation>> {
        let Some(job) = variable("SLURM_JOB_ID") else { return Ok(None) };
        let list = variable(NODES).ok_or_else(|| {
            Exit::Usage.error(format!(
                "SLURM_JOB_ID is {job}, but {NODES} is not set; give the hosts with --hosts, or unset SLURM_JOB_ID for this machine"
            ))
        })?;
        let names = expand_nodes(&list).map_err(|message| Exit::Usage.error(format!("SLURM_JOB_NODELIST is '{list}': {message}")))?;
        let tasks = match variable("SLURM_TASKS_PER_NODE") {
            Some(text) => expand_counts(&text)
                .ok_or_else(|| Exit::Usage.error(format!("SLURM_TASKS_PER_NODE is '{text}', which is not of the form '2(x3),1'")))?,
            None => vec![1; names.len()],
        };
        if tasks.len() != names.len() {
            return Err(Exit::Usage.error(format!("Slurm names {} nodes, but tasks for {}", names.len(), tasks.len())));
        }
        let asked_for_tasks = variable("SLURM_NTASKS").or_else(|| variable("SLURM_NTASKS_PER_NODE")).is_some();
        let gpus = variable("SLURM_GPUS_ON_NODE").and_then(|text| text.parse().ok()).filter(|&gpus: &usize| gpus > 0 && !asked_for_tasks);
        let nodes = names.into_iter().zip(tasks).map(|(name, tasks)| Node { name, tasks, slots: gpus.unwrap_or(tasks) }).collect();
        Ok(Some(Allocation { nodes }))
    }

    pub fn hosts(&self) -> Vec<Host> {
        self.nodes.iter().map(|node| Host { name: node.name.clone(), slots: Some(node.slots) }).collect()
    }

    /// `SLURM_TASKS_PER_NODE` as Open MPI has to see it to start as many processes as `slots` says, which it refuses above Slurm's own
    /// count; `None` where that is high enough.
    ///
    /// # Errors
    /// A host that is not of this allocation.
    pub fn tasks_per_node(&self, slots: &[Share]) -> Result<Option<String>> {
        let mut tasks: Vec<usize> = self.nodes.iter().map(|node| node.tasks).collect();
        let mut raised = false;
        for slot in slots {
            let index = self.nodes.iter().position(|node| node.name == slot.host).ok_or_else(|| {
                let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
                Exit::Usage.error(format!(
                    "{} is not a node of this Slurm job, which has {}; where that job has ended, unset SLURM_JOB_ID",
                    slot.host,
                    names.join(", ")
                ))
            })?;
            raised |= slot.count > tasks[index];
            tasks[index] = tasks[index].max(slot.count);
        }
        Ok(raised.then(|| tasks.iter().map(usize::to_string).collect::<Vec<_>>().join(",")))
    }
}

/// Which of `nodes` Slurm has lost, with the state that it gives. None where Slurm cannot be asked.
///
/// mpirun is no witness here: when a node fails, Slurm ends Open MPI's daemons on all of them, and mpirun names the first that it misses.
pub fn lost_nodes(nodes: &[String]) -> Vec<(String, String)> {
    let mut sinfo = Command::new("sinfo");
    sinfo.args(["--noheader", "--Node", "--format=%N %T", "--nodes"]).arg(nodes.join(","));
    lost_by(&mut sinfo, PATIENCE)
}

fn lost_by(sinfo: &mut Command, patience: Duration) -> Vec<(String, String)> {
    let Ok(question) = Question::ask(sinfo) else { return Vec::new() };
    match question.answer(Instant::now() + patience) {
        Ok(list) => lost(&list),
        Err(reason) => {
            say(&format!("Slurm cannot be asked for lost nodes, sinfo: {reason}"));
            Vec::new()
        }
    }
}

/// The nodes of a list of `NAME STATE` that do not answer (`*`) or are down.
fn lost(list: &str) -> Vec<(String, String)> {
    let mut nodes: Vec<(String, String)> = list
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(_, state)| state.ends_with('*') || ["down", "fail", "power", "unk"].iter().any(|lost| state.starts_with(lost)))
        .map(|(name, state)| (name.to_owned(), format!("Slurm has it as '{state}'")))
        .collect();
    // A node of several partitions is listed for each.
    nodes.sort();
    nodes.dedup();
    nodes
}

/// The node names that a list such as `n[1-3,07],gpu-a[1-2]b[0-1],login` stands for, in its order.
fn expand_nodes(list: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for item in split_outside_brackets(list)? {
        names.extend(expand_item(item)?);
    }
    if names.is_empty() { Err("no node in it".to_owned()) } else { Ok(names) }
}

fn split_outside_brackets(list: &str) -> Result<Vec<&str>, String> {
    let (mut items, mut start, mut inside) = (Vec::new(), 0, false);
    for (position, character) in list.char_indices() {
        match character {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return Err(format!("'{character}' without its counterpart")),
            ',' if !inside => {
                items.push(&list[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("'[' without its counterpart".to_owned());
    }
    items.push(&list[start..]);
    Ok(items.into_iter().filter(|item| !item.is_empty()).collect())
}

/// One name, or the names of a pattern with any number of brackets; the last bracket varies fastest, as Slurm has it.
fn expand_item(item: &str) -> Result<Vec<String>, String> {
    let Some((prefix, rest)) = item.split_once('[') else { return Ok(vec![item.to_owned()]) };
    let (ranges, rest) = rest.split_once(']').ok_or("'[' without its counterpart")?;
    let tails = expand_item(rest)?;
    let mut names = Vec::new();
    for range in ranges.split(',') {
        for number in expand_range(range)? {
            names.extend(tails.iter().map(|tail| format!("{prefix}{number}{tail}")));
        }
    }
    Ok(names)
}

/// No cluster comes near this; a mistyped list is not to fill the memory.
const MOST_NODES: usize = 100_000;

/// The numbers of `7` or `08-11`, with the leading zeros of the first.
fn expand_range(range: &str) -> Result<Vec<String>, String> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let parse = |text: &str| text.parse::<usize>().map_err(|_| format!("'{range}' is not a number or a range of numbers"));
    let (low, high) = (parse(first)?, parse(last)?);
    if low > high || high - low >= MOST_NODES {
        return Err(format!("'{range}' is not a range of nodes"));
    }
    let width = first.len();
    Ok((low..=high).map(|number| format!("{number:0width$}")).collect())
}

/// The numbers that `2(x3),1` stands for: 2, 2, 2, 1.
fn expand_counts(text: &str) -> Option<Vec<usize>> {
    let mut counts = Vec::new();
    for item in text.split(',') {
        let (count, times) = match item.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok().filter(|times| *times <= MOST_NODES)?),
            None => (item, 1),
        };
        let count: usize = count.parse().ok()?;
        counts.extend(std::iter::repeat_n(count, times));
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn in_job(variables: &[(&str, &str)]) -> Result<Option<Allocation>> {
        let mut all = HashMap::from([("SLURM_JOB_ID", "17")]);
        all.extend(variables.iter().copied());
        Allocation::find(|name| all.get(name).map(|&value| value.to_owned()))
    }

    fn slots(variables: &[(&str, &str)]) -> Vec<(String, usize)> {
        in_job(variables).unwrap().unwrap().nodes.into_iter().map(|node| (node.name, node.slots)).collect()
    }

    #[test]
    fn node_lists() {
        let expand = |list| expand_nodes(list).unwrap().join(" ");
        assert_eq!(expand("n1"), "n1");
        assert_eq!(expand("n[1-3,7]"), "n1 n2 n3 n7");
        assert_eq!(expand("n[08-11]"), "n08 n09 n10 n11");
        assert_eq!(expand("login,gpu-[1-2]-ib,n5"), "login gpu-1-ib gpu-2-ib n5");
        assert_eq!(expand("r[1-2]n[1,3]"), "r1n1 r1n3 r2n1 r2n3");
        for wrong in ["", "n[1-", "n1]", "n[[1]]", "n[a-b]", "n[3-1]", "n[1-9999999]", "n[]"] {
            assert!(expand_nodes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn outside_a_job_there_is_no_allocation() {
        assert_eq!(Allocation::find(|_| None).unwrap(), None);
    }

    #[test]
    fn tasks_asked_for_decide() {
        let job =
            [("SLURM_JOB_NODELIST", "n[1-3]"), ("SLURM_TASKS_PER_NODE", "2(x2),1"), ("SLURM_NTASKS", "5"), ("SLURM_GPUS_ON_NODE", "8")];
        assert_eq!(slots(&job), [("n1".to_owned(), 2), ("n2".to_owned(), 2), ("n3".to_owned(), 1)]);
    }

    #[test]
    fn else_a_process_per_gpu() {
        let job = [("SLURM_JOB_NODELIST", "n[1-2]"), ("SLURM_TASKS_PER_NODE", "1(x2)"), ("SLURM_GPUS_ON_NODE", "4")];
        assert_eq!(slots(&job), [("n1".to_owned(), 4), ("n2".to_owned(), 4)]);
        assert_eq!(slots(&job[..2]), [("n1".to_owned(), 1), ("n2".to_owned(), 1)]);
    }

    #[test]
    fn more_processes_than_tasks_are_announced_to_open_mpi() {
        let share = |host: &str, count| Share { host: host.to_owned(), count };
        let job = in_job(&[("SLURM_JOB_NODELIST", "n[1-3]"), ("SLURM_TASKS_PER_NODE", "2(x3)")]).unwrap().unwrap();
        assert_eq!(job.tasks_per_node(&[share("n1", 2), share("n3", 1)]).unwrap(), None);
        assert_eq!(job.tasks_per_node(&[share("n1", 1), share("n3", 4)]).unwrap().as_deref(), Some("2,2,4"));
        let error = job.tasks_per_node(&[share("n4", 1)]).unwrap_err().to_string();
        assert!(error.contains("n4 is not a node of this Slurm job, which has n1, n2, n3"), "{error}");
    }

    #[test]
    fn lost_nodes_are_those_that_are_down_or_do_not_answer() {
        let found = lost("n1 allocated\nn2 down*\nn2 down*\nn3 mixed\nn4 draining\nn5 allocated*\nn6 idle\n");
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["n2", "n5"]);
        assert_eq!(found[0].1, "Slurm has it as 'down*'");
    }

    #[test]
    fn a_slurm_that_does_not_answer_is_not_waited_for() {
        let started = Instant::now();
        let lost = |script| lost_by(Command::new("sh").args(["-c", script]), Duration::from_millis(200));
        assert_eq!(lost("echo n1 down; sleep 60"), []);
        assert_eq!(lost("echo n1 down; exit 1"), []);
        assert_eq!(lost_by(&mut Command::new("/no/such/sinfo"), PATIENCE), []);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn errors_name_the_variable() {
        for (variables, expected) in [
            (&[][..], "SLURM_JOB_NODELIST is not set"),
            (&[("SLURM_JOB_NODELIST", "n[1-")], "SLURM_JOB_NODELIST is 'n[1-'"),
            (&[("SLURM_JOB_NODELIST", "n[1-2]"), ("SLURM_TASKS_PER_NODE", "2(x")], "SLURM_TASKS_PER_NODE is '2(x'"),
            (&[("SLURM_JOB_NODELIST", "n[1-2]"), ("SLURM_TASKS_PER_NODE", "2(x18446744073709551615)")], "SLURM_TASKS_PER_NODE is '2(x"),
            (&[("SLURM_JOB_NODELIST", "n[1-2]"), ("SLURM_TASKS_PER_NODE", "2")], "2 nodes, but tasks for 1"),
        ] {
            let error = in_job(variables).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
