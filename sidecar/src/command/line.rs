//! From the words of a command line to what they mean.

use std::{ffi::OsString, iter};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, parser::ValueSource};

use super::{Command, CommandLine, Task};
use crate::config::Args;

impl CommandLine {
    /// Reads the words, of which the first is the program. The flags of serving may stand before `serve`, after it, or some here
    /// and some there. Without a task it is to serve.
    ///
    /// # Errors
    /// clap's own: what is wrong, or the help that was asked for.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<(Option<Task>, Args), clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let line = Self::from_arg_matches(&matches)?;
        match (line.command, matches.subcommand()) {
            (Some(Command::Task(task)), _) => {
                let mut args = line.args;
                // Whoever gives a token to one command means it, and no file that is in the environment of all.
                let ours = matches.value_source("admin_token_file") == Some(ValueSource::CommandLine);
                if args.admin_token.is_some() && !ours {
                    args.admin_token_file = None;
                }
                Ok((Some(task), args))
            }
            (Some(Command::Serve(_)), Some((_, after))) => {
                let words = [&matches, after].into_iter().flat_map(written);
                let words = iter::once(OsString::from("sluice")).chain(words);
                Ok((None, Args::try_parse_from(words)?))
            }
            _ => Ok((None, line.args)),
        }
    }
}

/// The flags of serving that stand in the command line, as they were written: not those of the environment, and no defaults.
fn written(matches: &ArgMatches) -> Vec<OsString> {
    let mut words = Vec::new();
    for flag in Args::command().get_arguments() {
        let (id, Some(name)) = (flag.get_id().as_str(), flag.get_long()) else { continue };
        if !matches!(matches.value_source(id), Some(ValueSource::CommandLine)) {
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<(Option<Task>, Args), String> {
        let words = ["sluice"].iter().chain(words).map(OsString::from);
        CommandLine::read(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_one_that_clap_takes() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn flags_of_serving_stand_before_and_after_the_word() {
        let both = ["--max-connections", "5", "serve", "--log", "debug", "--listen=127.0.0.1:1,127.0.0.1:2"];
        let (task, args) = read(&both).expect("right");
        assert!(task.is_none(), "serving is what is done without a command");
        assert_eq!((args.max_connections.as_str(), args.log.as_str()), ("5", "debug"));
        assert_eq!(args.listen, ["127.0.0.1:1", "127.0.0.1:2"]);
        assert_eq!(args.log_format, "text", "what nobody wrote is as ever");
        let (_, several) = read(&["--listen", "a", "serve", "--listen", "b"]).expect("right");
        assert_eq!(several.listen, ["a", "b"]);
        let twice = read(&["--log", "info", "serve", "--log", "debug"]).expect_err("which?");
        assert!(twice.contains("--log") && twice.contains("multiple times"), "{twice}");
    }

    #[test]
    fn a_word_that_only_looks_like_a_flag_is_a_value() {
        let (_, args) = read(&["serve", "--log=--x"]).expect("right for clap");
        assert_eq!(args.log, "--x");
    }
}
