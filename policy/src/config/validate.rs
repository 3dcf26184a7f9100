//! From the configuration as written to [`Policies`]. Everything that is wrong is found, not only the first.

use std::collections::HashMap;
use std::time::Duration;

use bucket::{InvalidLimit, Limit};
use contract::{MAX_BUCKETS, MAX_NAME_BYTES};
use serde::Deserialize;
use serde_json::Value;

use super::error::Problem;
use super::scalar::{Rate, Span, Whole};
use super::written::{
    Written, WrittenKeyPart, WrittenMatch, WrittenOnError, WrittenPath, WrittenPolicy, WrittenSidecar,
};
use crate::key::{Key, MAX_PARTS, Part};
use crate::matcher::{Matcher, PathMatch};
use crate::{OnError, Policies, Policy, Sidecar};

/// The most policies of one filter.
const MAX_POLICIES: usize = 1_000;

/// The longest header name that is accepted, in bytes.
const MAX_HEADER_NAME_BYTES: usize = 128;

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
/// Envoy cuts a timeout to milliseconds, and 0 would mean to wait for ever.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Gathers problems, each under the path of its place.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }
}

pub fn policies(value: &Value) -> Result<Policies, Vec<Problem>> {
    let mut problems = Problems::default();
    let Some(written) = read::<Written>(value, "", &mut problems) else { return Err(problems.0) };
    let sidecar = sidecar(written.sidecar, &mut problems);
    name(&written.domain, "domain", &mut problems);
    if written.policies.is_empty() {
        problems
            .add("policies", "found an empty list; list at least one policy, with `name`, `key` and `limit`");
    }
    if written.policies.len() > MAX_POLICIES {
        let found = written.policies.len();
        problems.add("policies", format!("found {found} policies; there may be at most {MAX_POLICIES}"));
        return Err(problems.0);
    }
    let mut first_of_name = HashMap::new();
    let mut policies = Vec::with_capacity(written.policies.len());
    for (index, value) in written.policies.iter().enumerate() {
        let path = format!("policies[{index}]");
        let Some(policy) = read::<WrittenPolicy>(value, &path, &mut problems) else { continue };
        if let Some(first) = first_of_name.insert(policy.name.clone(), index) {
            let message = format!(
                "found the name {:?} of policies[{first}] again; give each policy a name of its own, since two of \
                 one name would share their buckets",
                policy.name
            );
            problems.add(format!("{path}.name"), message);
        }
        policies.extend(self::policy(policy, &path, on_error(written.on_error), &mut problems));
    }
    let everywhere = policies.iter().filter(|policy| policy.matcher.matches_all()).count();
    if everywhere > MAX_BUCKETS {
        let message = format!(
            "found {everywhere} policies without `match`; at most {MAX_BUCKETS} may govern one request: add conditions"
        );
        problems.add("policies", message);
    }
    if problems.0.is_empty() {
        Ok(Policies { sidecar, domain: written.domain, policies })
    } else {
        Err(problems.0)
    }
}

/// Reads `value`, or adds what is wrong under the path where it was found.
fn read<'a, T: Deserialize<'a>>(value: &'a Value, prefix: &str, problems: &mut Problems) -> Option<T> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| {
            let inner = error.path().to_string();
            let path = match (prefix, inner.as_str()) {
                ("", ".") => "configuration".to_owned(),
                (prefix, ".") => prefix.to_owned(),
                ("", inner) => inner.to_owned(),
                (prefix, inner) => format!("{prefix}.{inner}"),
            };
            problems.add(path, with_suggestion(error.into_inner().to_string()));
        })
        .ok()
}

/// A message that lists what was expected ends with what was probably meant.
fn with_suggestion(message: String) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = quoted.next().and_then(|found| {
        let expected = quoted.map(|name| (strsim::damerau_levenshtein(found, name), name));
        expected.filter(|&(distance, name)| distance * 2 <= name.len()).min()
    });
    match nearest {
        Some((_, name)) if message.starts_with("unknown") => format!("{message}; did you mean `{name}`?"),
        _ => message,
    }
}

fn sidecar(written: WrittenSidecar, problems: &mut Problems) -> Sidecar {
    if written.cluster.trim().is_empty() {
        problems.add(
            "sidecar.cluster",
            "found an empty name; name the cluster of envoy.yaml that has the sidecars",
        );
    }
    let Span(timeout) = written.timeout.unwrap_or(Span(DEFAULT_TIMEOUT));
    if timeout < MIN_TIMEOUT || timeout > MAX_TIMEOUT {
        let message = format!(
            "found {}; it must be between {} and {}",
            humantime::format_duration(timeout),
            humantime::format_duration(MIN_TIMEOUT),
            humantime::format_duration(MAX_TIMEOUT)
        );
        problems.add("sidecar.timeout", message);
    }
    Sidecar { cluster: written.cluster, timeout }
}

