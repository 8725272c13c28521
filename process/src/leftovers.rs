//! What Open MPI leaves on a host where mpirun, or a rank, was killed: each rank's 4 MiB of shared memory, and the job's folder of files
//! that ranks map. Nobody else removes them, and containers have 64 MB of shared memory.
//!
//! Only what this user's processes on this host made is looked at, under Open MPI's exact names, and removed only where it is certain that
//! nobody uses it: the daemon that made a folder has ended, no process has a file mapped or open, and it is not new.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ancestors::Process;
use crate::{host, ranks};

/// What is younger may belong to a job that is starting.
const AGE: Duration = Duration::from_secs(10);

/// Removes what is left on this host; returns how many files and folders that were.
pub fn remove() -> usize {
    if !sees_all_users_of_a_name() {
        return 0;
    }
    // SAFETY: geteuid has no preconditions.
    let place = Place::new(&host::name(), unsafe { libc::geteuid() }, AGE);
    place.remove(Path::new("/dev/shm"), &std::env::temp_dir())
}

/// Whether a host's name in a file's name stands for processes that this one sees. In a container that has process numbers of its own and
/// its host's name, others may use what looks abandoned from in here.
fn sees_all_users_of_a_name() -> bool {
    let own_name = || fs::read_link("/proc/self/ns/uts").is_ok_and(|name| name.as_os_str() != "uts:[4026531838]");
    !ranks::is_shut_in() || own_name()
}

struct Place {
    /// HOST.USER as names have it: Open MPI leaves the domain out unless it is told to keep it.
    makers: [String; 2],
    user: u32,
    age: Duration,
}

impl Place {
    fn new(host: &str, user: u32, age: Duration) -> Place {
        let short = host.split('.').next().unwrap_or(host);
        Place { makers: [host, short].map(|name| format!("{name}.{user}")), user, age }
    }

    fn remove(&self, shared_memory: &Path, temporary: &Path) -> usize {
        let segments = self.found(shared_memory, |name| self.is_segment(name), Metadata::is_file);
        let sessions: BTreeSet<PathBuf> = self.makers.iter().map(|maker| temporary.join(format!("ompi.{maker}"))).collect();
        let of_a_job = |name: &str| name.starts_with("pid.") || name.starts_with("jf.");
        let folders = sessions.iter().flat_map(|folder| self.found(folder, of_a_job, Metadata::is_dir));
        let folders: Vec<PathBuf> = folders.filter(|folder| has_ended(folder)).collect();
        if segments.is_empty() && folders.is_empty() {
            return 0;
        }
        let used = files_in_use();
        let unused = |path: &&PathBuf| !used.iter().any(|file| file.starts_with(path));
        let files = segments.iter().filter(unused).filter(|path| fs::remove_file(path).is_ok()).count();
        files + folders.iter().filter(unused).filter(|path| fs::remove_dir_all(path).is_ok()).count()
    }

    /// What is in `folder` under such a name, of such a kind, this user's, and not new.
    fn found(&self, folder: &Path, name: impl Fn(&str) -> bool, kind: impl Fn(&Metadata) -> bool) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let ours = |facts: &Metadata| kind(facts) && facts.uid() == self.user;
        let old = |facts: &Metadata| facts.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= self.age));
        entries
            .filter(|entry| entry.file_name().to_str().is_some_and(&name))
            // Of a link, not of what it leads to.
            .filter(|entry| entry.metadata().is_ok_and(|facts| ours(&facts) && old(&facts)))
            .map(|entry| entry.path())
            .collect()
    }

    /// `vader_segment.HOST.USER.JOB.RANK`, where job (in hexadecimal) and rank are numbers.
    fn is_segment(&self, name: &str) -> bool {
        let Some(name) = name.strip_prefix("vader_segment.") else { return false };
        let made_of = |text: &str, radix| !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
        let numbers = self.makers.iter().find_map(|maker| name.strip_prefix(maker.as_str())?.strip_prefix('.'));
        let numbers = numbers.and_then(|numbers| numbers.split_once('.'));
        numbers.is_some_and(|(job, rank)| made_of(job, 16) && made_of(rank, 10))
    }
}

