//! What is logged: lines on the standard error, through a filter that can be changed while the sidecar runs.

use std::{
    fmt, io,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;
use tracing::{Level, info};
use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    fmt::layer,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// The module that lines of what operators did are of. No level hides them, unless it is written for this name.
pub const AUDIT: &str = "sluice::audit";

/// A filter is a handful of modules and their levels.
const MAX_FILTER_BYTES: usize = 1_000;

/// What is let through: a level, or levels by module, in the syntax of `tracing`; and what operators did.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter {
    written: String,
    targets: Targets,
}

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It has a part that is neither.
    #[error("{0:?} is neither a level nor a module with its level")]
    Part(String),
    /// It would never end.
    #[error("it is longer than {MAX_FILTER_BYTES} bytes")]
    TooLong,
}

impl InvalidFilter {
    /// What would be right.
    pub const MEND: &str = "Write a level, off, error, warn, info, debug or trace, or levels by module, such as info,sluice::store=debug";
}

/// The filter in force, and that which comes after it.
#[derive(Debug)]
pub struct LogLevels {
    /// Nothing where no lines are written.
    applied: Option<reload::Handle<Targets, Registry>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lasting: LogFilter,
    passing: Option<Passing>,
}

/// A filter for a while.
#[derive(Debug)]
struct Passing {
    filter: LogFilter,
    until: Instant,
    ending: AbortHandle,
}

/// What is logged now.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// The filter in force.
    pub filter: LogFilter,
    /// What it gives way to, and when; nothing where it stays.
    pub reverts: Option<(LogFilter, Duration)>,
}

impl LogLevels {
    /// Begins to write lines to the standard error: once in a process.
    #[must_use]
    pub fn start(format: LogFormat, filter: LogFilter) -> Arc<Self> {
        let (filtering, handle) = reload::Layer::new(filter.targets.clone());
        let registry = tracing_subscriber::registry().with(filtering);
        let lines = layer().with_writer(io::stderr);
        match format {
            LogFormat::Text => {
                registry.with(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).init();
            }
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        }
        Self::of(Some(handle), filter)
    }

    /// Those of a service whose lines nobody writes.
    #[must_use]
    pub fn unwritten() -> Arc<Self> {
        Self::of(None, LogFilter { written: "off".to_owned(), targets: Targets::default() })
    }

    fn of(applied: Option<reload::Handle<Targets, Registry>>, filter: LogFilter) -> Arc<Self> {
        Arc::new(Self { applied, state: Mutex::new(State { lasting: filter, passing: None }) })
    }

    /// What is logged now.
    #[must_use]
    pub fn now(&self) -> Logged {
        let state = self.state();
        match &state.passing {
            None => Logged { filter: state.lasting.clone(), reverts: None },
            Some(passing) => Logged {
                filter: passing.filter.clone(),
                reverts: Some((
                    state.lasting.clone(),
                    passing.until.saturating_duration_since(Instant::now()),
                )),
            },
        }
    }

    /// Logs through another filter from now on, or only for a while: then the last one that was to stay is in force again.
    pub fn change(self: &Arc<Self>, filter: LogFilter, lasts: Option<Duration>) {
        let mut state = self.state();
        let before = state.current().clone();
        if let Some(passing) = state.passing.take() {
            passing.ending.abort();
        }
        match lasts {
            None => state.lasting = filter.clone(),
            Some(lasts) => {
                let levels = Arc::clone(self);
                let ending = tokio::spawn(async move {
                    tokio::time::sleep(lasts).await;
                    levels.revert();
                });
                let (filter, ending) = (filter.clone(), ending.abort_handle());
                state.passing = Some(Passing { filter, until: Instant::now() + lasts, ending });
            }
        }
        let tell = || info!(target: AUDIT, filter = %filter, lasts = ?lasts, "what is logged was changed");
        self.apply(&before, &filter, tell);
    }

    fn revert(&self) {
        let mut state = self.state();
        if let Some(Passing { filter: before, .. }) = state.passing.take() {
            let tell = || info!(target: AUDIT, filter = %state.lasting, "what is logged is as it was before");
            self.apply(&before, &state.lasting, tell);
        }
    }

