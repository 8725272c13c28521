//! Commands on the hosts beside mpirun's own: asking whether a host is there before ranks are sent to it, and ending what a lost
//! connection leaves behind.
//!
//! They go the way that mpirun goes: ssh, or the program that Open MPI's `plm_rsh_agent` names.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use biodist_process::last_word::LAUNCH;

use crate::mpirun::SSH_OPTIONS;
use crate::question::Question;

/// A command that takes longer has failed. Above ssh's own limit, whose message says more.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same where nothing is lost by not waiting: a host that cannot be reached looks after itself.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);
/// What Open MPI's folder for its own files on a host must take.
const ROOM_MIB: usize = 16;
/// What a shell has for a program, here the one that tries that, which is not there.
const NO_PROGRAM: u8 = 127;

/// The program that reaches other hosts, and its options.
#[derive(Clone, Debug)]
pub struct Agent {
    words: Vec<OsString>,
    /// Whether it hands one word to a shell on the host, as ssh does, or starts a program with its arguments.
    has_shell: bool,
}

impl Agent {
    /// As Open MPI will choose it in this environment.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Agent {
        let named = variable("OMPI_MCA_plm_rsh_agent").unwrap_or_default();
        // Several are told apart by colons, of which Open MPI takes the first that is there.
        let alternatives = named.split(':').filter_map(|agent| shell_words::split(agent).ok()).filter(|words| !words.is_empty());
        let there = |words: &Vec<String>| is_program(&words[0], variable("PATH").unwrap_or_default().as_ref());
        let all: Vec<Vec<String>> = alternatives.collect();
        let chosen = all.iter().find(|words| there(words)).or(all.first());
        let words: Vec<OsString> = match chosen {
            Some(words) => words.iter().map(OsString::from).collect(),
            None => ["ssh"].iter().chain(&SSH_OPTIONS).map(OsString::from).collect(),
        };
        Agent { words, has_shell: true }
    }

    /// Slurm's own way to the nodes of the job that this process runs in, beside what is running there.
    pub fn of_slurm() -> Agent {
        let words = ["srun", "--overlap", "--mpi=none", "--mem=0", "--nodes=1", "--ntasks=1", "--nodelist"];
        Agent { words: words.iter().map(OsString::from).collect(), has_shell: false }
    }

    /// Why `host` cannot be asked.
    fn lack(&self, host: &str, error: &std::io::Error) -> String {
        if is_this_host(host) {
            return format!("sh cannot be started: {error}");
        }
        let name = self.words[0].to_string_lossy();
        match error.kind() {
            std::io::ErrorKind::NotFound if !self.has_shell => {
                format!("{name} is not on the PATH here; load your cluster's module for Slurm")
            }
            std::io::ErrorKind::NotFound => {
                format!(
                    "{name} is not here to reach it; install ssh (Debian: openssh-client), or name another program in OMPI_MCA_plm_rsh_agent"
                )
            }
            _ => format!("{name} cannot be started: {error}"),
        }
    }

    /// `script` for `sh`, on `host`.
    fn command(&self, host: &str, script: &str) -> Command {
        if is_this_host(host) {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            return command;
        }
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).arg(host);
        match self.has_shell {
            true => command.arg(format!("sh -c {}", shell_words::quote(script))),
            false => command.args(["sh", "-c", script]),
        };
        command
    }
}

/// Whether `name`, a path or a word to be looked for in the folders of `path`, is a program.
fn is_program(name: &str, path: &OsStr) -> bool {
    let is_one = |path: &Path| path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0);
    match name.contains('/') {
        true => is_one(Path::new(name)),
        false => std::env::split_paths(path).any(|folder| is_one(&folder.join(name))),
    }
}

