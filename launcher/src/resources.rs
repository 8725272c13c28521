//! Where to run: the hosts of a file, of a Slurm allocation, or this machine, and how ranks get there.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;

use crate::hosts::{self, Host};
use crate::mpirun::Reach;
use crate::placement::{Share, slots};
use crate::remote::{self, Agent, is_this_host};
use crate::slurm::{self, Allocation};

/// The hosts with their slots, and the way to them.
#[derive(Debug, PartialEq, Eq)]
pub struct Resources {
    pub slots: Vec<Share>,
    pub reach: Reach,
    /// What Open MPI is to take for Slurm's number of tasks per node, where that has to differ.
    pub tasks_per_node: Option<String>,
}

/// `ranks` and `gpus` as given on the command line, `variable` looks up the environment.
///
/// A host file wins over an allocation, so that a part of it can be used; and over the rest of one whose nodes nothing names.
///
/// # Errors
/// A host file or an allocation that cannot be read.
pub fn find(
    file: Option<&Path>,
    ranks: Option<usize>,
    gpus: Option<usize>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Resources> {
    let allocation = if file.is_some() && variable(slurm::NODES).is_none() { None } else { Allocation::find(&variable)? };
    let hosts = match (file, &allocation) {
        (Some(path), _) => hosts::read(path)?,
        (None, Some(allocation)) => allocation.hosts(),
        (None, None) => vec![Host { name: "localhost".to_owned(), slots: ranks }],
    };
    let detected = match gpus {
        Some(_) => HashMap::new(),
        None => gpus_of(&hosts, allocation.is_some(), &variable),
    };
    let slots = slots(&hosts, |host| gpus.or_else(|| detected.get(host).copied()).unwrap_or(1));
    let tasks_per_node = allocation.as_ref().map_or(Ok(None), |allocation| allocation.tasks_per_node(&slots))?;
    let reach = match allocation {
        Some(_) => Reach::Slurm,
        None if slots.len() == 1 && is_this_host(&slots[0].host) => Reach::Local,
        None => Reach::Ssh,
    };
    Ok(Resources { slots, reach, tasks_per_node })
}

/// GPUs of the hosts whose line does not say how many processes they take, where there are any. Those that this machine is not are asked;
/// nodes of Slurm's are taken to be alike.
fn gpus_of(hosts: &[Host], by_slurm: bool, variable: impl Fn(&str) -> Option<String>) -> HashMap<String, usize> {
    let unsaid = hosts.iter().filter(|host| host.slots.is_none()).map(|host| host.name.clone());
    let (near, far): (Vec<String>, Vec<String>) = unsaid.partition(|host| by_slurm || is_this_host(host));
    let counts = remote::gpus(&Agent::from_environment(&variable), &far);
    let here = gpus_here(&variable);
    let all = near.into_iter().map(|host| (host, here)).chain(far.into_iter().zip(counts));
    all.filter(|(_, count)| *count > 0).collect()
}

/// GPUs that a process on this machine may use, as NVIDIA's driver lists them.
fn gpus_here(variable: impl Fn(&str) -> Option<String>) -> usize {
    let present = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    match variable("CUDA_VISIBLE_DEVICES") {
        Some(list) => list.split(',').filter(|device| !device.trim().is_empty()).count().min(present),
        None => present,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(host: &str, count: usize) -> Share {
        Share { host: host.to_owned(), count }
    }

    #[test]
    fn this_machine_is_the_default() {
        let found = find(None, Some(3), None, |_| None).unwrap();
        assert_eq!((found.slots, found.reach), (vec![share("localhost", 3)], Reach::Local));
        assert_eq!(find(None, None, Some(2), |_| None).unwrap().slots, [share("localhost", 2)]);
    }

    #[test]
    fn a_file_wins_over_an_allocation() {
        let job = |name: &str| match name {
            "SLURM_JOB_ID" => Some("1".to_owned()),
            "SLURM_JOB_NODELIST" => Some("n[1-2]".to_owned()),
            "SLURM_TASKS_PER_NODE" => Some("2(x2)".to_owned()),
            _ => None,
        };
        let found = find(None, None, None, job).unwrap();
        let expected = vec![share("n1", 2), share("n2", 2)];
        assert_eq!(found, Resources { slots: expected, reach: Reach::Slurm, tasks_per_node: None });

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.txt");
        std::fs::write(&path, "n1 slots=1\nn2").unwrap();
        let expected = vec![share("n1", 1), share("n2", 4)];
        let found = find(Some(&path), None, Some(4), |_| None).unwrap();
        assert_eq!((found.slots, found.reach), (expected.clone(), Reach::Ssh));
        let found = find(Some(&path), None, Some(4), job).unwrap();
        assert_eq!(found, Resources { slots: expected.clone(), reach: Reach::Slurm, tasks_per_node: Some("2,4".to_owned()) });
        // A number of a job without its nodes: what is left of one, or of a container's environment.
        let number = |name: &str| (name == "SLURM_JOB_ID").then(|| "1".to_owned());
        let found = find(Some(&path), None, Some(4), number).unwrap();
        assert_eq!(found, Resources { slots: expected, reach: Reach::Ssh, tasks_per_node: None });
        let error = find(None, None, None, number).unwrap_err().to_string();
        assert!(error.contains("give the hosts with --hosts, or unset SLURM_JOB_ID"), "{error}");
    }
}
