//! Requests to stop: a signal sets a flag, and the loop looks at it after each step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::exit::Exit;

/// Whether this process was asked to write a checkpoint and end.
#[derive(Clone, Debug, Default)]
pub struct StopRequest {
    flag: Arc<AtomicBool>,
}

impl StopRequest {
    /// Listens to SIGUSR1, SIGTERM and SIGINT from now on. A second SIGINT (Ctrl-C) ends the process at once.
    pub fn listen() -> Result<StopRequest> {
        let request = StopRequest::default();
        let interrupted = Arc::new(AtomicBool::new(false));
        let listen = || {
            flag::register_conditional_shutdown(SIGINT, Exit::Failed as i32, interrupted.clone())?;
            flag::register(SIGINT, interrupted.clone())?;
            for signal in [SIGUSR1, SIGTERM, SIGINT] {
                flag::register(signal, request.flag.clone())?;
            }
            Ok::<(), std::io::Error>(())
        };
        listen().context("signals cannot be listened to")?;
        Ok(request)
    }

    pub fn received(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}
