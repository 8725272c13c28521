//! The command line of Open MPI's mpirun for one start of biodist.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::placement::{Share, total};
use biodist_process::exit::Exit;
use biodist_process::{last_word, start};

/// A closed connection to a host is noticed after 5 + 5 x 2 seconds: without these, a cut link leaves ranks and mpirun hanging for ever.
const KEEP_ALIVE: [(&str, &str); 3] =
    [("oob_tcp_keepalive_time", "5"), ("oob_tcp_keepalive_intvl", "2"), ("oob_tcp_keepalive_probes", "5")];

/// What Open MPI asks Slurm for: to start its daemons, and which nodes there are.
const OF_SLURM: [&str; 2] = ["plm", "ras"];

/// A host that asks for a password or does not answer is an error, not something to wait for.
pub const SSH_OPTIONS: [&str; 4] = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"];

/// Variables that other hosts get as well, beside those that are asked for; on this host every variable is inherited.
const PASSED_ON: [&str; 4] = ["LD_LIBRARY_PATH", "OMP_NUM_THREADS", "RUST_BACKTRACE", "RUST_LOG"];
const PASSED_ON_PREFIXES: [&str; 4] = ["BIODIST_", "FI_", "NCCL_", "UCX_"];

/// What is started, and where.
pub struct Job {
    pub shares: Vec<Share>,
    /// biodist, after the words that start it where it is in a container.
    pub program: Vec<OsString>,
    /// biodist's subcommand and its arguments.
    pub arguments: Vec<OsString>,
    pub folder: PathBuf,
    /// `NAME` or `NAME=VALUE`, passed on to every rank.
    pub variables: Vec<String>,
    /// Whether ranks run on other hosts than this one, and over what they are reached.
    pub reach: Reach,
    /// CPUs of this host, to see that its ranks have to take turns.
    pub cpus: usize,
}

/// How mpirun starts processes on the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Local,
    Ssh,
    Slurm,
}

/// mpirun and its arguments. `environment` is the launcher's own: what it sets for Open MPI is left as it is, what it holds for biodist
/// is passed on.
pub fn command_line(job: &Job, environment: &[(String, OsString)]) -> Vec<OsString> {
    let mut line = Line(vec!["mpirun".into()]);
    let hosts: Vec<String> = job.shares.iter().map(|share| format!("{}:{}", share.host, share.count)).collect();
    line.option("--host", hosts.join(","));
    line.option("-n", total(&job.shares).to_string());
    // A rank takes its own share of the CPUs; one that is bound to a core could not.
    line.option("--map-by", "slot");
    line.option("--bind-to", "none");
    line.option("--wdir", &job.folder);
    line.0.push("--tag-output".into());
    let preset = |parameter: &str| environment.iter().any(|(name, _)| name.strip_prefix(start::MPIRUN_PREFIX) == Some(parameter));
    let mut parameter = |name: &str, value: &str| {
        if !preset(name) {
            line.0.extend(["--mca".into(), name.into(), value.into()]);
        }
    };
    parameter(start::MPIRUN_PARAMETER.0, start::MPIRUN_PARAMETER.1);
    if job.reach != Reach::Local {
        KEEP_ALIVE.iter().for_each(|(name, value)| parameter(name, value));
    }
    if job.reach == Reach::Ssh && !preset("plm_rsh_agent") {
        parameter("plm_rsh_args", &SSH_OPTIONS.join(" "));
    }
    let slurm = ["SLURM_JOB_ID", "SLURM_JOBID"].iter().any(|of_slurm| environment.iter().any(|(name, _)| name == of_slurm));
    if job.reach != Reach::Slurm && slurm {
        // Open MPI would ask Slurm for the nodes of a job whose number is all that there is of it.
        OF_SLURM.iter().for_each(|name| parameter(name, "^slurm"));
    }
    if job.reach == Reach::Local && total(&job.shares) > job.cpus {
        parameter("mpi_yield_when_idle", "1");
    }
    if job.reach != Reach::Local {
        for (name, _) in environment {
            if PASSED_ON.contains(&name.as_str()) || PASSED_ON_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                line.option("-x", name);
            }
        }
    }
    job.variables.iter().for_each(|variable| line.option("-x", variable));
    line.option("-x", last_word::LAUNCH);
    line.0.extend(job.program.iter().chain(&job.arguments).cloned());
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.0.extend([name.into(), value.as_ref().to_owned()]);
    }
}

/// The variables to set for mpirun itself.
pub fn own_variables(is_root: bool, tasks_per_node: Option<String>) -> Vec<(&'static str, String)> {
    let for_root = start::MPIRUN_FOR_ROOT.map(|(name, value)| (name, value.to_owned()));
    let for_slurm = tasks_per_node.map(|tasks| ("SLURM_TASKS_PER_NODE", tasks));
    for_root.into_iter().filter(|_| is_root).chain(for_slurm).collect()
}

