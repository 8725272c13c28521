//! The commands of README and docs work as they are typed.
//!
//! A block of `sh` is run, with those of its page before it, in a folder with small data in the place of MNIST. A block of `console` is what
//! takes long, or needs a GPU, a cluster or data that nobody has at hand: its command lines are parsed. Other blocks hold no commands.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// In a folder of stand-ins, before all other programs. `make` installs what was built, and `cargo` runs it.
const MAKE: &str = r#"#!/bin/bash
grep -q "^$1:" "$SOURCES/Makefile" || { echo "no target $1" >&2; exit 2; }
case $1 in
    demo) echo "demonstrated" ;;
    install) PATH=${PATH#*:} HOME=$OWN_HOME "$SOURCES/scripts/install" "${2#PREFIX=}" ;;
    *) exit 3 ;;
esac
"#;
const CARGO: &str = r#"#!/bin/bash
[ "$1 $2 $3 $5" = "run --release --example --" ] || exit 3
exec "$PROGRAMS/examples/$4" "${@:6}"
"#;

struct Page {
    name: String,
    text: String,
}

fn pages() -> Vec<Page> {
    let sources = Path::new(SOURCES);
    let all = ["docs", "reproduce"].into_iter().flat_map(|folder| sources.join(folder).read_dir().unwrap());
    let all = all.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut paths: Vec<PathBuf> = all.chain([sources.join("README.md")]).collect();
    paths.sort();
    paths.into_iter().map(|path| Page { name: path.display().to_string(), text: std::fs::read_to_string(&path).unwrap() }).collect()
}

/// All that is said of results.
fn results() -> String {
    pages().into_iter().filter(|page| page.name.contains("/reproduce/")).map(|page| page.text).collect()
}

impl Page {
    /// The page's blocks in this language.
    fn blocks(&self, language: &str) -> Vec<&str> {
        // Every other piece is inside of a block; its first line has the language.
        let blocks = self.text.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
        blocks.filter(|(named, _)| *named == language).map(|(_, text)| text).collect()
    }
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_biodist")).parent().unwrap().to_owned()
}

/// A folder as that of the sources after `make demo`, with 12,000 and 500 images in the place of MNIST.
fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["configs", "hosts"] {
        std::os::unix::fs::symlink(Path::new(SOURCES).join(name), path(name)).unwrap();
    }
    std::fs::create_dir_all(path("stand-ins")).unwrap();
    for (name, script) in [("make", MAKE), ("cargo", CARGO)] {
        std::fs::write(path("stand-ins").join(name), script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path("stand-ins").join(name), mode).unwrap();
    }
    for (split, samples) in [("train", 12_000u32), ("test", 500)] {
        let header = |magic: u32, sides: &[u32]| [&[magic, samples][..], sides].concat().into_iter().flat_map(u32::to_be_bytes);
        let label = |sample: u32| (sample * 7 % 10) as u8;
        // A bar whose place is the class, on a ground that differs from sample to sample.
        let pixel = |sample: u32, at: u32| if at / 78 == u32::from(label(sample)) { 200 } else { (sample * 31 + at * 17) % 64 } as u8;
        let pixels = (0..samples).flat_map(|sample| (0..784).map(move |at| pixel(sample, at)));
        std::fs::write(path("images"), header(0x803, &[28, 28]).chain(pixels).collect::<Vec<u8>>()).unwrap();
        std::fs::write(path("labels"), header(0x801, &[]).chain((0..samples).map(label)).collect::<Vec<u8>>()).unwrap();
        let mut prepare = Command::new(programs().join("data-prep"));
        prepare.args(["idx", "--images", "images", "--labels", "labels", "--out"]).arg(format!("data/mnist/{split}"));
        assert!(prepare.current_dir(&folder).output().unwrap().status.success());
    }
    folder
}

/// Runs the page's commands; `path` is where programs are looked for after the stand-ins.
fn run(page: &Page, path: &str) {
    let site = site();
    let script = format!("set -eE\ntrap 'echo \"FAILED: $BASH_COMMAND\"' ERR\nset -o pipefail\n{}", page.blocks("sh").join("\n"));
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(&site).env("SOURCES", SOURCES).env("PROGRAMS", programs());
    bash.env("HOME", site.path()).env("OWN_HOME", std::env::var_os("HOME").unwrap_or_default());
    bash.env("PATH", format!("{}/stand-ins:{path}", site.path().display()));
    for (name, value) in [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMPI_MCA_rtc_hwloc_vmhole", "none")] {
        bash.env(name, value);
    }
    // Open MPI counts cores, and refuses more processes than those.
    let output = bash.env("OMPI_MCA_rmaps_base_oversubscribe", "1").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}:\n{said}", page.name);
}

/// PATH without the folders that hold biodist.
fn path() -> String {
    let path = std::env::var("PATH").unwrap();
    path.split(':').filter(|folder| !Path::new(folder).join("biodist").exists()).collect::<Vec<_>>().join(":")
}

