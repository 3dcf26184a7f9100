//! What is printed of the program itself: its completions and its admin API.

use std::io::{self, Write};

use clap::CommandFactory;

use super::{CommandLine, CompletionsArgs, DocumentFormat, OpenapiArgs, reference};
use crate::http::admin;

/// What a shell completes by.
pub(super) fn completions(args: &CompletionsArgs) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "sluice", &mut script);
    io::stdout().write_all(&script)
}

/// The admin API.
pub(super) fn openapi(args: &OpenapiArgs) -> io::Result<()> {
    let text = match args.format {
        DocumentFormat::Json => admin::document().to_pretty_json().map(|json| json + "\n"),
        DocumentFormat::Markdown => reference::markdown(),
    };
    io::stdout().write_all(text.map_err(io::Error::other)?.as_bytes())
}
