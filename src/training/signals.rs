//! Requests to stop: a signal sets a flag, and the loop looks at it after each step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use biodist_process::{signals, speech};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::exit::Exit;

/// Whether this process was asked to write a checkpoint and end.
#[derive(Clone, Debug, Default)]
pub struct StopRequest {
    flag: Arc<AtomicBool>,
    /// Whether the process is still on its way to the point from where on somebody looks at the flag.
    starting: Arc<AtomicBool>,
}

impl StopRequest {
    /// Listens to [requests to stop](signals::requests) from now on, but for those that this process was started to ignore. Until
    /// [`StopRequest::started`] each ends the process with the code of a request to stop: nothing can be lost yet, and a start that hangs
    /// would never look. Then a second SIGINT (Ctrl-C) ends the process at once. Whoever listens must get to look: from now on the process
    /// waits for no reader of its output.
    pub fn listen() -> Result<StopRequest> {
        speech::never_wait();
        let request = StopRequest { starting: Arc::new(AtomicBool::new(true)), ..StopRequest::default() };
        let interrupted = Arc::new(AtomicBool::new(false));
        let requests = signals::requests();
        let listen = || {
            for signal in &requests {
                flag::register_conditional_shutdown(*signal, Exit::Stopped as i32, request.starting.clone())?;
            }
            if requests.contains(&SIGINT) {
                flag::register_conditional_shutdown(SIGINT, Exit::Failed as i32, interrupted.clone())?;
                flag::register(SIGINT, interrupted.clone())?;
            }
            for signal in &requests {
                flag::register(*signal, request.flag.clone())?;
            }
            Ok::<(), std::io::Error>(())
        };
        listen().context("signals cannot be listened to")?;
        Ok(request)
    }

    /// From now on requests are looked at.
    pub fn started(&self) {
        self.starting.store(false, Ordering::Relaxed);
    }

    pub fn received(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}