/// From its lines of installation on: the programs are on no path before.
#[test]
fn the_readme_runs_as_typed() {
    let readme = pages().into_iter().find(|page| page.name.ends_with("/README.md") && !page.name.contains("reproduce")).unwrap();
    assert!(readme.text.lines().count() <= 120, "a newcomer reads no more");
    run(&readme, &path());
}

#[test]
fn the_documents_run_as_typed() {
    let path = format!("{}:{}", programs().display(), path());
    let mut pages = pages();
    pages.retain(|page| !page.name.ends_with("README.md") && !page.blocks("sh").is_empty());
    assert!(pages.len() >= 3);
    pages.iter().for_each(|page| run(page, &path));
}

/// Words of a command line, without what comes before the program: variables, mpirun, cargo's own part.
fn command(line: &str) -> Option<(PathBuf, Vec<String>)> {
    let words: Vec<String> = line.split(" #").next().unwrap().replace("HxWxC", "28x28x1").split_whitespace().map(str::to_owned).collect();
    let at = words.iter().position(|word| ["biodist", "biodist-launch", "data-prep"].contains(&word.as_str()))?;
    Some((programs().join(&words[at]), words[at + 1..].to_vec()))
}

/// With `--help` last, a program parses all before it and then does nothing.
#[test]
fn what_takes_long_is_parsed() {
    let mut parsed = 0;
    for page in pages() {
        for line in page.blocks("console").join("\n").replace("\\\n", " ").lines().filter(|line| !line.is_empty()) {
            if let Some((program, words)) = command(line) {
                let output = Command::new(&program).args(&words).arg("--help").output().unwrap();
                assert!(output.status.success(), "{}: {line}\n{}", page.name, String::from_utf8_lossy(&output.stderr));
                parsed += 1;
            } else if let Some(target) = line.split("make ").nth(1) {
                let target = format!("\n{}:", target.split_whitespace().next().unwrap());
                assert!(std::fs::read_to_string(Path::new(SOURCES).join("Makefile")).unwrap().contains(&target), "{}: {line}", page.name);
            } else {
                let known = ["cargo ", "pip install ", "tensorboard ", "docker ", "apptainer ", "mlflow ", "wandb ", "scripts/", "sbatch "];
                assert!(known.iter().any(|start| line.starts_with(start)), "{}: who knows {line:?}?", page.name);
            }
        }
    }
    assert!(parsed >= 12, "{parsed}");
}

/// So that a new command is run or parsed.
#[test]
fn commands_are_in_blocks_that_are_tried() {
    for page in pages() {
        for line in page.blocks("").join("\n").lines() {
            let typed = ["biodist ", "biodist-launch ", "data-prep ", "mpirun ", "make ", "cargo ", "pip "];
            assert!(!typed.iter().any(|start| line.starts_with(start)), "{}: {line:?} in a block without a language", page.name);
        }
    }
}

/// Results stand in reproduce/; the README repeats some.
#[test]
fn the_readmes_results_are_those_that_are_kept() {
    let (readme, kept) = (std::fs::read_to_string(Path::new(SOURCES).join("README.md")).unwrap(), results());
    let kept = kept.split("All five hundred epochs").nth(1).unwrap().split("\n\n").nth(1).unwrap();
    let rows =
        readme.split("| rule | here | the paper |\n| --- | --- | --- |\n").nth(1).unwrap().lines().take_while(|line| line.starts_with('|'));
    let mut compared = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let row = kept.lines().find(|line| line.starts_with(&format!("| {} ", cells[0]))).unwrap_or_else(|| panic!("{row}"));
        assert!(row.contains(&format!("| {} (epoch", cells[1])) && row.ends_with(&format!("| {} |", cells[2])), "{cells:?}: {row}");
        compared += 1;
    }
    assert_eq!(compared, 9);
}

#[test]
fn tables_that_are_made_are_of_what_is_kept() {
    let results = results();
    let same_search = ["mnist_fc", "mnist_lc", "cifar_fc", "cifar_lc", "imagenet"].map(|network| vec!["same_search.py", "table", network]);
    let mut rows = 0;
    for words in same_search.into_iter().chain([vec!["target_step.py", "table"]]) {
        let written = Command::new("python3").args(&words).current_dir(Path::new(SOURCES).join("reproduce")).output().unwrap();
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        let table = String::from_utf8(written.stdout).unwrap();
        let table = table.trim();
        assert!(results.contains(table), "no page of reproduce/ has what is kept, by {words:?}:\n{table}");
        rows += table.lines().count();
    }
    assert!(rows > 40, "{rows} rows");
}

