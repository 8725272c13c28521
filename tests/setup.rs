//! `make setup` and the environment: what would make cargo build something else is refused by name, with a command that helps.

use std::path::Path;
use std::process::Command;

/// Variables that the check looks at, none of which a test should have from whoever runs it.
const LOOKED_AT: [&str; 16] = [
    "LIBTORCH",
    "LIBTORCH_USE_PYTORCH",
    "LIBTORCH_INCLUDE",
    "LIBTORCH_LIB",
    "LIBTORCH_CXX11_ABI",
    "LIBTORCH_STATIC",
    "CARGO_BUILD_TARGET",
    "MPICC",
    "OMPI_CC",
    "RUSTC",
    "CXX",
    "HOST_CXX",
    "LIBCLANG_PATH",
    "MPI_PKG_CONFIG",
    "CRAY_MPICH_DIR",
    "LD_LIBRARY_PATH",
];

/// What the check of `libtorch` says after `before`, and whether it lets the build begin.
fn check(libtorch: &Path, variables: &[(&str, &str)], before: &str) -> (bool, String) {
    let text = format!(
        "set -euo pipefail; {before}; . scripts/common.sh; . scripts/environment.sh; check_environment; check_torch_environment \"$0\""
    );
    let mut command = Command::new("bash");
    command.args(["-c", &text]).arg(libtorch).current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in LOOKED_AT {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_would_build_something_else_is_refused_with_a_command_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let libtorch = folder.path().join("libtorch");
    let other = folder.path().join("other/lib");
    for lib in [&libtorch.join("lib"), &other] {
        std::fs::create_dir_all(lib).unwrap();
        std::fs::write(lib.join("libtorch_cpu.so"), "").unwrap();
    }
    let other = other.to_str().unwrap();
    let refused = [
        ("LIBTORCH_USE_PYTORCH", "1"),
        ("LIBTORCH_USE_PYTORCH", "0"),
        ("LIBTORCH_USE_PYTORCH", ""),
        ("LIBTORCH", ""),
        ("LIBTORCH_INCLUDE", "/usr"),
        ("LIBTORCH_LIB", other),
        ("LIBTORCH_LIB", ""),
        ("LIBTORCH_CXX11_ABI", "0"),
        ("LIBTORCH_STATIC", "1"),
        ("LIBTORCH_STATIC", ""),
        ("CARGO_BUILD_TARGET", "aarch64-unknown-linux-gnu"),
        ("MPICC", "/nowhere/mpicc"),
        ("OMPI_CC", "no-such-compiler"),
        ("RUSTC", "no-such-compiler"),
        ("CXX", "no-such-compiler -m64"),
        ("LIBCLANG_PATH", "/nowhere"),
        ("MPI_PKG_CONFIG", "/nowhere/mpi.pc"),
        ("LD_LIBRARY_PATH", other),
    ];
    for (name, value) in refused {
        let (passed, said) = check(&libtorch, &[(name, value)], "true");
        let found = if name == "LD_LIBRARY_PATH" { format!("{name} names {value}") } else { format!("{name} is '{value}'") };
        assert!(!passed && said.lines().count() == 1 && said.starts_with(&format!("error: {found}")), "{name}={value}: {said}");
        let advised = said.split('\'').rev().nth(1).unwrap();
        assert_eq!(advised, format!("unset {name}"), "{said}");
        assert_eq!(check(&libtorch, &[(name, value)], advised), (true, String::new()), "{name}={value}");
    }
    let (here, lib) = (libtorch.to_str().unwrap(), libtorch.join("lib"));
    let passed = [
        ("LIBTORCH_INCLUDE", here),
        ("LIBTORCH_LIB", here),
        ("LIBTORCH_CXX11_ABI", "1"),
        ("LIBTORCH_STATIC", "0"),
        ("CXX", "sh c++"),
        ("MPICC", "sh"),
        ("RUSTFLAGS", "-C target-cpu=native"),
        ("LD_LIBRARY_PATH", lib.to_str().unwrap()),
        ("LD_LIBRARY_PATH", ""),
    ];
    for (name, value) in passed {
        assert_eq!(check(&libtorch, &[(name, value)], "true"), (true, String::new()), "{name}={value}");
    }
}

/// What `scripts/setup` refuses, before it looks for, or installs, anything.
fn setup(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup");
    let output = Command::new(setup).args(arguments).envs(variables.iter().copied()).env("PATH", "/usr/bin:/bin").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// libtorch is of no concern to a build for CPUs alone.
#[test]
fn setup_begins_with_the_check() {
    let wrong_torch = |gpu: &'static str| [("LIBTORCH_USE_PYTORCH", "1"), ("GPU", gpu)];
    for said in [setup(&[], &wrong_torch("libtorch")), setup(&["tests"], &wrong_torch("no"))] {
        assert!(said.starts_with("error: LIBTORCH_USE_PYTORCH is '1'"), "{said}");
    }
    let wrong_both = [("LIBTORCH_USE_PYTORCH", "1"), ("GPU", "no"), ("RUSTC", "no-such-compiler")];
    assert!(setup(&[], &wrong_both).starts_with("error: RUSTC is 'no-such-compiler'"));
    assert!(setup(&[], &[("GPU", "maybe")]).starts_with("error: GPU is 'maybe': give yes, no or libtorch"));
    assert!(setup(&["test"], &[]).starts_with("error: usage: scripts/setup [tests]"));
}

/// A build has libtorch where it is asked for, and says nothing of it elsewhere.
#[test]
fn libtorch_is_built_in_where_it_is_asked_for() {
    let features = |gpu: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", "set -euo pipefail; . scripts/common.sh; features"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.env("GPU", gpu).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(features("libtorch"), (true, "--features torch\n".to_owned()));
    for without in ["yes", "no"] {
        assert_eq!(features(without), (true, String::new()));
    }
    assert_eq!(features("maybe"), (false, String::new()));
    let made = Command::new("make").args(["--dry-run", "--always-make", "build", "test"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let said = String::from_utf8(made.unwrap().stdout).unwrap();
    let built = said.lines().filter(|line| line.starts_with("cargo build"));
    assert!(built.clone().count() == 1 && built.clone().all(|line| line.ends_with(" $(. scripts/common.sh; features)")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("cargo test") && line.contains("--features torch")), "{said}");
}
