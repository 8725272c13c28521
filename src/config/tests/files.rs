//! Files that are none, that are too many or too large, and names and values that no message should repeat as they are.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::*;

fn load_file(path: &Path) -> String {
    let error = Config::load(path, &[]).expect_err("it is refused");
    assert_eq!(crate::exit::Exit::of(&error), crate::exit::Exit::Usage);
    error.to_string()
}

fn make_pipe(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends in a zero byte.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

#[test]
fn what_is_no_file_is_named_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    make_pipe(&pipe);
    for (path, what) in [(pipe.as_path(), "a named pipe"), (Path::new("/dev/zero"), "a device")] {
        let message = load_file(path);
        assert!(message.contains(what) && message.contains(path.to_str().unwrap()) && message.ends_with("into a file"), "{message}");
        let top = write(folder.path(), "top.toml", &format!("include = [{path:?}]\n{MINIMAL}"));
        let message = load_file(&top);
        assert!(message.contains(what) && message.contains(path.to_str().unwrap()), "{message}");
    }
    let top = write(folder.path(), "top.toml", "include = [\".\"]");
    assert!(load_file(&top).contains("a folder"), "{}", load_file(&top));
}

#[test]
fn a_file_is_read_once_however_often_it_is_included() {
    let folder = tempfile::tempdir().unwrap();
    // Each includes the next twice: four million places of the last.
    for number in 0..22 {
        let next = format!("{}.toml", number + 1);
        write(folder.path(), &format!("{number}.toml"), &format!("include = [{next:?}, {next:?}]\n[experiment]\nseed = {number}\n"));
    }
    write(folder.path(), "22.toml", MINIMAL);
    assert_eq!(Config::load(&folder.path().join("0.toml"), &[]).unwrap().experiment.seed, 0);

    // Of several places the last decides, as if the files stood one after another.
    for (name, seed) in [("one", 1), ("two", 2)] {
        write(folder.path(), &format!("{name}.toml"), &format!("[experiment]\nseed = {seed}\nname = \"{name}\"\n"));
    }
    for (includes, expected) in [("\"one.toml\", \"two.toml\", \"one.toml\"", 1), ("\"two.toml\", \"one.toml\", \"two.toml\"", 2)] {
        let top = write(folder.path(), "top.toml", &format!("include = [{includes}]\n{MINIMAL}"));
        assert_eq!(Config::load(&top, &[]).unwrap().experiment.seed, expected);
    }
}

#[test]
fn too_many_and_too_large_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..300 {
        write(folder.path(), &format!("{number}.toml"), &format!("include = [\"{}.toml\"]\n", number + 1));
    }
    let message = load_file(&folder.path().join("0.toml"));
    assert!(message.contains("256.toml: include: this is one more than the 256 files"), "{message}");
    write(folder.path(), "100.toml", MINIMAL);
    Config::load(&folder.path().join("0.toml"), &[]).unwrap();

    let large = folder.path().join("large.toml");
    std::fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let message = load_file(&large);
    assert!(message.contains("large.toml: too large: a configuration has at most 4 MiB"), "{message}");
    // No file of these is too large by itself.
    let half = format!("# {}\n", "x".repeat(3 << 20));
    write(folder.path(), "half.toml", &half);
    let top = write(folder.path(), "top.toml", &format!("include = [\"half.toml\"]\n{half}"));
    assert!(load_file(&top).contains("half.toml: too large"), "{}", load_file(&top));
}

#[test]
fn the_line_of_each_of_many_keys_is_found() {
    let keys: String = (0..50_000).map(|number| format!("key_{number} = {number}\n")).collect();
    let message = refused(&format!("{MINIMAL}[data.many]\n{keys}"), &[]);
    assert!(message.contains("typed.toml:11: data.many: unknown key"), "{message}");
    let layers = "[[network.layers]]\nkind = \"dense\"\nunits = 3\n".repeat(20_000);
    let message = refused(&format!("{MINIMAL}{layers}wide = 1\n"), &[]);
    assert!(message.contains("typed.toml:60011: network.layers[19999].wide: unknown key"), "{message}");
}

#[test]
fn depth_is_refused() {
    let deep = [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{b = ".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
    ];
    for text in deep {
        assert!(refused(&text, &[]).len() < 400, "{}", refused(&text, &[]));
    }
    // As deep as the parser lets them be.
    let (key, inner) = (vec!["a"; 79].join("."), vec!["a"; 79].join("."));
    let nested = format!("{}1{}", format!("{{{inner} = ").repeat(70), "}".repeat(70));
    assert!(refused(&format!("[{key}]\n{key} = {nested}\n"), &[]).len() < 1000);
    for set in [format!("{}a=1", "a.".repeat(50_000)), format!("data.crop={}", "[".repeat(50_000))] {
        assert!(refused(MINIMAL, &[&set]).len() < 700, "{}", refused(MINIMAL, &[&set]));
    }
}

#[test]
fn messages_show_a_part_of_what_is_long() {
    let long = "x".repeat(1 << 20);
    for text in [
        MINIMAL.replace("\"bp\"", &format!("\"{long}\"")),
        MINIMAL.replace("rule", &long),
        MINIMAL.replace("128", &format!("[{}1]", "1, ".repeat(1 << 18))),
        format!("include = [\"{long}\"]\n{MINIMAL}"),
    ] {
        let error = load(&text, &[]).unwrap_err().to_string();
        assert!(biodist_process::quote::message(&error).len() < 4100, "{}", error.len());
    }
    let named = |length: usize| format!("experiment.name={}", &long[..length]);
    loaded(MINIMAL, &[&named(255)]);
    assert!(refused(MINIMAL, &[&named(256)]).contains("a name that a folder can have"));
    let set = format!("learning.rule={}", &long[..100_000]);
    let message = refused(MINIMAL, &[&set]);
    assert!(message.len() < 1000 && message.starts_with("learning.rule=xxx"), "{message}");
}

#[test]
fn names_that_are_not_utf_8_are_refused_where_a_name_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let named = |text: &str| {
        let path = folder.path().join(OsStr::from_bytes(b"odd \xff.toml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let message = load_file(&named(MINIMAL));
    assert!(message.contains("experiment.name is required") && message.contains("\"odd \\xFF\""), "{message}");
    let config = Config::load(&named(&format!("[experiment]\nname = \"even\"\n{MINIMAL}")), &[]).unwrap();
    assert_eq!(config.experiment.name, "even");
}

#[test]
fn keys_of_the_command_line_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "typed.toml", TARGETS);
    let sets = ["learning.rule=bp", "learning.sigma=0.1", "optimizer.inverse={beta1 = 0.5}"].map(str::to_owned);
    let unused = Loaded::read(&path, &sets, Purpose::Training).unwrap().unused;
    let mut keys: Vec<(&str, bool)> = unused.iter().map(|unused| (unused.key.as_str(), unused.typed)).collect();
    keys.sort();
    assert_eq!(keys, [("learning.alpha", false), ("learning.sigma", true), ("optimizer.inverse.beta1", true)]);
}
