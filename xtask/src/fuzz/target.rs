//! One target: how it is run, and what came of it.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fleet::tools;

use super::{CargoFuzz, state_dir};
use crate::Failure;

/// How much is shown of what a run said that failed: lines, and signs of each.
const SHOWN: (usize, usize) = (8, 400);

/// The longest input, in bytes. Targets that need more repeat what they are given.
const MAX_INPUT_BYTES: usize = 4 << 10;

/// A file of `fuzz/targets/`.
pub struct Target(String);

/// What a run starts from, and where it writes what it finds worth keeping.
pub enum Corpus {
    /// The committed seeds alone, so that each run does the same work.
    SeedsAlone,
    /// What earlier runs have found besides, in `fuzz/corpus/`.
    Growing,
}

/// What a run that found nothing did.
pub struct Figures {
    target: String,
    inputs: String,
    covered: String,
    peak_mib: String,
}

impl Target {
    /// Every target, in the order of their names.
    pub fn all() -> Result<Vec<Self>, Failure> {
        let dir = fuzz_dir().join("targets");
        let files =
            fs::read_dir(&dir).map_err(|error| format!("could not read {}: {error}", dir.display()))?;
        let mut names = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension() == Some(OsStr::new("rs")) {
                names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
            }
        }
        names.sort();
        Ok(names.into_iter().map(Self).collect())
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Where a run writes what it says.
    pub fn log(&self) -> PathBuf {
        tools::state_dir().join("fuzz").join(format!("{}.log", self.0))
    }

    /// Makes up inputs for `time`, and fails where one breaks the target.
    pub fn run(&self, cargo_fuzz: &CargoFuzz, time: Duration, corpus: &Corpus) -> Result<Figures, Failure> {
        let mut command = cargo_fuzz.command("run", [self.name()]);
        command.arg(self.kept(corpus)?).arg(fuzz_dir().join("seeds").join(&self.0)).arg("--");
        command.args(limits()).args(["-print_final_stats=1", "-dict=fuzz/words.dict"]);
        command.arg(format!("-max_total_time={}", time.as_secs()));
        // Long inputs at once: a few seconds are too short to begin with the shortest.
        command.arg(format!("-max_len={MAX_INPUT_BYTES}")).arg("-len_control=0");
        // What is written by a grammar differs in how often it reaches a place all the time; that is nothing new.
        command.arg("-use_counters=0");
        let said = self.logged(&mut command)?;
        Ok(Figures::read(&self.0, &said))
    }

    /// Tries these inputs, with the target's output on the terminal.
    pub fn try_inputs(&self, cargo_fuzz: &CargoFuzz, inputs: &[PathBuf]) -> Result<(), Failure> {
        for input in inputs {
            // The target runs elsewhere.
            let input = std::path::absolute(input)?;
            let mut command = cargo_fuzz.command("run", [self.name()]);
            let status = command.arg(&input).arg("--").args(limits()).status()?;
            if !status.success() {
                return Err(format!("{} breaks {}, see above", input.display(), self.0).into());
            }
        }
        Ok(())
    }

    /// The directory for inputs that reach something new; libFuzzer writes to the first that it is given.
    fn kept(&self, corpus: &Corpus) -> Result<PathBuf, Failure> {
        let dir = match corpus {
            Corpus::Growing => fuzz_dir().join("corpus").join(&self.0),
            Corpus::SeedsAlone => {
                let dir = state_dir()?.join("kept").join(&self.0);
                match fs::remove_dir_all(&dir) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => dir,
                }
            }
        };
        fs::create_dir_all(&dir).map_err(|error| format!("could not make {}: {error}", dir.display()))?;
        Ok(dir)
    }

    /// Runs the target to its end, and returns what it said.
    fn logged(&self, command: &mut Command) -> Result<String, Failure> {
        state_dir()?;
        let path = self.log();
        let log = fs::File::create(&path)
            .map_err(|error| format!("could not write {}: {error}", path.display()))?;
        let status = command.stdout(log.try_clone()?).stderr(log).status()?;
        // What breaks a target may well be no UTF-8, and is shown.
        let said = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        if status.success() {
            return Ok(said);
        }
        let name = &self.0;
        let again = reproducer(&said).map_or_else(
            || "it named no input that breaks it".to_owned(),
            |input| format!("the input is kept; try it again by `cargo xtask fuzz {name} {input}`"),
        );
        let why = excerpt(&said);
        Err(format!(
            "{name} failed with {status}:\n{why}\n\n{again}; all that was said is in {}",
            path.display()
        )
        .into())
    }
}

impl Figures {
    /// Reads them from what libFuzzer says at its end.
    fn read(target: &str, said: &str) -> Self {
        let last = |before: &str| {
            let line = said.lines().rfind(|line| line.contains(before))?;
            line.split(before).nth(1)?.split_whitespace().next().map(str::to_owned)
        };
        let number = |before| last(before).unwrap_or_else(|| "?".to_owned());
        Self {
            target: target.to_owned(),
            inputs: number("stat::number_of_executed_units:"),
            covered: number(" cov: "),
            peak_mib: number("stat::peak_rss_mb:"),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, inputs, covered, peak_mib } = self;
        write!(f, "{target:<15} {inputs:>9} inputs, {covered:>5} branches covered, {peak_mib:>4} MiB at most")
    }
}

/// What libFuzzer holds every input to: seconds, and MiB of the process. They are generous, since tests run on busy
/// machines too; what one input may allocate is held to much less by the targets themselves.
fn limits() -> [&'static str; 2] {
    ["-timeout=20", "-rss_limit_mb=1024"]
}

/// What a run says of why it failed: the panic, or else the error of libFuzzer.
fn excerpt(said: &str) -> String {
    let (lines, signs) = SHOWN;
    let is_reason = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    let start = said
        .lines()
        .position(|line| is_reason(&line))
        .unwrap_or_else(|| said.lines().count().saturating_sub(lines));
    let shown = said.lines().skip(start).take(lines).map(|line| line.chars().take(signs).collect::<String>());
    shown.take_while(|line| line != "stack backtrace:").collect::<Vec<_>>().join("\n")
}

/// The file of the input that broke a target, relative to the workspace where it is below it.
fn reproducer(said: &str) -> Option<String> {
    let path = said.split("Test unit written to ").nth(1)?.lines().next()?.trim();
    let short = Path::new(path).strip_prefix(tools::workspace()).unwrap_or(Path::new(path));
    Some(short.display().to_string())
}

fn fuzz_dir() -> PathBuf {
    tools::workspace().join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_libfuzzer_says() {
        let said = "#8192\tpulse  cov: 310 ft: 790 corp: 90/4Kb lim: 80 exec/s: 4096 rss: 35Mb\n\
                    #9000\tDONE   cov: 311 ft: 795 corp: 92/4Kb lim: 88 exec/s: 4500 rss: 35Mb\n\
                    Done 9000 runs in 2 second(s)\n\
                    stat::number_of_executed_units: 9000\n\
                    stat::peak_rss_mb:              36\n";
        let told = Figures::read("keys", said).to_string();
        assert_eq!(told, "keys                 9000 inputs,   311 branches covered,   36 MiB at most");
    }

    #[test]
    fn the_input_that_broke_a_target_is_named() {
        let said =
            "panicked\nartifact_prefix='x'; Test unit written to fuzz/artifacts/keys/crash-1\nBase64: AA==\n";
        assert_eq!(reproducer(said).as_deref(), Some("fuzz/artifacts/keys/crash-1"));
        assert_eq!(reproducer("Done 9000 runs"), None);
    }
}
