//! What `make install` and `make dist` leave is a copy that works by itself, far from the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// A script of the project's, after the programs that it copies were built: `cargo test --workspace` builds them all.
fn script(name: &str, argument: &Path) -> Output {
    Command::new(Path::new(SOURCES).join("scripts").join(name)).arg(argument).output().unwrap()
}

fn installed() -> TempDir {
    let prefix = tempfile::tempdir().unwrap();
    let output = script("install", prefix.path());
    assert!(output.status.success(), "{output:?}");
    prefix
}

/// What the command says, which must end well, in a folder where nothing is.
fn said(program: &Path, arguments: &[&str]) -> String {
    let elsewhere = tempfile::tempdir().unwrap();
    let output = Command::new(program).args(arguments).current_dir(&elsewhere).output().unwrap();
    assert!(output.status.success(), "{program:?} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Files below `folder`, relative to it.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { assert!(found.insert(path.strip_prefix(folder).unwrap().to_owned())) }
        }
    }
    found
}

#[test]
fn installed_programs_work_without_the_sources() {
    let prefix = installed();
    // Over an older copy, whose files that are no more go.
    std::fs::write(prefix.path().join("share/doc/biodist/docs/old.md"), "").unwrap();
    std::fs::write(prefix.path().join("share/biodist/configs/old.toml"), "").unwrap();
    assert!(script("install", prefix.path()).status.success());
    assert!(!files(prefix.path()).iter().any(|path| path.to_str().unwrap().contains("/old.")));

    let bin = prefix.path().join("bin");
    let plan = said(&bin.join("biodist"), &["check", "mnist_fc_bp.toml", "--input", "28x28x1", "--classes", "10"]);
    assert!(plan.contains("mnist_fc_bp"), "{plan}");
    let started = said(&bin.join("biodist-launch"), &["--ranks", "2", "--dry-run", "train", "mnist_fc_bp.toml"]);
    assert!(started.contains(bin.join("biodist").canonicalize().unwrap().to_str().unwrap()), "the program beside it: {started}");
    assert!(said(&bin.join("data-prep"), &["--version"]).starts_with("data-prep "));
}

/// For shells that leave it to the program where `PREFIX=` stands before.
#[test]
fn a_tilde_is_the_home_folder() {
    let home = tempfile::tempdir().unwrap();
    let install = Path::new(SOURCES).join("scripts/install");
    let output = Command::new(install).arg("~/local").env("HOME", home.path()).output().unwrap();
    assert!(output.status.success() && home.path().join("local/bin/biodist").exists(), "{output:?}");
}

#[test]
fn a_prefix_that_cannot_be_written_is_refused() {
    let output = script("install", Path::new("/proc/none"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.starts_with("error: cannot write to /proc/none: choose another folder"), "{said}");
}

/// The links of installed pages lead to pages, and every subcommand has its manual page.
#[test]
fn documents_and_manual_pages_are_there() {
    let prefix = installed();
    let documents = prefix.path().join("share/doc/biodist");
    for page in files(&documents).iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(documents.join(page)).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            // Sources and kept runs are not installed.
            if link.contains("://") || link.is_empty() || ["examples/", "runs", "studies", "sweeps"].iter().any(|part| link.contains(part))
            {
                continue;
            }
            assert!(documents.join(page).parent().unwrap().join(link).exists(), "{page:?} leads to {link}");
        }
    }
    let pages = prefix.path().join("share/man/man1");
    for (page, words) in [
        ("biodist.1", "biodist\\-train(1)"),
        ("biodist-train.1", "checkpoint"),
        ("biodist-bench-scaling.1", "ranks"),
        ("biodist-launch.1", "host file"),
        ("data-prep-folder.1", "photos"),
    ] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".TH ") && text.contains(words), "{page}: {text}");
    }
}

/// As bash completes them; what zsh and fish read comes from the same definitions.
#[test]
fn shells_complete_commands_and_options() {
    let prefix = installed();
    let share = prefix.path().join("share");
    let complete = |program: &str, typed: &str| {
        let file = share.join("bash-completion/completions").join(program);
        let script = format!(
            ". '{}'; COMP_WORDS=({program} {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             $(complete -p {program} | sed 's/.* -F \\([^ ]*\\) .*/\\1/') {program} \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo ${{COMPREPLY[@]}}",
            file.display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("biodist", "tr"), "train");
    assert_eq!(complete("biodist", "train --res"), "--resume");
    assert_eq!(complete("biodist-launch", "--dry"), "--dry-run");
    assert_eq!(complete("data-prep", "ver"), "verify");
    for (file, start) in
        [("zsh/site-functions/_biodist", "#compdef biodist"), ("fish/vendor_completions.d/data-prep.fish", "complete -c data-prep ")]
    {
        assert!(std::fs::read_to_string(share.join(file)).unwrap().contains(start));
    }
}

#[test]
fn the_tarball_holds_what_is_installed() {
    let (prefix, folder) = (installed(), tempfile::tempdir().unwrap());
    let made = || {
        assert!(script("dist", folder.path()).status.success());
        let mut archives = files(folder.path()).into_iter();
        let archive = folder.path().join(archives.next().unwrap());
        assert!(archives.next().is_none(), "nothing else is left");
        (std::fs::read(&archive).unwrap(), archive)
    };
    let (bytes, archive) = made();
    assert!(bytes == made().0, "the same bytes again");
    let unpacked = tempfile::tempdir().unwrap();
    let tar = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()).status().unwrap();
    assert!(tar.success());
    let root = unpacked.path().join(archive.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap());
    assert_eq!(files(&root), files(prefix.path()));
    assert!(said(&root.join("bin/biodist"), &["--version"]).starts_with("biodist "));
}

/// What containers are built of holds what `make install` reads.
#[test]
fn container_definitions_copy_what_is_there() {
    let read = |name: &str| std::fs::read_to_string(Path::new(SOURCES).join(name)).unwrap();
    let definition = read("hosts/apptainer.def");
    let copied: Vec<&str> = definition.lines().filter_map(|line| line.trim().strip_suffix(" /source/")).collect();
    assert!(copied.iter().all(|path| Path::new(SOURCES).join(path).exists()), "{copied:?}");
    let install = read("scripts/install");
    let documents = install.lines().find_map(|line| line.strip_prefix("documents=(")?.strip_suffix(')')).unwrap();
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")?.strip_suffix(']')).unwrap();
    let members = members.split(", ").map(|member| member.trim_matches('"'));
    let others = ["src", "examples", "configs", "hosts", "scripts", "build.rs", "Cargo.lock"];
    for needed in documents.split(' ').chain(members).chain(others) {
        assert!(copied.contains(&needed.split('/').next().unwrap()), "{needed} is not copied");
    }
    assert!(!read(".dockerignore").lines().any(|line| copied.contains(&line.trim_start_matches('/'))));
}
