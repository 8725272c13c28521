//! Two hosts that share nothing but files: each has its own network, processes, name and /dev/shm, in namespaces, and a real ssh server. A
//! switch joins them, which loses what it is told to lose without either side being told.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::site::{Job, Site, children, wait_for};
use crate::{launcher, output};

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// What the first process of a host does: `$1` is the host's name, `$2` the folder of its ssh. It takes in what others leave behind.
const FIRST: &str = r#"
hostname "$1"
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run && mkdir /run/sshd
mount --bind "$2" /etc/ssh
/usr/sbin/sshd -D -E "$2/log-$1" &
wait
"#;

/// One pair at a time: what Open MPI keeps in /tmp is named by host and process, and both are the same in each pair.
static TURN: Mutex<()> = Mutex::new(());

/// The hosts, taken down when dropped.
pub struct Hosts {
    _turn: MutexGuard<'static, ()>,
    /// Namespaces of the networks: the hosts', then the switch's.
    networks: [String; 3],
    hosts: Vec<Child>,
}

fn ip(arguments: &[&str]) -> String {
    output(Command::new("ip").args(arguments))
}

impl Hosts {
    pub fn new(site: &Site) -> Hosts {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let networks = ["1", "2", "switch"].map(|name| format!("biodist{}-{name}", std::process::id()));
        let mut hosts = Hosts { _turn: turn, networks, hosts: Vec::new() };
        let switch = hosts.networks[2].clone();
        hosts.networks.iter().for_each(|network| drop(ip(&["netns", "add", network])));
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
        prepare_ssh(site);
        for (host, address) in ADDRESSES.iter().enumerate() {
            let (network, port) = (hosts.networks[host].clone(), format!("port{}", host + 1));
            ip(&["-n", &network, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch]);
            ip(&["-n", &switch, "link", "set", &port, "master", "bridge", "up"]);
            ip(&["-n", &network, "link", "set", "lo", "up"]);
            ip(&["-n", &network, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", &network, "link", "set", "eth0", "up"]);
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &network, "unshare", "--uts", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]);
            command.args(["bash", "-c", FIRST, "host", &format!("h{}", host + 1)]).arg(site.path("ssh"));
            hosts.hosts.push(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        }
        std::fs::write(site.path("hosts.txt"), ADDRESSES.map(|address| format!("{address} slots=1\n")).concat()).unwrap();
        for address in ADDRESSES {
            wait_for("a host", || {
                hosts.command(site, &["ssh", "-o", "ConnectTimeout=1", address, "true"]).output().unwrap().status.success()
            });
        }
        hosts
    }

    /// The first process of a host.
    fn first(&self, host: usize) -> Option<i32> {
        children(self.hosts[host].id().cast_signed()).first().copied()
    }

    /// A command on the first host.
    fn command(&self, site: &Site, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        // Before the host has its first process, this fails.
        let first = self.first(0).unwrap_or(0);
        command.args([&format!("--target={first}"), "--net", "--uts", "--pid", "--mount"]);
        command.arg(format!("--wd={}", site.path("").display())).args(words);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `biodist-launch` on the first host, for both.
    pub fn launch(&self, site: &Site, arguments: &[&str]) -> Job {
        let launcher = launcher().display().to_string();
        let words = [&[launcher.as_str(), "--hosts", "hosts.txt"], arguments].concat();
        Job::start(self.command(site, &words), None)
    }

    /// `mpirun` on the first host, for `per_host` ranks on each.
    pub fn mpirun(&self, site: &Site, per_host: usize, arguments: &[&str]) -> Job {
        let (ranks, slots) = ((2 * per_host).to_string(), ADDRESSES.map(|address| format!("{address}:{per_host}")).join(","));
        let words = [
            &["mpirun", "-n", &ranks, "--host", &slots, "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"][..],
            &["--mca", "rtc_hwloc_vmhole", "none", env!("CARGO_BIN_EXE_biodist")],
            arguments,
        ];
        Job::start(self.command(site, &words.concat()), None)
    }

    /// From now on the switch passes nothing on.
    pub fn cut(&self) {
        ip(&["-n", &self.networks[2], "link", "set", "port2", "nomaster"]);
    }

    /// Numbers and names of all processes on a host, but for those that make it one.
    pub fn processes(&self, host: usize) -> Vec<(i32, String)> {
        let Some(first) = self.first(host) else { return Vec::new() };
        let namespace = |process: i32| std::fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter(|&process| process != first && namespace(process).is_some() && namespace(process) == namespace(first))
            .filter_map(|process| Some((process, std::fs::read_to_string(format!("/proc/{process}/comm")).ok()?.trim().to_owned())))
            .filter(|(_, name)| name != "sshd")
            .collect()
    }

    /// The process of this name on a host.
    pub fn process(&self, host: usize, name: &str) -> i32 {
        let all = self.processes(host);
        all.iter().find(|(_, other)| other == name).unwrap_or_else(|| panic!("{name} runs: {all:?}")).0
    }

    /// Waits until nothing is left on either host.
    pub fn wait_for_the_end(&self) {
        wait_for("the end of all processes", || (0..2).all(|host| self.processes(host).is_empty()));
    }
}

/// Keys and settings, for the hosts' /etc/ssh.
fn prepare_ssh(site: &Site) {
    let folder = site.path("ssh");
    std::fs::create_dir(&folder).unwrap();
    let key = |name: &str| -> PathBuf {
        let path = folder.join(name);
        output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path));
        path
    };
    key("host");
    std::fs::copy(key("user").with_extension("pub"), folder.join("authorized")).unwrap();
    let server = "HostKey /etc/ssh/host\nAuthorizedKeysFile /etc/ssh/authorized\nStrictModes no\nPermitRootLogin yes\nPidFile none\n";
    std::fs::write(folder.join("sshd_config"), server).unwrap();
    let client = "Host *\nIdentityFile /etc/ssh/user\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n";
    std::fs::write(folder.join("ssh_config"), client).unwrap();
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // With its first process, all of a host's end.
        for host in &mut self.hosts {
            let _ = host.kill();
            let _ = host.wait();
        }
        for network in &self.networks {
            let _ = Command::new("ip").args(["netns", "delete", network]).status();
        }
    }
}
