//! Names that are not UTF-8, and pipes in the places of files: what works does, and the rest is refused at once.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::site::{Job, Outcome, Site, refused, turn};

const SHORT: &str = "[training]\nepochs = 2";

fn odd(before: &str) -> OsString {
    let mut name = OsString::from(before);
    name.push(OsStr::from_bytes(b"\xff"));
    name
}

/// Runs `arguments` in the folder `at` of the site.
fn run(site: &Site, at: &Path, arguments: &[&OsStr]) -> Outcome {
    let mut command = site.command(1, &[]);
    command.args(arguments).current_dir(site.path(".").join(at));
    Job::start(command, turn(1)).wait()
}

fn words<'a>(text: &'a str, last: &[&'a OsStr]) -> Vec<&'a OsStr> {
    text.split(' ').map(OsStr::new).chain(last.iter().copied()).collect()
}

#[test]
fn folders_that_are_not_utf_8_are_reported_and_swept() {
    let site = Site::new();
    site.configure("dtp", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", SHORT);
    let (runs, sweep, report) = (odd("runs"), odd("sweep"), odd("report"));
    let out = Path::new(&runs).join("one");
    let trained = run(&site, Path::new("."), &words("train dtp.toml --out", &[out.as_os_str()]));
    assert_eq!(trained.code, Some(0), "{trained:?}");
    let swept = run(&site, Path::new("."), &words("sweep dtp.toml --trials 2 --out", &[&sweep]));
    assert_eq!(swept.code, Some(0), "{swept:?}");
    let again = run(&site, Path::new("."), &words("sweep dtp.toml --trials 2 --out", &[&sweep]));
    assert_eq!(again.code, Some(0), "{again:?}");
    let reported = run(&site, Path::new("."), &words("report", &[&runs, &sweep, OsStr::new("--out"), &report]));
    assert_eq!(reported.code, Some(0), "{reported:?}");
    assert!(site.path(".").join(&report).join("report.html").exists());
}

#[test]
fn names_that_a_configuration_cannot_hold_are_refused() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", SHORT);
    let name = odd("conf");
    std::fs::copy(site.path(&config), site.path(".").join(&name)).unwrap();
    refused(&run(&site, Path::new("."), &words("train", &[&name])), 2, &["experiment.name is required", "\"conf\\xFF\""]);
    let named = run(&site, Path::new("."), &words("train", &[&name, OsStr::new("--set"), OsStr::new("experiment.name=conf")]));
    assert_eq!(named.code, Some(0), "{named:?}");
    // The working directory's name would be a part of data.train.
    let folder = odd("here");
    std::fs::create_dir(site.path(".").join(&folder)).unwrap();
    for command in [
        "check ../short.toml",
        "train ../short.toml --out run",
        "sweep ../short.toml --trials 2 --out run",
        "train ../short.toml --seeds 1,2 --out run",
    ] {
        refused(&run(&site, Path::new(&folder), &words(command, &[])), 2, &["data.train", "here\\xFF", "not UTF-8", "from the root"]);
    }
    let data = [site.path("train"), site.path("test")];
    let from_the_root = format!(
        "train ../short.toml --out run --set data.train={} --set data.test={}",
        data[0].to_str().unwrap(),
        data[1].to_str().unwrap()
    );
    let trained = run(&site, Path::new(&folder), &words(&from_the_root, &[]));
    assert_eq!(trained.code, Some(0), "{trained:?}");
}

#[test]
fn words_that_are_not_utf_8_can_be_read_in_what_refuses_them() {
    let site = Site::new();
    let (set, command) = (odd("a="), odd("conf"));
    for (words, shown) in
        [(words("train x.toml --set", &[&set]), "Not UTF-8: 'a=\\xFF'"), (vec![command.as_os_str()], "subcommand 'conf\\xFF'")]
    {
        let outcome = run(&site, Path::new("."), &words);
        assert!(outcome.code == Some(2) && outcome.stderr.contains(shown), "{outcome:?}");
    }
}

#[test]
fn pipes_are_not_waited_for() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", SHORT);
    let pipe = |name: &str| {
        let name = CString::new(site.path(name).as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    };
    pipe("pipe.toml");
    for command in ["train pipe.toml", "check pipe.toml", "sweep pipe.toml --out sweep", "sweep short.toml --out sweep --space pipe.toml"] {
        let command: Vec<&str> = command.split(' ').collect();
        refused(&site.run(1, &command), 2, &["pipe.toml", "a named pipe"]);
    }
    site.succeed(1, &["train", &config, "--out", "run"]);
    for file in ["metrics.jsonl", "run.json"] {
        std::fs::rename(site.path("run").join(file), site.path("kept")).unwrap();
        pipe(&format!("run/{file}"));
        refused(&site.run(1, &["report", "run", "--out", "report"]), 1, &[&format!("run/{file}"), "a named pipe"]);
        std::fs::rename(site.path("kept"), site.path("run").join(file)).unwrap();
    }
    // Of a checkpoint's state there is an older one.
    let state = format!("run/checkpoints/{}/state.json", site.checkpoint_names("run").last().unwrap());
    std::fs::remove_file(site.path(&state)).unwrap();
    pipe(&state);
    site.succeed(1, &["report", "run", "--out", "report"]);
    // Not even the pipe of a shell, which every rank would read from.
    let mut shell =
        site.command_of(Path::new("bash"), 1, &["-c", "\"$0\" train <(cat short.toml) --out other", env!("CARGO_BIN_EXE_biodist")]);
    shell.env_remove("BASH_ENV");
    refused(&Job::start(shell, turn(1)).wait(), 2, &["a named pipe", "write it into a file"]);
}
