//! Where to run: the hosts of a file, of a Slurm allocation, or this machine, and how ranks get there.

use std::path::Path;

use anyhow::Result;

use crate::hosts::{self, Host};
use crate::mpirun::Reach;
use crate::placement::{Share, slots};
use crate::remote::is_this_host;
use crate::slurm;

/// The hosts with their slots, and the way to them.
#[derive(Debug, PartialEq, Eq)]
pub struct Resources {
    pub slots: Vec<Share>,
    pub reach: Reach,
}

/// `ranks` and `gpus` as given on the command line, `variable` looks up the environment.
///
/// A host file wins over an allocation, so that a part of it can be used.
///
/// # Errors
/// A host file or an allocation that cannot be read.
pub fn find(
    file: Option<&Path>,
    ranks: Option<usize>,
    gpus: Option<usize>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Resources> {
    let per_host = || gpus.or_else(|| Some(gpus_here(&variable)).filter(|&count| count > 0)).unwrap_or(1);
    let in_job = slurm::allocation(&variable)?;
    let reach = if in_job.is_some() { Reach::Slurm } else { Reach::Ssh };
    let hosts = match (file, in_job) {
        (Some(path), _) => hosts::read(path)?,
        (None, Some(allocation)) => allocation,
        (None, None) => vec![Host { name: "localhost".to_owned(), slots: ranks }],
    };
    let default = if hosts.iter().any(|host| host.slots.is_none()) { per_host() } else { 1 };
    let alone = hosts.len() == 1 && is_this_host(&hosts[0].name);
    Ok(Resources { slots: slots(&hosts, default), reach: if alone { Reach::Local } else { reach } })
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
        assert_eq!(found, Resources { slots: vec![share("localhost", 3)], reach: Reach::Local });
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
        assert_eq!(found, Resources { slots: vec![share("n1", 2), share("n2", 2)], reach: Reach::Slurm });

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.txt");
        std::fs::write(&path, "192.0.2.1 slots=1\n192.0.2.2").unwrap();
        let found = find(Some(&path), None, Some(4), |_| None).unwrap();
        assert_eq!(found, Resources { slots: vec![share("192.0.2.1", 1), share("192.0.2.2", 4)], reach: Reach::Ssh });
        assert_eq!(find(Some(&path), None, Some(4), job).unwrap().reach, Reach::Slurm);
    }
}
