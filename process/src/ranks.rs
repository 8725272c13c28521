//! What started this process, and which rank it is of a job, before MPI can say so.
//!
//! Launchers tell by environment variables, which outlive their jobs: in a shell inside of a job, in what a job's processes start, in saved
//! environments. So a variable alone is not believed: the launcher must be among this process's ancestors, and must have given its own
//! child the same value.

use std::io::IsTerminal;

use crate::ancestors::{self, Process};

/// Programs that start ranks, under names of which the system keeps 15 characters, and the variable by which each tells a rank.
const LAUNCHERS: [(&str, &str); 12] = [
    ("orted", OPEN_MPI),
    ("mpirun", OPEN_MPI),
    ("mpiexec", OPEN_MPI),
    ("orterun", OPEN_MPI),
    ("prted", OPEN_MPI),
    ("prterun", OPEN_MPI),
    ("prte", OPEN_MPI),
    ("hydra_pmi_proxy", "PMI_RANK"),
    ("pmi_proxy", "PMI_RANK"),
    ("slurmstepd", "SLURM_PROCID"),
    ("flux-shell", "FLUX_TASK_RANK"),
    ("palsd", "PALS_RANKID"),
];
const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK";

/// Whether a program of this name starts ranks.
pub fn starts_ranks(program: &str) -> bool {
    variable_of(program).is_some()
}

/// Whether it is Open MPI's: mpirun, under its names, or the daemon that it has on other hosts.
pub fn is_open_mpis(program: &str) -> bool {
    variable_of(program) == Some(OPEN_MPI)
}

fn variable_of(program: &str) -> Option<&'static str> {
    LAUNCHERS.iter().find(|(name, _)| program.starts_with(name)).map(|(_, variable)| *variable)
}

/// A job's launcher, above this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// Its program.
    pub name: String,
    /// Which rank it made of the child that this process is, or comes from.
    pub rank: Option<usize>,
}

/// The nearest launcher above this process.
pub fn launcher() -> Option<Launcher> {
    find(&ancestors::line(std::process::id()).collect::<Vec<_>>())
}

/// The same from a process and its ancestors.
fn find(line: &[Process]) -> Option<Launcher> {
    line.windows(2).find_map(|pair| {
        let [child, parent] = pair else { return None };
        let variable = variable_of(&parent.name)?;
        let told = child.variable(variable).filter(|told| line[0].variable(variable).as_ref() == Some(told));
        Some(Launcher { name: parent.name.clone(), rank: told.and_then(|told| told.parse().ok()) })
    })
}

/// This process's rank as far as a launcher is there that tells it; 0 for a process alone, and for one that a person types at, though it may
/// be in a shell that is a rank: launchers give their ranks no terminal.
pub fn told_rank() -> usize {
    if std::io::stdin().is_terminal() {
        return 0;
    }
    launcher().and_then(|launcher| launcher.rank).unwrap_or(0)
}

/// Whether processes outside of what this one sees may have started it: it is in a container with process numbers of its own.
pub fn is_shut_in() -> bool {
    // What the kernel calls the first namespace, since it has them.
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() != "pid:[4026531836]")
}

/// What Open MPI, PMIx and others set for a rank, beside the names that begin with [`OF_RANKS`]: an mpirun that finds them in its own
/// environment refuses to start, or looks for the daemon of a job that has ended.
const OF_A_RANK: [&str; 25] = [
    "MPI_LOCALNRANKS",
    "MPI_LOCALRANKID",
    "OMPI_APP_CTX_NUM_PROCS",
    "OMPI_ARGV",
    "OMPI_COMMAND",
    "OMPI_FILE_LOCATION",
    "OMPI_FIRST_RANKS",
    "OMPI_NUM_APP_CTX",
    "OMPI_UNIVERSE_SIZE",
    "OMPI_MCA_ess",
    "OMPI_MCA_ess_base_jobid",
    "OMPI_MCA_ess_base_vpid",
    "OMPI_MCA_initial_wdir",
    "OMPI_MCA_orte_app_num",
    "OMPI_MCA_orte_bound_at_launch",
    "OMPI_MCA_orte_ess_node_rank",
    "OMPI_MCA_orte_ess_num_procs",
    "OMPI_MCA_orte_hnp_uri",
    "OMPI_MCA_orte_jobfam_session_dir",
    "OMPI_MCA_orte_launch",
    "OMPI_MCA_orte_local_daemon_uri",
    "OMPI_MCA_orte_num_nodes",
    "OMPI_MCA_orte_precondition_transports",
    "OMPI_MCA_orte_top_session_dir",
    "OMPI_MCA_pmix",
];
const OF_RANKS: [&str; 3] = ["OMPI_COMM_WORLD_", "PMIX_", "PMI_"];

