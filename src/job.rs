//! The job that this process is a rank of: how it begins, who speaks, and how all of it ends.
//!
//! A rank that returns early or panics leaves the others waiting in a collective call for ever, so every way out passes through here and
//! takes the whole job along. Rank 0 alone speaks, unless the trouble is another's.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use biodist_process::last_word::LastWord;
use biodist_process::quote;
use biodist_process::speech::{self, Lines, Stream};
use biodist_process::{leftovers, ranks};

use crate::exchange::{self, Transport};
use crate::exit::Exit;
use crate::host;
use crate::observe::{self, Doing};

static TRANSPORT: OnceLock<Arc<dyn Transport>> = OnceLock::new();

/// Time that rank 0 has to report an error that all ranks see, and its launcher to end the others, before those report theirs: Open MPI
/// asks for a second or two before it kills.
const FIRST_WORD: Duration = Duration::from_millis(3000);
/// And between those.
const NEXT_WORD: Duration = Duration::from_millis(200);

/// Whether this process speaks for its job: rank 0 of those that MPI has brought together, or, before that, of those that a launcher has
/// started. A process alone speaks.
pub fn speaks() -> bool {
    TRANSPORT.get().map_or_else(|| ranks::told_rank() == 0, |transport| transport.rank() == 0)
}

/// For a rank that fails with the others and does not speak: its end, if it came first, would end the one that does, unheard. That one's
/// ends this process.
pub fn await_first_word() {
    std::thread::sleep(FIRST_WORD);
}

/// Joins the job: logging, the panic hook, and the other ranks.
pub fn connect() -> Result<Arc<dyn Transport>> {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("a panic without a message");
        give_up(&format!("internal error: {message}{place}"), Exit::Failed)
    }));
    let transport: Arc<dyn Transport> = Arc::from(exchange::connect()?);
    start_logging(transport.rank());
    if transport.local().0 == 0 {
        leftovers::remove();
    }
    Ok(TRANSPORT.get_or_init(|| transport).clone())
}

/// Reports how a command went, ends the job where it failed, and returns this process's exit code.
pub fn end(result: Result<()>) -> ExitCode {
    match result.and_then(|()| speech::taken().context("the standard output cannot be written")) {
        Ok(()) => {
            finish();
            ExitCode::SUCCESS
        }
        // All ranks agreed on it, and all leave in good order.
        Err(error) if Exit::of(&error) == Exit::Stopped => {
            if speaks() {
                let message = describe(&error);
                complain(0, Exit::Stopped, &message, &message);
            }
            finish();
            ExitCode::from(Exit::Stopped as u8)
        }
        Err(error) => give_up(&describe(&error), Exit::of(&error)),
    }
}

fn finish() {
    observe::leave();
    if let Some(transport) = TRANSPORT.get() {
        transport.finish();
    }
    speech::finish();
}

fn describe(error: &Error) -> String {
    quote::message(&format!("{error:#}"))
}

/// Says why, once for the whole job, and ends all ranks with the code. Any thread may call it.
fn give_up(message: &str, exit: Exit) -> ! {
    let code = exit as i32;
    // The others wait for this rank, and are told why soon.
    std::mem::forget(observe::span(Doing::Ending, None));
    let Some(transport) = TRANSPORT.get().filter(|transport| transport.size() > 1) else {
        if speaks() {
            complain(0, exit, message, message);
        } else {
            await_first_word();
        }
        speech::finish();
        std::process::exit(code)
    };
    match transport.rank() {
        0 => complain(0, exit, message, message),
        rank => {
            // Most errors happen on all ranks at once, and rank 0's report ends this process during the wait; a request to stop in good
            // order comes too late.
            // SAFETY: the disposition is the system's own.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_DFL) };
            std::thread::sleep(FIRST_WORD + NEXT_WORD * (rank - 1).min(20) as u32);
            complain(rank, exit, message, message);
        }
    }
    speech::finish();
    // Should MPI be past ending anything, the kernel ends this process, and its launcher the others.
    // SAFETY: alarm only takes a number.
    unsafe { libc::alarm(5) };
    transport.abort(code)
}

/// One line on stderr that says whose it is, rank 0 speaking for the job, and the word for a launcher, with the cause alone. Written at
/// once, so that lines of several ranks do not mix; where stderr is closed, nobody listens.
pub fn complain(rank: usize, exit: Exit, message: &str, cause: &str) {
    let who = if rank == 0 { String::new() } else { format!("rank {rank} on {}: ", host::name()) };
    speech::speak(Stream::Err, format!("biodist: {who}{message}\n{}", LastWord::line(exit, rank, cause)));
}

/// One line on stdout, or several; where that is closed, training goes on all the same.
pub fn say(line: impl Display) {
    speech::speak(Stream::Out, format!("{line}\n"));
}

/// Warnings of all ranks and notices of rank 0 on stderr; RUST_LOG asks for more or less.
fn start_logging(rank: usize) {
    let level = if rank == 0 { log::LevelFilter::Info } else { log::LevelFilter::Warn };
    let mut builder = env_logger::Builder::new();
    builder.target(env_logger::Target::Pipe(Box::new(Lines(Stream::Err))));
    builder.filter_level(level).parse_default_env().format(move |out, record| {
        let level = match record.level() {
            log::Level::Info => String::new(),
            level => format!("{}: ", level.as_str().to_lowercase()),
        };
        let rank = if rank == 0 { String::new() } else { format!("rank {rank}: ") };
        writeln!(out, "biodist: {rank}{level}{}", record.args())
    });
    // A second call, from a test in the same process, changes nothing.
    let _ = builder.try_init();
}