/// The command as a shell would take it.
pub fn quoted(variables: &[(&str, String)], line: &[OsString]) -> String {
    let variables = variables.iter().map(|(name, value)| format!("{name}={}", shell_words::quote(value)));
    let words = line.iter().map(|word| shell_words::quote(&word.to_string_lossy()).into_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// The words that start biodist: `given`, else the one beside the launcher, else what PATH finds on every host.
///
/// # Errors
/// Words that are none, or whose quotes are not closed.
pub fn program(given: Option<&str>, launcher: Option<&Path>) -> Result<Vec<OsString>> {
    if let Some(given) = given {
        let words = shell_words::split(given).ok().filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| Exit::Usage.error(format!("--program is '{given}'; give a program, in the words of a shell")))?;
        return Ok(words.into_iter().map(OsString::from).collect());
    }
    let beside = launcher.and_then(Path::parent).map(|folder| folder.join("biodist")).filter(|path| path.is_file());
    Ok(vec![beside.map_or_else(|| "biodist".into(), PathBuf::into_os_string)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(shares: &[(&str, usize)], reach: Reach) -> Job {
        Job {
            shares: shares.iter().map(|&(host, count)| Share { host: host.to_owned(), count }).collect(),
            program: vec!["/opt/bin/biodist".into()],
            arguments: ["train", "my config.toml", "--set", "a=b"].map(OsString::from).to_vec(),
            folder: "/home/me".into(),
            variables: Vec::new(),
            reach,
            cpus: 4,
        }
    }

    fn typed(job: &Job, environment: &[(&str, &str)]) -> String {
        let environment: Vec<_> = environment.iter().map(|&(name, value)| (name.to_owned(), OsString::from(value))).collect();
        quoted(&[], &command_line(job, &environment))
    }

    #[test]
    fn one_host() {
        let line = typed(&job(&[("localhost", 2)], Reach::Local), &[("LD_LIBRARY_PATH", "/lib")]);
        assert_eq!(
            line,
            "mpirun --host localhost:2 -n 2 --map-by slot --bind-to none --wdir /home/me --tag-output \
             --mca rtc_hwloc_vmhole none -x BIODIST_LAUNCH /opt/bin/biodist train 'my config.toml' --set 'a=b'"
        );
        assert!(typed(&job(&[("localhost", 5)], Reach::Local), &[]).contains("--mca mpi_yield_when_idle 1"));
    }

    #[test]
    fn several_hosts_keep_their_connections_alive_and_get_the_environment() {
        let environment = [("HOME", "/root"), ("LD_LIBRARY_PATH", "/lib"), ("NCCL_DEBUG", "INFO")];
        let line = typed(&job(&[("a", 4), ("b", 3)], Reach::Ssh), &environment);
        assert!(line.starts_with("mpirun --host a:4,b:3 -n 7 "), "{line}");
        assert!(line.contains("--mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 5"), "{line}");
        assert!(line.contains("--mca plm_rsh_args '-o BatchMode=yes -o ConnectTimeout=10'"), "{line}");
        assert!(line.contains(" -x LD_LIBRARY_PATH -x NCCL_DEBUG -x BIODIST_LAUNCH "), "{line}");
        assert!(!line.contains("HOME"), "{line}");
    }

    #[test]
    fn slurm_is_left_out_where_only_its_variables_are_there() {
        let environment = [("SLURM_JOB_ID", "7")];
        let line = typed(&job(&[("a", 1), ("b", 1)], Reach::Ssh), &environment);
        assert!(line.contains("--mca plm ^slurm --mca ras ^slurm"), "{line}");
        assert!(!typed(&job(&[("a", 1), ("b", 1)], Reach::Slurm), &environment).contains("^slurm"));
        assert!(!typed(&job(&[("a", 1), ("b", 1)], Reach::Ssh), &[]).contains("^slurm"));
    }

    #[test]
    fn what_the_user_set_for_open_mpi_stays() {
        let environment = [("OMPI_MCA_oob_tcp_keepalive_time", "60"), ("OMPI_MCA_plm_rsh_agent", "oarsh")];
        let line = typed(&job(&[("a", 1), ("b", 1)], Reach::Ssh), &environment);
        assert!(!line.contains("keepalive_time") && line.contains("keepalive_intvl"), "{line}");
        assert!(!line.contains("plm_rsh_args"), "options of ssh are not for another program: {line}");
        assert!(!typed(&job(&[("a", 1), ("b", 1)], Reach::Slurm), &[]).contains("plm_rsh"), "Slurm starts its own");
    }

    #[test]
    fn the_program_may_be_in_a_container() {
        let words = |given| {
            program(Some(given), None).map(|words| words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>())
        };
        assert_eq!(words("apptainer exec --nv 'my image.sif' biodist").unwrap(), ["apptainer", "exec", "--nv", "my image.sif", "biodist"]);
        assert!(words("").is_err() && words("'open").is_err());

        let folder = tempfile::tempdir().unwrap();
        let launcher = folder.path().join("biodist-launch");
        assert_eq!(program(None, Some(&launcher)).unwrap(), ["biodist"], "from PATH");
        std::fs::write(folder.path().join("biodist"), "").unwrap();
        assert_eq!(program(None, Some(&launcher)).unwrap(), [folder.path().join("biodist").into_os_string()]);
    }

    #[test]
    fn variables_asked_for_are_passed_on() {
        let mut job = job(&[("localhost", 1)], Reach::Local);
        job.variables = vec!["A=b c".to_owned(), "D".to_owned()];
        assert!(typed(&job, &[]).contains("-x 'A=b c' -x D -x BIODIST_LAUNCH"));
        let variables = own_variables(true, Some("2,4".to_owned()));
        assert_eq!(quoted(&variables[1..], &["mpirun".into()]), "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 SLURM_TASKS_PER_NODE=2,4 mpirun");
        assert!(own_variables(false, None).is_empty());
    }
}
