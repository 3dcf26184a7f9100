//! What is printed of the program itself: its completions and its admin API.

use std::io::{self, Write};

use clap::CommandFactory;

use super::{CommandLine, CompletionsArgs};
use crate::http::admin;

/// What a shell completes by.
pub(super) fn completions(args: &CompletionsArgs) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "sluice", &mut script);
    io::stdout().write_all(&script)
}

/// The admin API.
pub(super) fn openapi() -> io::Result<()> {
    writeln!(io::stdout(), "{}", admin::document().to_pretty_json().map_err(io::Error::other)?)
}
