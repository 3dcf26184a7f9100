//! From the configuration as written to [`Policies`]. Everything that is wrong is found, not only the first.

mod answer;
mod condition;
mod key;
mod lease;
mod limit;
mod local;
mod name;
mod policy;
mod route;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use contract::MAX_BUCKETS;
use serde_json::Value;

use self::condition::Regexes;
use super::scalar::{Span, Whole};
use super::spot::{Problems, Spot};
use super::written::{Written, WrittenDenyCache, WrittenMode, WrittenOnError, WrittenSidecar};
use crate::answer::Denied;
use crate::index::Index;
use crate::key::HashSecret;
use crate::matcher::Condition;
use crate::route::Memo;
use crate::share::Share;
use crate::{DenyCache, Mode, OnError, Policies, Policy, Problem, Sidecar};

pub use limit::text as limit_text;
pub use route::route;

/// The most policies of one filter.
const MAX_POLICIES: usize = 1_000;

/// The shortest secret that is taken for one, in bytes.
const MIN_SECRET_BYTES: usize = 16;

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
/// Envoy cuts a timeout to milliseconds, and 0 would mean to wait for ever.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The most callouts of a worker that may be on the way.
pub const MAX_IN_FLIGHT: u64 = 32;

/// With as much for what a sidecar remembers, what an operator changes is seen within a second.
const DEFAULT_DENY_CEILING: Duration = Duration::from_millis(500);
const MAX_DENY_CEILING: Duration = Duration::from_secs(60);
/// About a kilobyte each.
const DEFAULT_DENY_ENTRIES: u64 = 4_096;
const MAX_DENY_ENTRIES: u64 = 100_000;

/// What policies have from the rest of the configuration, where they say nothing else.
struct Defaults {
    mode: Mode,
    on_error: OnError,
    local_share: Share,
    denied: Option<Arc<Denied>>,
    secret: Option<HashSecret>,
    regexes: Regexes,
}

pub fn policies(value: Value) -> Result<Policies, Vec<Problem>> {
    let problems = Problems::default();
    let valid = whole(value, &problems.root());
    let found = problems.into_found();
    match valid {
        Some(policies) if found.is_empty() => Ok(policies),
        _ => Err(found),
    }
}

/// The configuration, as far as it is right; `None` where it is too wrong to go on.
fn whole(value: Value, root: &Spot<'_>) -> Option<Policies> {
    let written = root.read::<Written>(value)?;
    let spot = |name: &str| root.field(name);
    let sidecar = written.sidecar.read(&spot("sidecar")).map(|found| sidecar(found, &spot("sidecar")));
    let domain = written.domain.read(&spot("domain"));
    if let Some(domain) = &domain {
        name::of_limit(domain, &spot("domain"));
    }
    let local_is_written = !written.local.is_absent();
    let local = written.local.read(&spot("local")).unwrap_or_default();
    let (local, local_share) = local::local(&local, &spot("local"));
    let defaults = Defaults {
        mode: mode(written.mode.read(&spot("mode")).unwrap_or_default()),
        on_error: on_error(written.on_error.read(&spot("on_error")).unwrap_or_default()),
        local_share,
        denied: written
            .denied
            .read(&spot("denied"))
            .map(|found| Arc::new(answer::denied(found, &spot("denied")))),
        secret: written
            .hash_secret
            .read(&spot("hash_secret"))
            .and_then(|secret| hash_secret(&secret, &spot("hash_secret"))),
        regexes: Regexes::default(),
    };
    let skip = written.skip.read(&spot("skip")).unwrap_or_default();
    let skip = skip.into_iter().enumerate().filter_map(|(index, written)| {
        let spot = spot("skip").item(index);
        let before = spot.problems();
        let condition = condition::condition(written.read(&spot)?, &spot, &defaults.regexes);
        // A condition that is wrong is left out, and has been told already.
        if condition.is_always_met() && spot.problems() == before {
            spot.problem("found no condition; this would exempt every request: write one, such as { path: { exact: /healthz } }");
        }
        Some(condition)
    });
    let skip: Vec<Condition> = skip.collect();
    let remembered = written.deny_cache.read(&spot("deny_cache")).unwrap_or_default();
    let deny_cache = deny_cache(&remembered, &spot("deny_cache"));
    let headers = written.headers.read(&spot("headers")).unwrap_or_default();
    let headers = answer::headers(headers, &spot("headers"));
    let tracing = written.tracing.read(&spot("tracing")).unwrap_or_default();
    let policies = written.policies.read(&spot("policies"))?;
    if policies.is_empty() {
        spot("policies").problem("found no policy; list at least one, with `name`, `key` and `limit`");
    }
    if policies.len() > MAX_POLICIES {
        let found = policies.len();
        spot("policies").problem(format!("found {found} policies; there may be at most {MAX_POLICIES}"));
        return None;
    }
    let policies = policies.into_iter().enumerate().filter_map(|(index, written)| {
        let spot = spot("policies").item(index);
        policy::policy(written.read(&spot)?, index, &spot, &defaults)
    });
    let policies: Vec<Policy> = policies.collect();
    names_are_unique(&policies, &spot("policies"));
    few_enough_everywhere(&policies, &spot("policies"));
    let index = Index::new(policies.iter().map(|policy| &policy.condition));
    let domain = domain.unwrap_or_else(|| "default".to_owned());
    Some(Policies {
        sidecar: sidecar?,
        deny_cache,
        tracing,
        local,
        local_is_written,
        domain,
        skip,
        headers,
        index,
        policies,
        routes: Memo::default(),
    })
}

