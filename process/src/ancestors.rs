//! A process and its ancestors, as /proc shows them.

/// A process, and when it began, in the system's ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
    pub began: u64,
    /// Its program's name, of which the system keeps 15 characters.
    pub name: String,
    /// What it was doing: a letter as in proc(5).
    pub state: char,
    parent: u32,
}

impl Process {
    /// Process `id`; none where it has ended, or cannot be seen.
    pub fn find(id: u32) -> Option<Process> {
        Process::parse(id, &std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn parse(id: u32, stat: &str) -> Option<Process> {
        // The name, in parentheses, may hold anything.
        let (head, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let name = head.split_once('(')?.1.to_owned();
        let state = fields.first()?.chars().next()?;
        Some(Process { id, began: fields.get(19)?.parse().ok()?, name, state, parent: fields.get(1)?.parse().ok()? })
    }

    /// The value of a variable that it was started with.
    pub fn variable(&self, name: &str) -> Option<String> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.id)).ok()?;
        let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
        variables.find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }
}

/// `process` and its ancestors, from the nearest on.
pub fn line(process: u32) -> impl Iterator<Item = Process> {
    std::iter::successors(Process::find(process), |child| Process::find(child.parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_names_may_hold_anything() {
        let parsed = Process::parse(123, "123 (a (b) c) S 77 123 123 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.parent), ("a (b) c", 77));
        assert_eq!((parsed.state, parsed.began), ('S', 4242));
        assert_eq!(Process::parse(1, "nonsense"), None);
    }

    #[test]
    fn a_process_has_parents_up_to_the_first() {
        let own = std::process::id();
        let all: Vec<Process> = line(own).collect();
        assert_eq!(all[0].id, own);
        assert_eq!(all[1].id, std::os::unix::process::parent_id());
        assert!(all.windows(2).all(|pair| pair[1].began <= pair[0].began), "{all:?}");
        assert_eq!(all[0].variable("CARGO_PKG_NAME").as_deref(), Some("biodist-process"));
        assert_eq!(Process::find(u32::MAX), None);
    }
}
