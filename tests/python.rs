//! The Python package, its notebook, and the wheel. Skipped, with a line, where `scripts/setup tests` has not been.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// The Python of the tests, with what the package needs, and the programs that were built.
fn python(folder: &Path) -> Option<Command> {
    let program = Path::new(SOURCES).join(".python/bin/python3");
    if !program.exists() {
        eprintln!("skipped: {} is not there; `scripts/setup tests` makes it", program.display());
        return None;
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_biodist")).parent().unwrap();
    let path = std::env::join_paths(std::iter::once(programs.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())));
    let mut command = Command::new(program);
    command.current_dir(folder).env("PATH", path.unwrap()).env("PYTHONPATH", Path::new(SOURCES).join("python"));
    // Nothing is to be left among the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("MPLBACKEND", "Agg").env("MPLCONFIGDIR", folder);
    Some(command)
}

fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {stdout}\n{stderr}");
    format!("{stdout}{stderr}")
}

#[test]
fn the_package_passes_its_own_tests() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut command) = python(folder.path()) else { return };
    let said = succeed(command.args(["-m", "unittest", "discover"]).arg(Path::new(SOURCES).join("python/tests")));
    assert!(said.contains("\nOK\n") && said.contains("Ran 6 tests"), "{said}");
}

/// A program that runs the cells of a notebook one after another, as Jupyter does.
const CELLS: &str = "
import json, sys
names = {}
for cell in json.load(open(sys.argv[1]))['cells']:
    if cell['cell_type'] == 'code':
        exec(compile(''.join(cell['source']), cell['id'], 'exec'), names)
assert len(names['table']) == 3 and names['table']['test_top1_error'].max() < 0.9, names['table']
assert set(names['curves']['split']) == {'train', 'test'}
names['figure'].savefig('figure.png')
";

/// Images of 28 x 28, as MNIST has them, each a pattern of its class under noise.
const IMAGES: &str = "
import random, struct, subprocess
numbers = random.Random(1)
patterns = [bytes(numbers.randrange(160) for _ in range(784)) for _ in range(10)]
for split, count in [('train', 1000), ('test', 200)]:
    labels = bytes(numbers.randrange(10) for _ in range(count))
    with open('images', 'wb') as images:
        images.write(struct.pack('>4I', 0x803, count, 28, 28))
        for label in labels:
            images.write(bytes(value + numbers.randrange(96) for value in patterns[label]))
    with open('labels', 'wb') as file:
        file.write(struct.pack('>2I', 0x801, count) + labels)
    subprocess.run(['data-prep', 'idx', '--images', 'images', '--labels', 'labels', '--out', 'data/mnist/' + split], check=True)
";

fn images() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if let Some(mut command) = python(folder.path()) {
        succeed(command.args(["-c", IMAGES]));
    }
    folder
}

#[test]
fn the_notebook_goes_from_training_to_a_figure() {
    let folder = images();
    let Some(mut command) = python(folder.path()) else { return };
    let notebook = Path::new(SOURCES).join("python/examples/runs.ipynb");
    succeed(command.args(["-c", CELLS]).arg(notebook));
    assert!(folder.path().join("figure.png").metadata().unwrap().len() > 5000);
}

#[test]
fn the_pages_programs_run_one_after_another() {
    let folder = images();
    let Some(mut command) = python(folder.path()) else { return };
    let page = include_str!("../docs/python.md");
    let blocks: Vec<&str> = page.split("```python\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    let said = succeed(command.args(["-c", &blocks.join("\n")]));
    assert!(said.contains("runs/py/bp") && said.contains("'layers.0.weight': "), "{said}");
}

/// A virtual environment with nothing but the wheel and numpy's copy of the tests'.
fn environment(folder: &Path) -> Option<PathBuf> {
    let mut wheel = Command::new(Path::new(SOURCES).join("scripts/wheel"));
    python(folder)?;
    succeed(wheel.arg(folder.join("dist")));
    let wheel = folder.join("dist").read_dir().unwrap().next().unwrap().unwrap().path();
    succeed(python(folder)?.env_remove("PYTHONPATH").args(["-m", "venv", "--without-pip", "venv"]));
    let install =
        ["-m", "pip", "--python", "venv/bin/python3", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"];
    succeed(python(folder)?.env_remove("PYTHONPATH").args(install).arg(wheel));
    Some(folder.join("venv/bin"))
}

/// Installed into an empty environment, it trains on two processes, with configurations that came with it.
#[test]
#[cfg_attr(feature = "torch", ignore = "a wheel is for CPUs")]
fn the_wheel_trains_and_says_what_it_lacks() {
    let folder = images();
    let Some(bin) = environment(folder.path()) else { return };
    let mut train = Command::new("mpirun");
    train.args(["--oversubscribe", "-n", "2"]).arg(bin.join("biodist")).args(["train", "mnist_fc_bp.toml", "--out", "run"]);
    train.args(["--set", "training.epochs=2"]);
    for (name, value) in [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMPI_MCA_rtc_hwloc_vmhole", "none")] {
        train.env(name, value);
    }
    let said = succeed(train.current_dir(folder.path()));
    assert!(said.contains("2 ranks") && folder.path().join("run/checkpoints").exists(), "{said}");
    assert!(succeed(Command::new(bin.join("data-prep")).arg("--version")).starts_with("data-prep "));
    let dry = ["--ranks", "2", "--dry-run", "train", "mnist_fc_bp.toml"];
    assert!(succeed(Command::new(bin.join("biodist-launch")).args(dry)).contains("/installed/bin/biodist"));

    // Hidden as if it were not installed, in a namespace of mounts.
    let library = Command::new("sh").args(["-c", "ldconfig -p | sed -n 's/.*libmpi.so.40 .* => //p' | head -n 1"]).output().unwrap();
    let library = String::from_utf8(library.stdout).unwrap().trim().to_owned();
    let hide = format!("mount --bind \"$1\" \"$(realpath {library})\" && shift && exec \"$@\"");
    let nothing = folder.path().join("nothing");
    std::fs::write(&nothing, "").unwrap();
    let hidden = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &hide, "sh"]).arg(&nothing).args(arguments);
        command.output().unwrap()
    };
    if library.is_empty() || !hidden(&["true"]).status.success() {
        return eprintln!("skipped: libmpi cannot be hidden here");
    }
    let output = hidden(&[bin.join("biodist").to_str().unwrap(), "--version"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.lines().count() == 1, "{said}");
    assert!(said.contains("Open MPI 4 is not installed") && said.contains("'apt-get install openmpi-bin'"), "{said}");
    assert!(hidden(&[bin.join("data-prep").to_str().unwrap(), "--version"]).status.success(), "which needs no MPI");
}
