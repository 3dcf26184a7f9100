//! Conditions, from written to valid.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};
use serde::de::DeserializeOwned;

use super::{key, name};
use crate::config::spot::Spot;
use crate::config::written::{Later, WrittenCondition, WrittenPath, WrittenTest};
use crate::matcher::{Condition, HostName, Test};

/// The largest regular expression once it is compiled, in bytes.
const MAX_REGEX_BYTES: usize = 16 << 10;

/// The most memory in which a regular expression remembers the states that it met, in bytes.
const MAX_REGEX_CACHE_BYTES: usize = 256 << 10;

/// The most regular expressions of one filter.
const MAX_REGEXES: usize = 64;

/// The deepest that conditions may nest.
const MAX_DEPTH: usize = 16;

/// The deepest that groups of a regular expression may nest.
const MAX_REGEX_NESTING: u32 = 50;

/// How many regular expressions were compiled already.
#[derive(Debug, Default)]
pub struct Regexes(Cell<usize>);

impl Regexes {
    /// Compiles an expression that the whole of a value must match. It takes time linear in the value's length.
    fn compile(&self, pattern: &str, spot: &Spot<'_>) -> Option<Test> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MAX_REGEXES {
            // Told once, not for each that follows.
            if self.0.get() == MAX_REGEXES + 1 {
                spot.problem(format!("found more than {MAX_REGEXES} regular expressions; use `exact` or `prefix` where they serve"));
            }
            return None;
        }
        // A comment at the end, which the flag x allows, would hide the closing bracket: a line break ends it.
        let whole = || build(&format!("^(?:{pattern})$")).or_else(|_| build(&format!("^(?:{pattern}\n)$")));
        let compiled = build(pattern).and_then(|_| whole());
        match compiled {
            Ok(regex) => Some(Test::Regex(regex)),
            Err(regex::Error::CompiledTooBig(_)) => {
                spot.problem(format!(
                    "found a regular expression that needs more than {MAX_REGEX_BYTES} bytes; use fewer repetitions"
                ));
                None
            }
            Err(error) => {
                // The library draws the place on several lines; the last one says what is wrong there.
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                spot.problem(format!("found {pattern:?}, which is no regular expression: {why}"));
                None
            }
        }
    }
}

fn build(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_CACHE_BYTES)
        .nest_limit(MAX_REGEX_NESTING)
        .build()
}

pub fn condition(written: WrittenCondition, spot: &Spot<'_>, regexes: &Regexes) -> Condition {
    nested(written, spot, regexes, 0)
}

/// A condition within `depth` others.
fn nested(written: WrittenCondition, spot: &Spot<'_>, regexes: &Regexes, depth: usize) -> Condition {
    if depth >= MAX_DEPTH {
        spot.problem(format!(
            "found conditions in conditions, more than {MAX_DEPTH} deep; write them with fewer"
        ));
        return Condition::All(Vec::new());
    }
    let mut all = Vec::new();
    let path = spot.field("path");
    all.extend(written.path.read(&path).and_then(|found| on_path(found, &path, regexes)));
    all.extend(methods(written.method, &spot.field("method")));
    all.extend(hosts(written.host, &spot.field("host")));
    let values = |map: Later<BTreeMap<String, Later<WrittenTest>>>, field: &str| {
        let spot = spot.field(field);
        let named: Vec<(String, Test)> = named_tests(map, &spot, regexes);
        named.into_iter().map(move |(name, test)| (name, test, spot.clone()))
    };
    all.extend(
        values(written.header, "header")
            .map(|(name, test, spot)| Condition::Header(name::header(&name, &spot.field(&name)), test)),
    );
    all.extend(
        values(written.query, "query")
            .map(|(name, test, spot)| Condition::Query(name::query(&name, &spot.field(&name)), test)),
    );
    all.extend(
        values(written.cookie, "cookie")
            .map(|(name, test, spot)| Condition::Cookie(name::cookie(&name, &spot.field(&name)), test)),
    );
    all.extend(networks(written.client_address, &spot.field("client_address")));
    all.extend(route_names(written.route_name, &spot.field("route_name")));
    let claim = spot.field("jwt_claim");
    all.extend(written.jwt_claim.read(&claim).and_then(|found| {
        let path = key::claim(&found.payload, &found.claim.0, &claim);
        Some(Condition::Metadata(
            path,
            test(found.is.read(&claim.field("is"))?, &claim.field("is"), regexes)?,
        ))
    }));
    let metadata = spot.field("dynamic_metadata");
    all.extend(written.dynamic_metadata.read(&metadata).and_then(|found| {
        let path = key::metadata(&key::DYNAMIC, &found.namespace, &found.path, &metadata);
        Some(Condition::Metadata(
            path,
            test(found.is.read(&metadata.field("is"))?, &metadata.field("is"), regexes)?,
        ))
    }));
    all.extend(written.percent.read(&spot.field("percent")).map(|share| Condition::Share(share.0)));
    let not = spot.field("not");
    all.extend(
        written
            .not
            .read(&not)
            .map(|found| Condition::Not(Box::new(nested(*found, &not, regexes, depth + 1)))),
    );
    all.extend(several(written.any, &spot.field("any"), regexes, depth).map(Condition::Any));
    all.extend(several(written.all, &spot.field("all"), regexes, depth).map(Condition::All));
    if all.len() == 1 { all.pop().unwrap_or(Condition::All(Vec::new())) } else { Condition::All(all) }
}

/// A list that may be left out, but not be empty.
fn list<T: DeserializeOwned>(written: Later<Vec<T>>, spot: &Spot<'_>) -> Option<Vec<T>> {
    let found = written.read(spot)?;
    if found.is_empty() {
        spot.problem("found an empty list; leave it out where there is no such condition");
    }
    Some(found)
}