fn on_error(written: WrittenOnError) -> OnError {
    match written {
        WrittenOnError::Allow => OnError::Allow,
        WrittenOnError::Deny => OnError::Deny,
    }
}

fn name(name: &str, path: &str, problems: &mut Problems) {
    if !contract::is_name(name) {
        let message = format!(
            "found {name:?}; use 1 to {MAX_NAME_BYTES} ASCII letters, digits, `-`, `_` and `.`, such as \"per-client\""
        );
        problems.add(path, message);
    }
}

fn policy(written: WrittenPolicy, path: &str, default: OnError, problems: &mut Problems) -> Option<Policy> {
    name(&written.name, &format!("{path}.name"), problems);
    let matcher = matcher(written.matches, &format!("{path}.match"), problems);
    let key = key(written.key, &format!("{path}.key"), problems);
    let limit = limit(written.limit, written.burst, path, problems)?;
    Some(Policy {
        name: written.name,
        matcher,
        key,
        limit,
        on_error: written.on_error.map_or(default, on_error),
    })
}

fn limit(rate: Rate, burst: Option<Whole>, path: &str, problems: &mut Problems) -> Option<Limit> {
    let burst_tokens = burst.map_or(rate.tokens, |Whole(burst)| burst);
    Limit::new(rate.tokens, rate.period_us, burst_tokens)
        .map_err(|invalid| {
            let of_burst = matches!(invalid, InvalidLimit::ZeroBurst | InvalidLimit::TooLarge { .. });
            let field = if of_burst && burst.is_some() { "burst" } else { "limit" };
            problems.add(format!("{path}.{field}"), invalid.to_string());
        })
        .ok()
}

fn matcher(written: WrittenMatch, path: &str, problems: &mut Problems) -> Matcher {
    let path_match = written.path.map(|written| {
        let (form, text, matches) = match written {
            WrittenPath::Exact(text) => ("exact", text.clone(), PathMatch::Exact(text)),
            WrittenPath::Prefix(text) => ("prefix", text.clone(), PathMatch::Prefix(text)),
        };
        if !text.starts_with('/') {
            problems.add(format!("{path}.path.{form}"), format!("found {text:?}; a path begins with `/`"));
        }
        if text.contains(['?', '#']) {
            let message =
                format!("found {text:?}; the query is not part of the path that is matched: leave it out");
            problems.add(format!("{path}.path.{form}"), message);
        }
        matches
    });
    if written.method.as_ref().is_some_and(Vec::is_empty) {
        problems.add(format!("{path}.method"), "found an empty list; leave it out to match every method");
    }
    let methods = written.method.unwrap_or_default();
    for (index, method) in methods.iter().enumerate() {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            let message = format!("found {method:?}; methods are written in capitals, such as \"POST\"");
            problems.add(format!("{path}.method[{index}]"), message);
        }
    }
    Matcher { path: path_match, methods }
}

fn key(written: Vec<WrittenKeyPart>, path: &str, problems: &mut Problems) -> Key {
    if written.len() > MAX_PARTS {
        problems.add(path, format!("found {} parts; a key has at most {MAX_PARTS}", written.len()));
    }
    let parts = written.into_iter().enumerate().map(|(index, part)| {
        let path = format!("{path}[{index}]");
        match part {
            WrittenKeyPart::FirstOf(choices) => first_of(choices, &format!("{path}.first_of"), problems),
            WrittenKeyPart::Header(name) => vec![header(&name, &format!("{path}.header"), problems)],
            WrittenKeyPart::ClientAddress => vec![Part::ClientAddress],
        }
    });
    Key::new(parts.collect())
}

fn first_of(written: Vec<WrittenKeyPart>, path: &str, problems: &mut Problems) -> Vec<Part> {
    if written.is_empty() {
        problems.add(path, "found an empty list; list at least one part, such as `client_address`");
    }
    if written.len() > MAX_PARTS {
        problems.add(path, format!("found {} choices; there may be at most {MAX_PARTS}", written.len()));
    }
    let choices = written.into_iter().enumerate().filter_map(|(index, part)| match part {
        WrittenKeyPart::ClientAddress => Some(Part::ClientAddress),
        WrittenKeyPart::Header(name) => Some(header(&name, &format!("{path}[{index}].header"), problems)),
        WrittenKeyPart::FirstOf(_) => {
            problems.add(
                format!("{path}[{index}]"),
                "found first_of within first_of; list its parts here instead",
            );
            None
        }
    });
    choices.collect()
}

fn header(name: &str, path: &str, problems: &mut Problems) -> Part {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_HEADER_NAME_BYTES || !name.bytes().all(token) {
        problems.add(path, format!("found {name:?}; write the name of a header, such as \"x-api-key\""));
    }
    Part::Header(name.to_ascii_lowercase())
}
