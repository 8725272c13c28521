//! What a command line changes of a configuration, and what of that changes nothing.

use crate::config::{Loaded, Unused};
use crate::exchange::Transport;

/// Keys of the configuration with other values.
#[derive(Clone, Debug, clap::Args)]
pub struct Overrides {
    /// Override a key, for instance training.epochs=10; `biodist keys` shows them all
    #[arg(value_name = "KEY=VALUE", value_parser = assignment)]
    assignments: Vec<String>,
    /// The same as an option; what is given without --set wins
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn assignment(text: &str) -> Result<String, &'static str> {
    if text.contains('=') { Ok(text.to_owned()) } else { Err("expected key=value, for instance training.epochs=10") }
}

impl Overrides {
    /// All of them, the last to win at the end.
    pub fn all(&self) -> Vec<String> {
        [self.set.as_slice(), &self.assignments].concat()
    }

    /// Whether `key` is among them.
    pub fn name(&self, key: &str) -> bool {
        self.all().iter().any(|set| set.split('=').next().is_some_and(|given| given.trim() == key))
    }
}

/// Says which keys were written on the command line and change nothing in any of these configurations, or less than they would if the file
/// did not write what follows them.
pub fn tell_unused(loaded: &[Loaded], transport: &dyn Transport) {
    let Some((first, others)) = loaded.split_first().filter(|_| transport.rank() == 0) else { return };
    let everywhere = |unused: &&Unused| others.iter().all(|other| other.config.unused(&unused.key).is_some());
    for Unused { key, reason, .. } in first.unused.iter().filter(|unused| unused.typed).filter(everywhere) {
        log::warn!("{key} was given and changes nothing: {reason}");
    }
    first.left_behind.iter().for_each(|left_behind| log::warn!("{left_behind}"));
}