/// Whether the daemon that made a job's folder has ended: its process number is the name's, or ends the name of a folder in it.
fn has_ended(folder: &Path) -> bool {
    let number = |name: &OsStr, separator| name.to_str().and_then(|name| name.rsplit_once(separator)?.1.parse::<u32>().ok());
    let name = folder.file_name().unwrap_or_default();
    let daemon = if name.to_str().is_some_and(|name| name.starts_with("pid.")) {
        number(name, '.')
    } else {
        let inside = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        inside.filter(|name| name.to_str().is_some_and(|name| name.starts_with("pmix_dstor_"))).find_map(|name| number(&name, '_'))
    };
    daemon.is_some_and(|daemon| Process::find(daemon).is_none())
}

/// The files that processes have mapped or open, as far as this one may look: into those of its own user.
fn files_in_use() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.parse::<u32>().is_ok());
    let mut files = BTreeSet::new();
    for process in processes.map(|entry| entry.path()).filter(is_process) {
        let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
        files.extend(maps.lines().filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..]))));
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.extend(open.filter_map(|entry| fs::read_link(entry.path()).ok()));
        files.extend(fs::read_link(process.join("cwd")));
    }
    files
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn place(user: u32, age: Duration) -> Place {
        Place::new("n1.cluster", user, age)
    }

    /// A process number that nobody has.
    fn ended() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn only_what_nobody_uses_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (shm, tmp) = (folder.path().join("shm"), folder.path().join("tmp"));
        // SAFETY: geteuid has no preconditions.
        let user = unsafe { libc::geteuid() };
        let sessions = tmp.join(format!("ompi.n1.cluster.{user}"));
        fs::create_dir_all(&shm).unwrap();
        let segment = |name: &str| {
            let path = shm.join(format!("vader_segment.{name}"));
            fs::write(&path, "memory").unwrap();
            path
        };
        let session = |name: String| {
            let path = sessions.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("contact.txt"), "1").unwrap();
            path
        };
        let abandoned = segment(&format!("n1.cluster.{user}.5a880001.12"));
        let (open, mapped) = (segment(&format!("n1.{user}.5a880001.1")), segment(&format!("n1.cluster.{user}.5a880001.2")));
        let others = [
            segment(&format!("n2.{user}.5a880001.0")),
            segment(&format!("n1.cluster.{}.5a880001.0", user + 1)),
            segment(&format!("n1.cluster.{user}.5a88001g.0")),
            segment(&format!("n1.cluster.{user}.5a880001")),
            segment(&format!("n1.cluster.{user}.5a880001.0.copy")),
            shm.join("biodist"),
        ];
        fs::write(&others[5], "").unwrap();
        let link = shm.join(format!("vader_segment.n1.cluster.{user}.5a880001.3"));
        symlink(&others[5], &link).unwrap();
        let gone = [session(format!("pid.{}", ended())), session("jf.12".to_owned())];
        fs::create_dir(gone[1].join(format!("pmix_dstor_ds21_{}", ended()))).unwrap();
        let (alive, unknown) = (session(format!("pid.{}", std::process::id())), session("jf.13".to_owned()));

        let _open = File::open(&open).unwrap();
        let memory = File::open(&mapped).unwrap();
        // SAFETY: the file is open, and nothing reads what is mapped.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 6, libc::PROT_READ, libc::MAP_SHARED, memory.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED);
        drop(memory);

        assert_eq!(place(user, Duration::from_secs(60)).remove(&shm, &tmp), 0, "all of it is new");
        assert_eq!(place(user + 1, Duration::ZERO).remove(&shm, &tmp), 0, "all of it is another's");
        assert_eq!(place(user, Duration::ZERO).remove(&shm, &tmp), 3);
        assert!(!abandoned.exists() && gone.iter().all(|path| !path.exists()));
        assert!(open.exists() && mapped.exists() && link.is_symlink() && alive.exists() && unknown.exists());
        assert!(others.iter().all(|path| path.exists()));
        // SAFETY: it is mapped, and used no more.
        unsafe { libc::munmap(at, 6) };
        assert_eq!(place(user, Duration::ZERO).remove(&shm, &tmp), 1);
        assert!(!mapped.exists() && open.exists());
    }
}
