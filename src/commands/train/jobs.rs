//! Several runs at a time, each in a process of its own: what `--jobs` asks for.

use std::ffi::OsStr;

use anyhow::{Context, Result};

use super::TrainArgs;
use super::study::Member;
use crate::compute::device;
use crate::config::Config;
use crate::exit::Exit;
use crate::job::say;
use crate::search::{Children, Ended, Jobs};
use crate::training::StopRequest;

/// What the processes say, in their runs' folders.
const LOG: &str = "train.log";

/// Trains `members`, whose configurations are `configs`, `jobs` at a time, and returns how each ended. A run that fails leaves the others as
/// they are.
pub fn run(jobs: usize, args: &TrainArgs, members: &[Member], configs: &[Config], stop: &StopRequest) -> Result<Vec<Ended>> {
    let gpus = configs.iter().map(|config| device::shared(config.parallel.device, config.parallel.kernels)).max();
    let mut children = Children::new(jobs, gpus.unwrap_or(0));
    let mut runs = Runs { args, members, configs, ended: members.iter().map(|_| Ended::Stopped).collect() };
    if children.run(0..members.len(), stop, &mut runs)? {
        return Err(Exit::Stopped.error("stopped on request, checkpoints written; the same command with --resume goes on"));
    }
    Ok(runs.ended)
}

struct Runs<'a> {
    args: &'a TrainArgs,
    members: &'a [Member],
    configs: &'a [Config],
    /// By member.
    ended: Vec<Ended>,
}

impl Jobs for Runs<'_> {
    fn start(&mut self, children: &mut Children, slot: usize, job: usize) -> Result<()> {
        let Member { assignments, folder, .. } = &self.members[job];
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        let mut set = [self.args.overrides.all().as_slice(), assignments].concat();
        if self.configs[job].parallel.threads_per_rank == 0 {
            set.push(format!("parallel.threads_per_rank={}", children.threads(slot)));
        }
        let mut arguments = vec![OsStr::new("train"), self.args.config.as_os_str(), OsStr::new("--out"), folder.as_os_str()];
        arguments.extend(self.args.resume.then_some(OsStr::new("--resume")));
        arguments.extend(set.iter().map(OsStr::new));
        say(format_args!("{} begins", folder.display()));
        children.start(slot, job, &arguments, &folder.join(LOG))
    }

    fn ended(&mut self, job: usize, ended: Ended) -> Result<()> {
        let folder = self.members[job].folder.display();
        match &ended {
            Ended::Stopped => {}
            Ended::Done => say(format_args!("{folder} is done")),
            Ended::Diverged => say(format_args!("{folder}: its loss is not finite")),
            Ended::Refused(why) | Ended::Failed(why) => say(format_args!("{folder}: {why}")),
        }
        self.ended[job] = ended;
        Ok(())
    }
}