/// Whether `name` is this machine: one of its names, or an address that a socket can be bound to.
pub fn is_this_host(name: &str) -> bool {
    if name == "localhost" || name == biodist_process::host::name() {
        return true;
    }
    let addresses: Vec<IpAddr> = match name.parse() {
        Ok(address) => vec![address],
        Err(_) => (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default(),
    };
    !addresses.is_empty() && addresses.iter().all(|&address| UdpSocket::bind((address, 0)).is_ok())
}

/// The hosts on which `program` cannot be started in `folder`, each with the reason. All are asked at once. Where Open MPI has no room for
/// its own files (9 MB for two ranks of 4.1.4) it says so in no words of ours, or waits for ever.
pub fn unusable(agent: &Agent, hosts: &[String], folder: &Path, program: &OsStr) -> Vec<(String, String)> {
    let folder_word = shell_words::quote(&folder.to_string_lossy()).into_owned();
    let program_word = shell_words::quote(&program.to_string_lossy()).into_owned();
    let script = format!(
        "fail() {{ echo \"$1; $2\" >&2; exit 1; }}; named='--program names what is started'; cd {folder_word} || exit 1; \
         found=$(command -v {program_word}) || fail {program_word}' is not there' \"$named\"; \
         case $found in */*) [ -f \"$found\" ] && [ -x \"$found\" ] || fail {program_word}' cannot be executed' \"$named\";; esac; \
         folder=${{OMPI_MCA_orte_tmpdir_base:-${{TMPDIR:-${{TEMP:-${{TMP:-/tmp}}}}}}}}; file=$folder/biodist-launch.$$; \
         mkdir -p \"$folder\"; dd if=/dev/zero of=\"$file\" bs=1048576 count={ROOM_MIB}; written=$?; rm -f \"$file\"; \
         [ $written = 0 ] || [ $written = {NO_PROGRAM} ] || \
         fail \"$folder, where Open MPI keeps its files, does not take {ROOM_MIB} MiB\" 'free some space there, or set TMPDIR to another folder'"
    );
    on_all(agent, hosts, &script, PATIENCE).into_iter().filter_map(|(host, result)| result.err().map(|reason| (host, reason))).collect()
}

/// GPUs of each of `hosts`, as NVIDIA's driver lists them there; none for a host that does not answer.
pub fn gpus(agent: &Agent, hosts: &[String]) -> Vec<usize> {
    let count = |said: Result<String, String>| said.ok().and_then(|said| said.trim().parse().ok()).unwrap_or(0);
    on_all(agent, hosts, "ls /proc/driver/nvidia/gpus 2>/dev/null | wc -l", PATIENCE).into_iter().map(|(_, said)| count(said)).collect()
}

/// Ends every process of launch `id` on `hosts`, and returns on how many hosts there were some. A host that cannot be reached is left
/// to the ranks' own watchdogs.
pub fn sweep(agent: &Agent, hosts: &[String], id: &str) -> usize {
    let script = format!(
        "found=1; for file in $(grep -lszxF {LAUNCH}={id} /proc/[0-9]*/environ); do \
         process=${{file#/proc/}}; kill -9 ${{process%/environ}} 2>/dev/null && found=0; done; exit $found"
    );
    on_all(agent, hosts, &script, SHORT_PATIENCE).iter().filter(|(_, result)| result.is_ok()).count()
}

/// What `script` prints on each of `hosts`, which is little: an error is what the host, or the way to it, says.
fn on_all(agent: &Agent, hosts: &[String], script: &str, patience: Duration) -> Vec<(String, Result<String, String>)> {
    let asked: Vec<_> = hosts.iter().map(|host| (host.clone(), Question::ask(&mut agent.command(host, script)))).collect();
    let until = Instant::now() + patience;
    let answer = |host: &str, asked: std::io::Result<Question>| {
        asked.map_err(|error| agent.lack(host, &error)).and_then(|question| question.answer(until).map_err(|failure| failure.to_string()))
    };
    asked.into_iter().map(|(host, asked)| (host.clone(), answer(&host, asked))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands in for ssh: knows the host "there", and none else.
    fn agent(folder: &Path) -> Agent {
        let path = folder.join("agent");
        std::fs::write(&path, "[ \"$1\" = there ] || { echo no route to $1 >&2; exit 255; }\nshift\nexec sh -c \"$*\"\n").unwrap();
        // Read and not executed: the file may still be open for writing in a process that another test is starting.
        let words = format!("sh {}", shell_words::quote(&path.to_string_lossy()));
        Agent::from_environment(|name| (name == "OMPI_MCA_plm_rsh_agent").then(|| words.clone()))
    }

    #[test]
    fn of_several_agents_the_first_that_is_there_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [("ssh", 0o644), ("rsh", 0o755)] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let words = |agent: Option<&str>| {
            let variable = |name: &str| match name {
                "PATH" => Some(folder.path().display().to_string()),
                _ => agent.map(str::to_owned),
            };
            let words = Agent::from_environment(variable).words;
            words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(words(Some("ssh : rsh -n")), ["rsh", "-n"]);
        // Where none is there the first says so.
        assert_eq!(words(Some("ssh : remsh")), ["ssh"]);
        assert_eq!(words(None), [&["ssh"][..], &SSH_OPTIONS].concat());
    }

    #[test]
    fn this_host_is_known_by_name_and_address() {
        assert!(is_this_host("localhost") && is_this_host("127.0.0.1"));
        assert!(!is_this_host("192.0.2.1"), "an address set apart for documentation");
        assert!(!is_this_host("no-such-host.invalid"));
    }

    #[test]
    fn hosts_that_cannot_run_the_program_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(folder.path());
        let hosts = ["there", "gone", "localhost"].map(str::to_owned);
        let found = unusable(&agent, &hosts, folder.path(), OsStr::new("/bin/sh"));
        assert_eq!(found, [("gone".to_owned(), "no route to gone".to_owned())]);

        let found = unusable(&agent, &hosts[..1], folder.path(), OsStr::new("/no/biodist"));
        assert_eq!(found, [("there".to_owned(), "/no/biodist is not there; --program names what is started".to_owned())]);
        std::fs::write(folder.path().join("text"), "").unwrap();
        for no_program in ["./text", folder.path().to_str().unwrap()] {
            let found = unusable(&agent, &hosts[..1], folder.path(), OsStr::new(no_program));
            assert_eq!(found, [("there".to_owned(), format!("{no_program} cannot be executed; --program names what is started"))]);
        }
        let found = unusable(&agent, &hosts[..1], Path::new("/no/folder"), OsStr::new("/bin/sh"));
        assert!(found[0].1.contains("/no/folder"), "{found:?}");
    }

    #[test]
    fn a_way_to_the_hosts_that_is_not_there_is_named() {
        let nowhere = Agent::from_environment(|name| (name == "OMPI_MCA_plm_rsh_agent").then(|| "/no/such/ssh -x".to_owned()));
        let found = unusable(&nowhere, &["there".to_owned()], Path::new("/"), OsStr::new("/bin/sh"));
        assert!(found[0].1.starts_with("/no/such/ssh is not here to reach it; install ssh"), "{found:?}");
    }

    #[test]
    fn a_host_that_does_not_answer_has_no_gpus_to_count() {
        let folder = tempfile::tempdir().unwrap();
        let here = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
        assert_eq!(gpus(&agent(folder.path()), &["there".to_owned(), "gone".to_owned()]), [here, 0]);
        let said = on_all(&agent(folder.path()), &["there".to_owned()], "echo 8", PATIENCE);
        assert_eq!(said, [("there".to_owned(), Ok("8\n".to_owned()))]);
    }

    #[test]
    fn processes_of_a_launch_are_ended_and_others_are_not() {
        use std::os::unix::process::ExitStatusExt;
        let folder = tempfile::tempdir().unwrap();
        let id = format!("test-{}", std::process::id());
        let sleep = |id: &str| Command::new("sleep").arg("60").env(LAUNCH, id).spawn().unwrap();
        let (mut ours, mut other) = (sleep(&id), sleep(&format!("{id}0")));
        assert_eq!(sweep(&agent(folder.path()), &["there".to_owned(), "gone".to_owned()], &id), 1);
        assert_eq!(ours.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