/// The top-1 errors of a kept run after each epoch up to `epochs`, in per cent, of one split.
fn errors(run: &str, split: &str, epochs: u64) -> Vec<f64> {
    let path = Path::new(SOURCES).join("reproduce").join(run).join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_split = lines.filter(|line| line["split"] == split && line["epoch"].as_u64().unwrap() <= epochs);
    of_split.map(|line| 100.0 * line["top1_error"].as_f64().unwrap()).collect()
}

fn last(run: &str, split: &str, epochs: u64) -> String {
    format!("{:.2}", errors(run, split, epochs).last().unwrap())
}

fn least(run: &str, epochs: u64) -> String {
    format!("{:.2}", errors(run, "test", epochs).into_iter().fold(f64::INFINITY, f64::min))
}

#[test]
fn tables_that_are_written_by_hand_are_of_what_is_kept() {
    let results = results();
    let has = |row: String| assert!(results.contains(&row), "reproduce/ lacks this row: {row}");

    for rule in ["bp", "frsf", "wm", "usf", "kp", "l_drl", "brsf", "dkp", "dfa", "fa", "pepita", "drtp"] {
        let [first, second] = [0, 1].map(|seed| format!("runs_beyond/mnist_fc_{rule}/seed_{seed}"));
        let numbers = format!("| {}, {} | {} |", least(&first, 20), least(&second, 20), last(&first, "train", 20));
        let row = results.lines().find(|line| line.starts_with(&format!("| {rule} |")) && line.ends_with(&numbers));
        assert!(row.is_some(), "reproduce/ lacks a row of {rule} that ends with {numbers}");
    }

    for (words, run) in [
        ("sdtp, Table 5's values", "sdtp_parallel_diagnosed"),
        ("sdtp, fixed inverses", "sdtp_parallel_still"),
        ("sdtp, fixed inverses, 0.3 of the way, seed 0", "sdtp_parallel_step_0.3_still"),
        ("seed 1", "sdtp_parallel_step_0.3_still_seed_1"),
        ("seed 2", "sdtp_parallel_step_0.3_still_seed_2"),
        ("ao_sdtp, fixed inverses", "ao_sdtp_parallel_still"),
        ("ao_sdtp, fixed inverses, 0.3 of the way", "ao_sdtp_parallel_step_0.3_still"),
    ] {
        let run = format!("studies/cifar_fc_{run}");
        has(format!("| {words} | {} | {} | {} |", last(&run, "train", 20), last(&run, "test", 20), least(&run, 20)));
    }
    for (words, rule, inverses) in [
        ("sdtp | 0.0000136", "sdtp", "rate"),
        ("| 0: fixed", "sdtp", "still"),
        ("ao_sdtp | 0.0000136", "ao_sdtp", "rate"),
        ("| 0: fixed", "ao_sdtp", "still"),
    ] {
        let cells = ["", "_step_0.03"].map(|step| {
            let run = format!("studies/mnist_fc_{rule}_alternating{step}_{inverses}");
            format!("{} | {}", least(&run, 40), least(&format!("{run}_epsilon_1e-8"), 40))
        });
        has(format!("| {words} | {} |", cells.join(" | ")));
    }
    let [tenth, least_of_all] = ["0.1", "0.03"].map(|step| {
        let of_seed = ["", "_seed_1", "_seed_2"]
            .map(|seed| least(&format!("studies/mnist_fc_sdtp_alternating_step_{step}_rate_transposed_epsilon_1e-8{seed}"), 40));
        format!("{}, {} and {}", of_seed[0], of_seed[1], of_seed[2])
    });
    has(format!("sdtp has {tenth} in 40 epochs"));
    has(format!("**{least_of_all}** with\n0.03"));
    for (words, run) in
        [("layers' kernels join", "growth_0"), ("learning.inverse_growth=2`)", "growth_2"), ("inverse_fields=dense`)", "fields_dense")]
    {
        has(format!("{words} | {} |", last(&format!("studies/mnist_lc_dtp_{run}"), "test", 2)));
    }
    for rule in ["bp", "dtp", "sdtp"] {
        let runs = ["strided", "average", "max"].map(|windows| format!("studies/mnist_lc_{rule}_{windows}"));
        let cells = runs.map(|run| format!("{} | {}", last(&run, "test", 3), least(&run, 3)));
        has(format!("| {rule} | {} |", cells.join(" | ")));
    }
    let regularized = ["0", "0.01", "0.1", "1"].map(|part| format!("studies/mnist_fc_dtp_regularized_{part}"));
    has(format!("| least test error | {} |", regularized.each_ref().map(|run| least(run, 10)).join(" | ")));
    has(format!("| training error | {} |", regularized.each_ref().map(|run| last(run, "train", 10)).join(" | ")));
    let [rising, falling] = ["rising", "falling"].map(|noise| least(&format!("studies/mnist_fc_dtp_sigma_{noise}"), 20));
    has(format!("{rising} with\n`learning.sigma=[0.1,0.2,0.3,0.4,0.5]` from the lowest inverse up, {falling} with the same downwards"));
}
