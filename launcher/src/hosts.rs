//! Host files in the syntax of Open MPI: a host a line, `slots=N` processes on it, comments after `#`.
//!
//! They are read here and not by mpirun, since after the loss of a host the next start needs the list without it. What is not
//! understood is refused with its line, as mpirun reports such lines without saying what is wrong with them.

use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::Result;
use biodist_process::files::open_regular;

use biodist_process::exit::Exit;

/// A host and, where the file says so, how many processes it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub slots: Option<usize>,
}

/// The hosts of the file at `path`, in its order, each once.
///
/// # Errors
/// A file that cannot be read or holds no host; a line that is not understood.
pub fn read(path: &Path) -> Result<Vec<Host>> {
    let unreadable = |reason: String| Exit::Usage.error(format!("cannot read the host file {}: {reason}", path.display()));
    let bytes = bytes(path).map_err(unreadable)?;
    let text = decode(&bytes).map_err(unreadable)?;
    parse(text).map_err(|message| Exit::Usage.error(format!("{}:{message}", path.display())))
}

/// A list of hosts is far shorter.
const LONGEST: u64 = 16 << 20;

/// The content of a file, and of nothing that would be waited for, or read without end.
fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let file = open_regular(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => format!("{error}; write the hosts into a file"),
        _ => error.to_string(),
    })?;
    let facts = file.metadata().map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST { Err(format!("it has {} bytes, and no list of hosts is so long", facts.len())) } else { Ok(bytes) }
}

/// The text of a file as editors write it: UTF-8, with or without a byte-order mark.
fn decode(bytes: &[u8]) -> Result<&str, String> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let text = bytes.strip_prefix(MARK).unwrap_or(bytes);
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") || text.contains(&0) {
        return Err("it is not UTF-8 but UTF-16, or no text at all; save it as UTF-8".to_owned());
    }
    std::str::from_utf8(text).map_err(|error| {
        let line = 1 + text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8; save it as UTF-8")
    })
}

/// Of a host; more can only be a slip.
const MOST_SLOTS: usize = 65_536;

/// The error is `LINE: MESSAGE`, to be put after the file's name.
fn parse(text: &str) -> Result<Vec<Host>, String> {
    let mut hosts: Vec<Host> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let Some(host) = parse_line(content).map_err(|message| format!("{}: {message}", index + 1))? else { continue };
        match hosts.iter_mut().find(|known| known.name == host.name) {
            // A host named again adds its slots; a line without a number is one more.
            Some(known) => known.slots = Some(known.slots.unwrap_or(1) + host.slots.unwrap_or(1)),
            None => hosts.push(host),
        }
    }
    if hosts.is_empty() { Err("1: no host in this file; write a line such as 'node1 slots=4'".to_owned()) } else { Ok(hosts) }
}