    /// Tells of it through that of the two that lets it through.
    fn apply(&self, before: &LogFilter, filter: &LogFilter, tell: impl Fn()) {
        // One that names it may hide that it was set, as the one before it may.
        let told_before = before.lets_audit_through();
        if told_before {
            tell();
        }
        if let Some(applied) = &self.applied {
            // The subscriber lives as long as the process.
            let _ = applied.reload(filter.targets.clone());
        }
        if !told_before {
            tell();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn current(&self) -> &LogFilter {
        self.passing.as_ref().map_or(&self.lasting, |passing| &passing.filter)
    }
}

impl LogFilter {
    fn lets_audit_through(&self) -> bool {
        self.targets.would_enable(AUDIT, &Level::INFO)
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for LogFilter {
    type Err = InvalidFilter;

    fn from_str(written: &str) -> Result<Self, InvalidFilter> {
        if written.len() > MAX_FILTER_BYTES {
            return Err(InvalidFilter::TooLong);
        }
        let mut targets = Targets::new().with_target(AUDIT, LevelFilter::INFO);
        for part in written.split(',').map(str::trim) {
            let wrong = || InvalidFilter::Part(part.to_owned());
            // A word alone would be a module whose every line is logged: who misspells a level would lose all others.
            targets = match part.split_once('=') {
                None => targets.with_default(level(part).ok_or_else(wrong)?),
                Some((module, of)) if is_module(module) => {
                    targets.with_target(module, level(of).ok_or_else(wrong)?)
                }
                Some(_) => return Err(wrong()),
            };
        }
        Ok(Self { written: written.to_owned(), targets })
    }
}

/// Numbers are levels to the library, too.
fn level(written: &str) -> Option<LevelFilter> {
    written.parse().ok().filter(|_| !written.is_empty())
}

fn is_module(written: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
    !written.is_empty() && written.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(written: &str) -> LogFilter {
        written.parse().expect("a filter")
    }

    #[test]
    fn a_filter_is_a_level_or_levels_by_module() {
        let store = |filter: &LogFilter, level| filter.targets.would_enable("sluice::store::redis", &level);
        let mixed = filter("warn, sluice::store=debug");
        assert!(store(&mixed, Level::DEBUG) && !store(&mixed, Level::TRACE));
        for hides_nothing_of_it in ["info", "error", "off", "sluice=off"] {
            assert!(filter(hides_nothing_of_it).lets_audit_through(), "{hides_nothing_of_it}");
        }
        assert!(!filter("info,sluice::audit=off").lets_audit_through());
        assert!(!store(&filter("off"), Level::ERROR));
        for (wrong, part) in [
            ("", "\"\""),
            ("inof", "\"inof\""),
            ("info,", "\"\""),
            ("sluice=loud", "\"sluice=loud\""),
            ("sluice=", "\"sluice=\""),
            ("=info", "\"=info\""),
            ("info,a\nb=debug", "\"a\\nb=debug\""),
        ] {
            let error = wrong.parse::<LogFilter>().expect_err(wrong).to_string();
            assert!(error.starts_with(part), "{wrong:?}: {error}");
        }
        assert_eq!("a".repeat(1_001).parse::<LogFilter>(), Err(InvalidFilter::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_for_a_while_gives_way_to_the_last_that_was_to_stay() {
        let levels = LogLevels::of(None, filter("info"));
        let minute = Duration::from_secs(60);
        levels.change(filter("debug"), Some(minute));
        levels.change(filter("trace"), Some(2 * minute));
        let now = levels.now();
        assert_eq!(now.filter, filter("trace"));
        assert_eq!(now.reverts.map(|(filter, _)| filter), Some(filter("info")));
        tokio::time::sleep(minute + Duration::from_secs(1)).await;
        assert_eq!(levels.now().filter, filter("trace"), "the first one's end is not the second one's");
        tokio::time::sleep(minute).await;
        assert_eq!(levels.now(), Logged { filter: filter("info"), reverts: None });

        levels.change(filter("debug"), Some(minute));
        levels.change(filter("warn"), None);
        tokio::time::sleep(2 * minute).await;
        assert_eq!(levels.now(), Logged { filter: filter("warn"), reverts: None });
    }
}
