//! Doing what a command says.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use super::{
    CheckArgs, ExplainArgs, ManArgs, Task,
    ask::{self, Failed},
    man, print, top,
};
use crate::{
    check::{self, finding::Shown},
    config::{Args, Asked, EXIT_USAGE, InvalidConfig},
    explain, health,
    replay::{self, args::ReplayArgs},
};

/// Does it; `args` are the flags of serving, which tell where a sidecar can be asked.
pub fn run(task: &Task, args: &Args) -> ExitCode {
    match task {
        // What only reads files has nothing to do with how the sidecar is configured.
        Task::Check(args) => run_check(args),
        Task::Explain(args) => run_explain(args),
        Task::Replay(args) => run_replay(args),
        Task::Schema => printed(writeln!(io::stdout(), "{:#}", policy::schema())),
        Task::Openapi(args) => printed(print::openapi(args)),
        Task::Completions(args) => printed(print::completions(args)),
        Task::Man(args) => run_man(args),
        Task::Top(of) => asked(top::run(of, args)),
        Task::Get(of) => asked(ask::get(of, args)),
        Task::Reset(of) => asked(ask::reset(of, args)),
        Task::Refund(of) => asked(ask::refund(of, args)),
        Task::Override(of) => asked(ask::put_override(of, args)),
        Task::Overrides(of) => asked(ask::overrides(of, args)),
        Task::Stats(of) => asked(ask::stats(of, args)),
        Task::Log(of) => asked(ask::log(of, args)),
        Task::Health => {
            Asked::try_from(args).map_or_else(|error| misused(&error), |asked| done(health::ask(&asked)))
        }
    }
}

/// Says what is wrong with the command line or the environment.
pub fn misused(error: &InvalidConfig) -> ExitCode {
    complain(error);
    ExitCode::from(EXIT_USAGE)
}

/// Says it on the standard error, whoever's words are in it. Where that cannot be written to, there is nobody to tell.
pub fn complain(of: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "sluice: {}", Shown(&of.to_string()));
}

fn run_check(args: &CheckArgs) -> ExitCode {
    let outcome = match check::run(&args.files, &mut anstream::stdout().lock()) {
        Ok(outcome) => outcome,
        Err(error) => return cannot_print(&error),
    };
    let failed = outcome.errors > 0 || (args.deny_warnings && outcome.warnings > 0);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run_explain(args: &ExplainArgs) -> ExitCode {
    match explain::run(args, &mut anstream::stdout().lock(), &mut anstream::stderr().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => cannot_print(&error),
    }
}

fn run_replay(args: &ReplayArgs) -> ExitCode {
    match replay::run(args, &mut anstream::stdout().lock(), &mut anstream::stderr().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => cannot_print(&error),
    }
}

fn run_man(args: &ManArgs) -> ExitCode {
    match &args.dir {
        None => printed(man::page().and_then(|page| io::stdout().write_all(&page))),
        Some(dir) => done(man::write_pages(dir)),
    }
}

fn done<E: fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn asked(outcome: Result<(), Failed>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Misused(error)) => misused(&error),
        Err(Failed::Print(error)) => cannot_print(&error),
        // As a shell tells of what a signal has ended.
        Err(Failed::Signalled(number)) => ExitCode::from(number.saturating_add(128)),
        Err(Failed::Ask(error)) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn printed(outcome: io::Result<()>) -> ExitCode {
    outcome.map_or_else(|error| cannot_print(&error), |()| ExitCode::SUCCESS)
}

/// Whoever reads may have read enough, as `head` has: then there is nobody to tell.
fn cannot_print(error: &io::Error) -> ExitCode {
    if error.kind() != io::ErrorKind::BrokenPipe {
        complain(&format_args!("nothing can be printed: {error}"));
    }
    ExitCode::FAILURE
}
