//! The ways in which filter and sidecar spare themselves questions, each on and off: what holds must hold under all.

use std::fmt;

use fleet::{Fleet, FleetBuilder};
use serde_json::Value;

use crate::PATIENT;

/// A way to spare a question.
struct Shortcut {
    name: &'static str,
    /// Switches it on or off in the filter's whole configuration.
    filter: fn(&mut Value, bool),
    /// What the sidecar is told beside, where it is off.
    sidecar_off: &'static [&'static str],
}

const LEASE: &str = "leases";

/// All there are. A further one is a further entry.
const ALL: [Shortcut; 0] = [];

/// One combination of all shortcuts.
pub struct Shortcuts(Vec<(&'static Shortcut, bool)>);

impl Shortcuts {
    /// Every combination.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let combinations = 0..1_usize << ALL.len();
        let bits =
            |number: usize| ALL.iter().enumerate().map(move |(bit, one)| (one, number >> bit & 1 == 1));
        combinations.map(|number| Self(bits(number).collect())).collect()
    }

    /// None of them, and all.
    #[must_use]
    pub fn none_and_all() -> [Self; 2] {
        [false, true].map(|on| Self(ALL.iter().map(|one| (one, on)).collect()))
    }

    /// None of them, and all that nobody can tell from the outside: all but leases, which keep tokens from others for a
    /// while.
    #[must_use]
    pub fn none_and_unseen() -> [Self; 2] {
        [false, true].map(|on| Self(ALL.iter().map(|one| (one, on && one.name != LEASE)).collect()))
    }

    /// Whether tokens are taken in advance, so that those in one worker's hands are not in another's for a while.
    #[must_use]
    pub fn lease(&self) -> bool {
        self.0.iter().any(|(shortcut, on)| *on && shortcut.name == LEASE)
    }

    /// A fleet that is configured like this, and otherwise as asked for.
    #[must_use]
    pub fn fleet(&self, configuration: &Value) -> FleetBuilder {
        let mut configuration = configuration.clone();
        let mut args = PATIENT.to_vec();
        for (shortcut, on) in &self.0 {
            (shortcut.filter)(&mut configuration, *on);
            if !on {
                args.extend(shortcut.sidecar_off);
            }
        }
        Fleet::builder().filter_configuration(configuration).sidecar_args(args)
    }
}

impl fmt::Display for Shortcuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<&str> = self.0.iter().filter(|(_, on)| *on).map(|(shortcut, _)| shortcut.name).collect();
        if on.is_empty() { f.write_str("no shortcut") } else { f.write_str(&on.join(", ")) }
    }
}
