//! Writes the manual pages and the shells' completions of all programs into a folder: `make install` runs it.
//!
//! Both come from the definitions of the command lines. This is a program of its own, so that the others carry nothing of it.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

#[allow(dead_code)] // Only the command line is looked at, not what it leads to.
#[path = "../data-prep/src/arguments.rs"]
mod data_prep;
#[allow(dead_code)]
#[path = "../launcher/src/cli.rs"]
mod launcher;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).expect("usage: manual FOLDER");
    write(Path::new(&folder), [biodist::cli::command(), launcher::Cli::command(), data_prep::Arguments::command()])
}

fn write(folder: &Path, programs: [Command; 3]) -> std::io::Result<()> {
    // Where the shells and `man` look below a prefix.
    let pages = folder.join("share/man/man1");
    let completions = [
        (Shell::Bash, "share/bash-completion/completions"),
        (Shell::Zsh, "share/zsh/site-functions"),
        (Shell::Fish, "share/fish/vendor_completions.d"),
    ];
    std::fs::create_dir_all(&pages)?;
    for program in programs {
        let name = program.get_name().to_owned();
        // `man` itself stands for the subcommand `help` and all of its own.
        let mut program = without_help(program);
        for (shell, place) in completions {
            let place = folder.join(place);
            std::fs::create_dir_all(&place)?;
            let written = clap_complete::generate_to(shell, &mut program, &name, &place)?;
            // bash looks for a file of the program's name.
            if shell == Shell::Bash {
                std::fs::rename(written, place.join(&name))?;
            }
        }
        clap_mangen::generate_to(program, &pages)?;
    }
    Ok(())
}

fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}
