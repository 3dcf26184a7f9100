//! What can go wrong while a fleet is set up, each with the place and the mend.

use std::{fmt, io, time::Duration};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a fleet could not be set up or asked.
#[derive(Debug)]
pub enum Error {
    /// A program that is needed is not on this machine.
    Missing {
        /// Its name.
        program: String,
        /// What was tried, and what to install or to set.
        mend: String,
    },
    /// A step of the set-up failed: a build, a download.
    Step {
        /// The command or the step.
        step: String,
        /// What it said.
        detail: String,
    },
    /// A child ended before it was ready, or while it was needed.
    Exited {
        /// Which child, and how it ended.
        child: String,
        /// The last lines of its log.
        log: String,
    },
    /// Something did not come about in time.
    Late {
        /// What was waited for, and what was seen last.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// A file, a socket or a process could not be used.
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A configuration has not the shape that is rewritten.
    Config {
        /// Where.
        at: String,
        /// What was expected there.
        expected: String,
    },
    /// A Redis or an HTTP server answered something that was not understood, or an error.
    Answer {
        /// Who answered.
        from: String,
        /// What it said.
        detail: String,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn config(at: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Config { at: at.into(), expected: expected.into() }
    }

    /// Whether a child said that another program has the address it was given.
    pub(crate) fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Exited { log, .. } if log.to_ascii_lowercase().contains("address already in use"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { program, mend } => write!(f, "{program} is missing: {mend}"),
            Self::Step { step, detail } => write!(f, "{step} failed: {detail}"),
            Self::Exited { child, log } => write!(f, "{child}; the end of its log:\n{log}"),
            Self::Late { what, waited } => write!(f, "waited {:.1} s for {what}", waited.as_secs_f64()),
            Self::Io { what, source } => write!(f, "could not {what}: {source}"),
            Self::Config { at, expected } => write!(f, "the configuration has no {expected} at {at}"),
            Self::Answer { from, detail } => write!(f, "{from} answered: {detail}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
