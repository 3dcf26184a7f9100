//! The manual: a page for the program and one for each command, from the same words as the help.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::CommandLine;

/// Why the pages are not there.
#[derive(Debug, thiserror::Error)]
#[error("{at} cannot be written: {source}; give a directory that this user may write to")]
pub(super) struct Unwritten {
    at: String,
    source: io::Error,
}

/// The page of the program itself.
pub(super) fn page() -> io::Result<Vec<u8>> {
    rendered(&built())
}

/// Writes all pages into a directory, which is made where it is not there.
pub(super) fn write_pages(dir: &Path) -> Result<(), Unwritten> {
    let unwritten = |path: &Path| {
        let at = path.display().to_string();
        |source| Unwritten { at, source }
    };
    fs::create_dir_all(dir).map_err(unwritten(dir))?;
    let program = built();
    for command in [&program].into_iter().chain(program.get_subcommands()) {
        let path = dir.join(format!("{}.1", name(command)));
        rendered(command).and_then(|page| fs::write(&path, page)).map_err(unwritten(&path))?;
    }
    Ok(())
}

/// With the names of all commands worked out.
fn built() -> Command {
    let mut program = CommandLine::command().disable_help_subcommand(true);
    program.build();
    program
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn rendered(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // Dozens of flags are told below; here they hide what the command is.
    let many = command.get_arguments().count() > 12;
    let after = if command.has_subcommands() { "[OPTIONS] [COMMAND]" } else { "[OPTIONS]" };
    let usage = command.clone().override_usage(format!("{} {after}", name(command).replace('-', " ")));
    let of = if many { usage } else { command.clone() };
    let source = format!("sluice {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(of).title(name(command).to_uppercase()).source(source).manual("Sluice");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|flag| !flag.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(after) = command.get_after_help() {
        sections(&after.to_string()).to_writer(&mut page)?;
    }
    page.flush()?;
    Ok(page)
}

/// What follows the flags in the help: each line that begins no column and ends with a colon heads a section, and all others
/// stay as they are written.
fn sections(after_help: &str) -> Roff {
    let mut roff = Roff::new();
    for line in after_help.lines().filter(|line| !line.is_empty()) {
        match line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            Some(heading) => {
                let (heading, more) = heading
                    .split_once([',', ';'])
                    .map_or((heading, None), |(heading, more)| (heading, Some(more)));
                roff.control("fi", []).control("SH", [heading.to_uppercase().as_str()]);
                if let Some(more) = more {
                    roff.text([roman(format!("{}:", more.trim()))]);
                }
                roff.control("nf", []);
            }
            None => drop(roff.text([roman(line.strip_prefix("  ").unwrap_or(line))])),
        }
    }
    roff.control("fi", []);
    roff
}