fn several(
    written: Later<Vec<Later<WrittenCondition>>>,
    spot: &Spot<'_>,
    regexes: &Regexes,
    depth: usize,
) -> Option<Vec<Condition>> {
    let conditions = list(written, spot)?.into_iter().enumerate().filter_map(|(index, written)| {
        let spot = spot.item(index);
        Some(nested(written.read(&spot)?, &spot, regexes, depth + 1))
    });
    Some(conditions.collect())
}

fn on_path(written: WrittenPath, spot: &Spot<'_>, regexes: &Regexes) -> Option<Condition> {
    let literal = |text: &str, form: &str| {
        let spot = spot.field(form);
        if !text.starts_with('/') {
            spot.problem(format!("found {text:?}; a path begins with `/`"));
        }
        if text.contains(['?', '#']) {
            spot.problem(format!(
                "found {text:?}; the query is not part of the path that is matched: leave it out"
            ));
        }
    };
    let test = match written {
        WrittenPath::Exact(text) => {
            literal(&text, "exact");
            Test::Exact(text)
        }
        WrittenPath::Prefix(text) => {
            literal(&text, "prefix");
            Test::Prefix(text)
        }
        WrittenPath::Regex(pattern) => {
            let begins_otherwise = pattern.starts_with(|first: char| first.is_ascii_alphanumeric());
            if pattern.is_empty() || (begins_otherwise && !pattern.contains('|')) {
                let message =
                    format!("found {pattern:?}; the whole path must match, and a path begins with `/`");
                spot.field("regex").problem(message);
            }
            regexes.compile(&pattern, &spot.field("regex"))?
        }
    };
    Some(Condition::Path(test))
}

fn test(written: WrittenTest, spot: &Spot<'_>, regexes: &Regexes) -> Option<Test> {
    let text = |text: String, form: &str, make: fn(String) -> Test| {
        if text.is_empty() && form != "exact" {
            spot.field(form)
                .problem("found an empty text, which every value has; write `present` to ask for any");
        }
        make(text)
    };
    Some(match written {
        WrittenTest::Present => Test::Present,
        WrittenTest::Exact(found) => text(found, "exact", Test::Exact),
        WrittenTest::Prefix(found) => text(found, "prefix", Test::Prefix),
        WrittenTest::Suffix(found) => text(found, "suffix", Test::Suffix),
        WrittenTest::Regex(pattern) => regexes.compile(&pattern, &spot.field("regex"))?,
    })
}

fn named_tests(
    written: Later<BTreeMap<String, Later<WrittenTest>>>,
    spot: &Spot<'_>,
    regexes: &Regexes,
) -> Vec<(String, Test)> {
    let Some(found) = written.read(spot) else { return Vec::new() };
    if found.is_empty() {
        spot.problem("found no name; write one, such as { x-tier: { exact: gold } }");
    }
    let tests = found.into_iter().filter_map(|(name, written)| {
        let spot = spot.field(&name);
        let test = test(written.read(&spot)?, &spot, regexes)?;
        Some((name, test))
    });
    tests.collect()
}

fn methods(written: Later<Vec<String>>, spot: &Spot<'_>) -> Option<Condition> {
    let methods = list(written, spot)?;
    for (index, method) in methods.iter().enumerate() {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            spot.item(index)
                .problem(format!("found {method:?}; methods are written in capitals, such as \"POST\""));
        }
    }
    Some(Condition::Method(methods))
}

fn hosts(written: Later<Vec<String>>, spot: &Spot<'_>) -> Option<Condition> {
    let hosts = list(written, spot)?.into_iter().enumerate().map(|(index, written)| {
        let host = written.to_ascii_lowercase();
        let (name, below) = host.strip_prefix('*').map_or((host.as_str(), false), |domain| (domain, true));
        let ipv6 = name.starts_with('[') && name.ends_with(']');
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '/') || (c == ':' && !ipv6);
        if name.is_empty() || name.ends_with('.') || name.contains(odd) || (below && !name.starts_with('.')) {
            spot.item(index).problem(format!(
                "found {written:?}; write a host without the port, such as \"api.example.com\" or \"*.example.com\""
            ));
        }
        if below { HostName::Below(name.to_owned()) } else { HostName::Exact(name.to_owned()) }
    });
    Some(Condition::Host(hosts.collect()))
}

fn networks(written: Later<Vec<String>>, spot: &Spot<'_>) -> Option<Condition> {
    let networks = list(written, spot)?.into_iter().enumerate().filter_map(|(index, text)| {
        let spot = spot.item(index);
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let Ok(network) = network else {
            spot.problem(format!(
                "found {text:?}; write an address or a network, such as 192.0.2.1 or 10.0.0.0/8"
            ));
            return None;
        };
        if let IpNet::V6(v6) = network
            && let Some(v4) = v6.network().to_ipv4_mapped()
        {
            spot.problem(format!(
                "found {text:?}; such a client is known by its IPv4 address: write {v4} and its prefix"
            ));
        }
        if network.trunc() != network {
            spot.problem(format!(
                "found {text:?}, which is an address within a network; did you mean {}?",
                network.trunc()
            ));
        }
        Some(network)
    });
    Some(Condition::ClientAddress(networks.collect()))
}

fn route_names(written: Later<Vec<String>>, spot: &Spot<'_>) -> Option<Condition> {
    let names = list(written, spot)?;
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            spot.item(index).problem("found an empty name; write the `name` of a route");
        }
    }
    Some(Condition::RouteName(names))
}
