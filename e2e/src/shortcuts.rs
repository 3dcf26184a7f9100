//! The ways in which filter and sidecar spare themselves questions, each on and off: what holds must hold under all.

use std::fmt;

use fleet::{Fleet, FleetBuilder};
use serde_json::{Value, json};

use crate::PATIENT;

/// A way to spare a question.
struct Shortcut {
    name: &'static str,
    /// Switches it on or off in the filter's whole configuration.
    filter: fn(&mut Value, bool),
    /// What the sidecar is told beside, where it is off.
    sidecar_off: &'static [&'static str],
}

const DENY_CACHE: &str = "the filter's deny cache";
const LEASE: &str = "leases";

/// All there are. A further one is a further entry.
const ALL: [Shortcut; 4] = [
    Shortcut {
        name: DENY_CACHE,
        filter: |filter, on| filter["deny_cache"] = json!({"ceiling": if on { "1s" } else { "0s" }}),
        sidecar_off: &[],
    },
    Shortcut {
        name: "the sidecar's deny cache",
        filter: |_, _| {},
        sidecar_off: &["--deny-cache-ceiling", "0s"],
    },
    Shortcut {
        name: "two callouts and two runs at once",
        filter: |filter, on| filter["sidecar"]["in_flight"] = json!(if on { 2 } else { 1 }),
        sidecar_off: &["--redis-in-flight", "1"],
    },
    Shortcut {
        name: LEASE,
        filter: |filter, on| {
            // What is not spent comes back at least an eighth of this before it would be lost: long enough for a busy
            // machine, and short enough to wait for.
            for policy in filter["policies"].as_array_mut().into_iter().flatten().filter(|_| on) {
                policy["lease"] = json!({"tokens": 10, "ttl": "6s"});
            }
        },
        sidecar_off: &[],
    },
];

/// One combination of all shortcuts.
pub struct Shortcuts(Vec<(&'static Shortcut, bool)>);

impl Shortcuts {
    /// None of them, all, and all but each: so every two of them meet, on and off in each way.
    #[must_use]
    pub fn in_pairs() -> Vec<Self> {
        let all_but = ALL.iter().map(|off| Self(ALL.iter().map(|one| (one, one.name != off.name)).collect()));
        Self::none_and_all().into_iter().chain(all_but).collect()
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

    /// Whether the filter denies by what it remembers.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.has(DENY_CACHE)
    }

    /// Whether the filter takes tokens in advance, so that those in one worker's hands are not in another's for a while.
    #[must_use]
    pub fn leases(&self) -> bool {
        self.has(LEASE)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(shortcut, on)| *on && shortcut.name == name)
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