fn parse_line(content: &str) -> Result<Option<Host>, String> {
    let spaced = content.replace('=', " = ");
    let mut words = spaced.split_whitespace().peekable();
    let Some(name) = words.next() else { return Ok(None) };
    check_name(name)?;
    if words.peek() == Some(&"=") {
        return Err(format!("the line starts with '{name}='; it has to start with a host's name"));
    }
    let (mut slots, mut most) = (None, None);
    while let Some(key) = words.next() {
        if words.next() != Some("=") {
            return Err(format!("'{key}' is not of the form key=value; write 'slots={key}' for the number of processes on {name}"));
        }
        let value = words.next().unwrap_or_default();
        let target = match key {
            "slots" => &mut slots,
            "max_slots" | "max-slots" => &mut most,
            _ => return Err(format!("unknown key '{key}'; known are slots and max_slots (user and port belong into ~/.ssh/config)")),
        };
        let count = value.parse().ok().filter(|count| (1..=MOST_SLOTS).contains(count));
        *target = Some(count.ok_or_else(|| format!("{key} is '{value}'; give a whole number from 1 to {MOST_SLOTS}"))?);
    }
    if let (Some(slots), Some(most)) = (slots, most)
        && slots > most
    {
        return Err(format!("slots is {slots}, more than max_slots, {most}"));
    }
    Ok(Some(Host { name: name.to_owned(), slots: slots.or(most) }))
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
        Ok(())
    } else {
        Err(format!("'{name}' is not a host's name or IPv4 address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, slots: Option<usize>) -> Host {
        Host { name: name.to_owned(), slots }
    }

    #[test]
    fn hosts_slots_and_comments() {
        let text = "# two nodes\nnode1 slots=4\n\n  10.0.0.2\tslots = 2 max_slots=8 # slow\nnode-3.cluster\nnode4 max-slots=2\n";
        let expected = [host("node1", Some(4)), host("10.0.0.2", Some(2)), host("node-3.cluster", None), host("node4", Some(2))];
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_host_named_again_adds_its_slots() {
        assert_eq!(parse("a\nb slots=2\na\nb slots=3\n").unwrap(), [host("a", Some(2)), host("b", Some(5))]);
    }

    #[test]
    fn errors_name_the_line_and_what_was_found() {
        for (text, expected) in [
            ("", "1: no host"),
            ("# only a comment", "1: no host"),
            ("a slots=4\nb slots=four", "2: slots is 'four'"),
            ("a slots=0", "1: slots is '0'"),
            ("a slots=18446744073709551615", "1: slots is '18446744073709551615'; give a whole number from 1 to 65536"),
            ("a slots=", "1: slots is ''"),
            ("a slots=-1", "1: slots is '-1'"),
            ("a 4", "1: '4' is not of the form key=value; write 'slots=4'"),
            ("\na slot=4", "2: unknown key 'slot'"),
            ("a slots=9 max_slots=8", "1: slots is 9, more than max_slots, 8"),
            ("^a", "1: '^a' is not a host's name"),
            ("user@a", "1: 'user@a' is not a host's name"),
            ("slots=4", "1: the line starts with 'slots='"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.starts_with(expected), "{text:?}: {found}");
        }
    }

    #[test]
    fn files_are_as_editors_write_them() {
        let expected = [host("node1", Some(4)), host("node2", None)];
        for text in [
            "\u{feff}node1 slots=4\nnode2\n",
            "node1 slots=4\r\nnode2\r\n",
            "\u{feff}# GPUs\r\nnode1\tslots=4 \t\r\n\r\n  node2  # slow\r\n \r\n",
            "node1 slots=4   \nnode2",
        ] {
            assert_eq!(decode(text.as_bytes()).map(|text| parse(text).unwrap()), Ok(expected.to_vec()), "{text:?}");
        }
        let utf_16: Vec<u8> = "\u{feff}node1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let reversed: Vec<u8> = "\u{feff}node1\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let unmarked: Vec<u8> = "node1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [utf_16, reversed, unmarked] {
            assert!(decode(&bytes).unwrap_err().ends_with("; save it as UTF-8"), "{bytes:?}");
        }
        assert_eq!(decode(b"node1\nn\xf6de2\n").unwrap_err(), "line 2 is not UTF-8; save it as UTF-8");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for (path, what) in [(pipe.as_path(), "a named pipe"), (Path::new("/dev/zero"), "a device"), (folder.path(), "a folder")] {
            let error = read(path).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("cannot read the host file {}: this is {what}, not a file; write the hosts into a file", path.display())
            );
        }
    }

    #[test]
    fn what_errors_advise_is_understood() {
        for wrong in ["", "node1 4"] {
            let error = parse(wrong).unwrap_err();
            let advised = error.rsplit_once("write ").unwrap().1.split('\'').nth(1).unwrap();
            let line = if advised.starts_with("slots=") { format!("node1 {advised}") } else { advised.to_owned() };
            assert_eq!(parse(&line).unwrap(), [host("node1", Some(4))], "{error}");
        }
    }

    #[test]
    fn the_file_is_named() {
        let missing = read(Path::new("/nowhere/hosts.txt")).unwrap_err();
        assert!(format!("{missing:#}").contains("/nowhere/hosts.txt"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.txt");
        std::fs::write(&path, "a slots=x").unwrap();
        let wrong = read(&path).unwrap_err();
        assert!(wrong.to_string().ends_with("hosts.txt:1: slots is 'x'; give a whole number from 1 to 65536"), "{wrong}");
        assert_eq!(Exit::of(&wrong), Exit::Usage);
    }
}