/// Whether the variable says what a rank is part of: nothing for a process that is to be none, or to start its own job.
fn is_of_a_rank(variable: &str) -> bool {
    let set_by_users = variable.starts_with("PMIX_MCA_");
    OF_A_RANK.contains(&variable) || OF_RANKS.iter().any(|prefix| variable.starts_with(prefix)) && !set_by_users
}

/// The variables of this process's environment that are a rank's.
pub fn variables() -> Vec<String> {
    let mut names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    names.retain(|name| is_of_a_rank(name));
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// What a process sees that a shell under the name `launcher` starts by way of `script`.
    fn below(launcher: &str, script: &str) -> Option<Launcher> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(launcher);
        // A copy, still open for writing in a process that another test forks, could not be run.
        std::os::unix::fs::symlink("/bin/sh", &path).unwrap();
        let mut shell: Child = Command::new(&path).args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut said).unwrap();
        let line: Vec<Process> = ancestors::line(said.trim().parse().unwrap()).collect();
        let found = find(&line);
        for process in line.iter().take_while(|process| process.id != std::process::id()) {
            // SAFETY: kill only takes numbers.
            unsafe { libc::kill(process.id.cast_signed(), libc::SIGKILL) };
        }
        shell.wait().unwrap();
        found
    }

    #[test]
    fn a_rank_is_believed_where_its_launcher_is_there() {
        let rank = |launcher, script| below(launcher, script).map(|found| (found.name, found.rank));
        let told = "OMPI_COMM_WORLD_RANK=3 sh -c 'echo $$; kill -STOP $$' & wait";
        assert_eq!(rank("mpirun", told), Some(("mpirun".to_owned(), Some(3))));
        // What a rank starts is of that rank; what it starts with another number, or what a shell was told since, is not.
        let script = "OMPI_COMM_WORLD_RANK=3 sh -c 'sh -c \"echo \\$\\$; kill -STOP \\$\\$\" & wait' & wait";
        assert_eq!(rank("orted", script), Some(("orted".to_owned(), Some(3))));
        let changed = "OMPI_COMM_WORLD_RANK=0 sh -c 'OMPI_COMM_WORLD_RANK=3 sh -c \"echo \\$\\$; kill -STOP \\$\\$\" & wait' & wait";
        assert_eq!(rank("orted", changed), Some(("orted".to_owned(), None)));
        let other = "SLURM_PROCID=3 sh -c 'echo $$; kill -STOP $$' & wait";
        assert_eq!(rank("mpirun", other), Some(("mpirun".to_owned(), None)));
        assert_eq!(rank("slurmstepd", other), Some(("slurmstepd".to_owned(), Some(3))));
    }

    #[test]
    fn variables_without_a_launcher_are_not() {
        // Unless these tests themselves are started by one.
        if let Some(launcher) = find(&ancestors::line(std::process::id()).collect::<Vec<_>>()) {
            return eprintln!("skipped: {} is above", launcher.name);
        }
        for variable in ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"] {
            assert_eq!(below("shell", &format!("export {variable}=3; sh -c 'echo $$; kill -STOP $$' & wait")), None);
        }
    }

    #[test]
    fn launchers_are_known_by_their_names() {
        assert!(["orted", "mpiexec.hydra", "prterun", "slurmstepd", "flux-shell"].iter().all(|name| starts_ranks(name)));
        assert!(["orted", "mpirun.openmpi", "prted"].iter().all(|name| is_open_mpis(name)));
        assert!(!["hydra_pmi_proxy", "slurmstepd", "sh", "mpi"].iter().any(|name| is_open_mpis(name)));
        assert!(!starts_ranks("srun"), "what it starts is slurmstepd's child");
    }

    #[test]
    fn what_users_set_is_no_ranks() {
        let ranks = ["PMIX_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "OMPI_MCA_orte_hnp_uri", "OMPI_UNIVERSE_SIZE"];
        assert!(ranks.iter().all(|name| is_of_a_rank(name)));
        let users = ["OMPI_MCA_plm_rsh_agent", "OMPI_ALLOW_RUN_AS_ROOT", "PMIX_MCA_gds", "SLURM_JOB_ID", "OMPI_MCA_orte_tmpdir_base"];
        assert!(!users.iter().any(|name| is_of_a_rank(name)));
    }
}
