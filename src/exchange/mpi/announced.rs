//! The job that the environment announces, before MPI is started, and whether it is there.
//!
//! Launchers tell a process by variables that it is a rank. These outlive the job: where it has ended, MPI would end this process with words
//! of its own, or find it alone.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use biodist_process::ranks;

use crate::exit::Exit;

/// What launchers tell the processes that they start: how many there are, by environment variable.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", LOCAL];
/// Of MPICH's kind: how many there are on this host.
const LOCAL: &str = "MPI_LOCALNRANKS";
const PMIX: &str = "PMIX_RANK";
const SLURM: &str = "SLURM_STEP_NUM_TASKS";
/// Variables that begin so name the server through which ranks find each other, on their own host.
const SERVER: &str = "PMIX_SERVER_URI";
/// It answers at once, or is not there.
const ANSWER: Duration = Duration::from_secs(2);

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A job that MPI can join.
#[derive(Debug)]
pub struct Announced {
    /// How many ranks it is to have, and which variable says so; none where nothing does.
    ranks: Option<(&'static str, usize)>,
    /// How a process that is none of its ranks becomes one alone. MPI sets variables itself, later.
    remedy: String,
}

impl Announced {
    /// The job that the environment speaks of; none for a process alone.
    ///
    /// # Errors
    /// A job that MPI cannot reach: one of srun's without PMIx, or one that has ended.
    pub fn find() -> Result<Option<Announced>> {
        let told = SIZES.iter().find_map(|name| Some((*name, variable(name)?.parse().ok()?)));
        let of_slurm = tasks_of_slurm().filter(|_| told.is_none());
        if told.is_none() && variable(PMIX).is_none() {
            return match of_slurm {
                Some(tasks) => Err(Exit::Usage.error(format!(
                    "srun started {tasks} processes, but this MPI cannot reach them (no PMIx or PMI in the environment); \
                     use `srun --mpi=pmix` where Slurm has it, or mpirun or biodist-launch inside the allocation; \
                     for a process alone, unset {SLURM}"
                ))),
                None => Ok(None),
            };
        }
        if let Some((name, address)) = server_that_is_gone() {
            return Err(Exit::Usage.error(format!(
                "{name} names {address}, where nobody answers: the MPI job that this process would be a rank of has ended, and \
                 variables of it are left over; {}",
                remedy()
            )));
        }
        let ranks = told.filter(|(name, _)| *name != LOCAL).or(of_slurm.map(|tasks| (SLURM, tasks)));
        Ok(Some(Announced { ranks, remedy: remedy() }))
    }

    /// Refuses a job of another size than was announced: every rank of it would train for itself.
    pub fn compare(&self, size: usize) -> Result<()> {
        let Some((name, expected)) = self.ranks.filter(|(_, expected)| *expected != size) else { return Ok(()) };
        let remedy = match name {
            _ if ranks::launcher().is_none() => {
                format!("nothing above this process starts ranks, so variables of another job are left over; {}", self.remedy)
            }
            "OMPI_COMM_WORLD_SIZE" => {
                "mpirun belongs to another MPI than the library that biodist was built with; use the mpirun of that library".to_owned()
            }
            _ => "what started them does not reach this MPI; use `srun --mpi=pmix` where Slurm has it, or mpirun or biodist-launch"
                .to_owned(),
        };
        Err(Exit::Usage.error(format!("{name} says that there are {expected} ranks, but MPI says {size}: {remedy}")))
    }
}

fn remedy() -> String {
    let decide: Vec<&str> = SIZES.into_iter().chain([PMIX]).filter(|name| variable(name).is_some()).collect();
    format!("unset {}", decide.join(" "))
}

/// Processes of the Slurm step that this one is of, where it has several. A variable alone may come from another job: Slurm must have
/// started this process, or nobody can see whether.
fn tasks_of_slurm() -> Option<usize> {
    let tasks = variable(SLURM)?.parse().ok().filter(|tasks: &usize| *tasks > 1)?;
    let started_it = ranks::launcher().is_some_and(|launcher| launcher.name == "slurmstepd") || ranks::is_shut_in();
    (variable("SLURM_PROCID").is_some() && started_it).then_some(tasks)
}

/// The server of a job that has ended: a variable and the address in it, where none of those that are named listens any more.
fn server_that_is_gone() -> Option<(String, SocketAddr)> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let named = std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with(SERVER));
    let mut servers: Vec<(String, SocketAddr)> = named.map(|(name, uri)| Some((name, address(&uri)?))).collect::<Option<_>>()?;
    servers.sort();
    servers.dedup_by_key(|(_, address)| *address);
    if servers.iter().all(|(_, address)| is_gone(address)) { servers.into_iter().next() } else { None }
}

/// The address in `NAMESPACE.RANK;tcp4://127.0.0.1:41867`.
fn address(uri: &str) -> Option<SocketAddr> {
    let (_, place) = uri.split_once(";tcp")?;
    place.split_once("://")?.1.parse().ok()
}

/// Whether nobody listens there. One that merely does not answer is left to MPI.
fn is_gone(address: &SocketAddr) -> bool {
    let gone = [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable];
    TcpStream::connect_timeout(address, ANSWER).is_err_and(|error| gone.contains(&error.kind()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_listens_is_told_from_one_that_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("1518796800.0;tcp4://{}", listener.local_addr().unwrap());
        let there = address(&uri).unwrap();
        assert!(!is_gone(&there));
        drop(listener);
        assert!(is_gone(&there));
        assert_eq!(address("1.0;tcp6://[::1]:80"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(address("1.0;usock:/tmp/pmix"), None);
    }
}