fn sidecar(written: WrittenSidecar, spot: &Spot<'_>) -> Sidecar {
    if written.cluster.trim().is_empty() {
        spot.field("cluster")
            .problem("found an empty name; name the cluster of envoy.yaml that has the sidecars");
    }
    let Span(timeout) = written.timeout.unwrap_or(Span(DEFAULT_TIMEOUT));
    time_between(MIN_TIMEOUT, timeout, MAX_TIMEOUT, &spot.field("timeout"));
    let Whole(in_flight) = written.in_flight.unwrap_or(Whole(1));
    if !(1..=MAX_IN_FLIGHT).contains(&in_flight) {
        let message = format!("found {in_flight}; it must be between 1 and {MAX_IN_FLIGHT}");
        spot.field("in_flight").problem(message);
    }
    Sidecar { cluster: written.cluster, timeout, in_flight: usize::try_from(in_flight).unwrap_or(1) }
}

fn deny_cache(written: &WrittenDenyCache, spot: &Spot<'_>) -> DenyCache {
    let Span(ceiling) = written.ceiling.unwrap_or(Span(DEFAULT_DENY_CEILING));
    time_between(Duration::ZERO, ceiling, MAX_DENY_CEILING, &spot.field("ceiling"));
    let Whole(entries) = written.entries.unwrap_or(Whole(DEFAULT_DENY_ENTRIES));
    if entries > MAX_DENY_ENTRIES {
        spot.field("entries").problem(format!("found {entries}; it may be at most {MAX_DENY_ENTRIES}"));
    }
    DenyCache { ceiling, entries: usize::try_from(entries).unwrap_or_default() }
}

/// A problem at `spot` where `found` is not between `least` and `most`.
fn time_between(least: Duration, found: Duration, most: Duration, spot: &Spot<'_>) {
    if found < least || found > most {
        let message = format!(
            "found {}; it must be between {} and {}",
            humantime::format_duration(found),
            humantime::format_duration(least),
            humantime::format_duration(most)
        );
        spot.problem(message);
    }
}

fn hash_secret(secret: &str, spot: &Spot<'_>) -> Option<HashSecret> {
    if secret.len() < MIN_SECRET_BYTES {
        let message = format!(
            "found {} bytes; write at least {MIN_SECRET_BYTES} that nobody can guess, the same on every Envoy",
            secret.len()
        );
        spot.problem(message);
    }
    HashSecret::new(secret)
}

const fn on_error(written: WrittenOnError) -> OnError {
    match written {
        WrittenOnError::Allow => OnError::Allow,
        WrittenOnError::Deny => OnError::Deny,
        WrittenOnError::Local => OnError::Local,
    }
}

const fn mode(written: WrittenMode) -> Mode {
    match written {
        WrittenMode::Enforce => Mode::Enforce,
        WrittenMode::Shadow => Mode::Shadow,
        WrittenMode::Off => Mode::Off,
    }
}

/// Buckets of one name are one bucket: neither two policies nor two limits may have the same.
fn names_are_unique(policies: &[Policy], spot: &Spot<'_>) {
    let mut owners: HashMap<&str, &Policy> = HashMap::new();
    for policy in policies {
        let names = policy.limits.iter().map(|named| named.name.as_str());
        // Of several limits none has the policy's own name, which counters and routes know it by.
        let own = (policy.limits.len() > 1).then_some(policy.name.as_str());
        for name in names.chain(own) {
            let Some(first) = owners.insert(name, policy) else { continue };
            if std::ptr::eq(first, policy) {
                let spot = policy.spot(spot).field("limits");
                spot.problem(format!(
                    "found two limits whose buckets are named {name:?}; give one of them a `name` of its own"
                ));
            } else {
                policy.spot(spot).field("name").problem(format!(
                    "found the name {name:?} of policies[{}] again; give each policy a name of its own, since two \
                     of one name would share their buckets",
                    first.place
                ));
            }
        }
    }
}

impl Policy {
    /// Where it stands in the list of policies at `spot`.
    fn spot<'a>(&self, spot: &Spot<'a>) -> Spot<'a> {
        spot.item(self.place)
    }
}

/// A take has at most so many buckets, and a request that needs more could not be decided.
fn few_enough_everywhere(policies: &[Policy], spot: &Spot<'_>) {
    let everywhere = policies.iter().filter(|policy| {
        policy.condition.is_always_met() && !policy.only_if_chosen && policy.mode == Mode::Enforce
    });
    let limits: usize = everywhere.map(|policy| policy.limits.len()).sum();
    if limits > MAX_BUCKETS {
        spot.problem(format!(
            "found {limits} limits in enforced policies without `match`; at most {MAX_BUCKETS} may govern one request: add \
             conditions"
        ));
    }
}
