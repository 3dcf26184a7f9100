//! What `docs/configuration.md` shows is accepted, and what it says of ranges holds.
//!
//! Most of its examples are fragments. What is left out is filled in by what their fields are:
//!
//! | a fragment | is completed to |
//! |---|---|
//! | a list | the policies of a filter |
//! | a mapping of a filter's fields | a filter |
//! | a mapping of a policy's fields | the only policy of a filter |
//! | a mapping of Envoy's fields | an Envoy, by [`into_envoy`], which Envoy itself then validates |

use std::collections::BTreeSet;
use std::process::Command;

use fleet::{Config, Envoy, Programs, RunDir, tools};
use policy::Policies;
use serde_json::{Map, Value, json};

const PAGE: &str = include_str!("../../docs/configuration.md");

/// The fields of a filter that may stand in a fragment. One that only these have makes it a filter.
const FILTER: [&str; 12] = [
    "deny_cache",
    "tracing",
    "local",
    "sidecar",
    "domain",
    "on_error",
    "mode",
    "hash_secret",
    "skip",
    "headers",
    "denied",
    "policies",
];

/// The fields of Envoy's that the page shows.
const ENVOY: [&str; 4] = ["http_filters", "routes", "access_log", "stats_config"];

/// The code blocks of a language, each with the number of its first line.
fn blocks(language: &str) -> Vec<(usize, String)> {
    let fence = format!("```{language}");
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut within = false;
    for (index, line) in PAGE.lines().enumerate() {
        if within && line == "```" {
            within = false;
        } else if within {
            blocks.last_mut().expect("begun").1.push_str(&format!("{line}\n"));
        } else if line == fence {
            within = true;
            blocks.push((index + 2, String::new()));
        }
    }
    blocks
}

fn yaml(text: &str) -> Value {
    Config::from_yaml(text).unwrap_or_else(|error| panic!("{error} in:\n{text}")).tree().clone()
}

/// The fields of `over` go before those of `under`.
fn over(under: Value, over: &Value) -> Value {
    let mut fields: Map<String, Value> = under.as_object().cloned().unwrap_or_default();
    fields.extend(over.as_object().cloned().unwrap_or_default());
    Value::Object(fields)
}

fn has_only(fragment: &Value, fields: &[&str]) -> bool {
    fragment.as_object().is_some_and(|found| found.keys().all(|name| fields.contains(&name.as_str())))
}

/// A whole filter from a fragment of one, or `None` where it is Envoy's.
fn filter(fragment: &Value) -> Option<Value> {
    let secret = "a text of more than sixteen bytes";
    let whole = |policies: Value| json!({"sidecar": {"cluster": "sluice"}, "hash_secret": secret, "policies": policies});
    let policy = json!({"name": "example", "key": []});
    let limit = json!({"limit": "60 per minute"});
    if has_only(fragment, &ENVOY) {
        return None;
    }
    if fragment.is_array() {
        return Some(whole(fragment.clone()));
    }
    if has_only(fragment, &FILTER) {
        return Some(over(whole(json!([over(policy, &limit)])), fragment));
    }
    let policy = if fragment.get("limits").is_some() { policy } else { over(policy, &limit) };
    Some(whole(json!([over(policy, fragment)])))
}

/// What is wrong with a filter, and what is hardly meant.
fn problems(filter: &Value) -> Vec<String> {
    match Policies::from_value(filter.clone()) {
        Ok(policies) => policies.warnings().iter().map(|warning| format!("warning: {warning}")).collect(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_example_is_accepted() {
    let blocks = blocks("yaml");
    assert!(blocks.len() > 30, "only {} examples were found", blocks.len());
    for (line, text) in blocks {
        if let Some(filter) = filter(&yaml(&text)) {
            let problems = problems(&filter);
            assert!(problems.is_empty(), "docs/configuration.md:{line}: {problems:#?}");
        }
    }
}

/// Puts a fragment of Envoy's where it belongs in `envoy/envoy.yaml`.
fn into_envoy(config: &mut Config, fragment: &Value) -> fleet::Result<()> {
    for (name, value) in fragment.as_object().into_iter().flatten() {
        match name.as_str() {
            "routes" => *config.routes()? = value.clone(),
            "stats_config" => config.tree()[name] = value.clone(),
            _ => config.connection_manager()?[name] = value.clone(),
        }
    }
    config.wasm(Programs::from_env().wasm()?)?;
    Ok(())
}

#[test]
fn every_example_of_envoys_is_accepted_by_envoy() {
    let programs = Programs::from_env();
    let run = RunDir::new().expect("a directory");
    let of_envoy = blocks("yaml").into_iter().map(|(line, text)| (line, yaml(&text)));
    let of_envoy: Vec<_> = of_envoy.filter(|(_, fragment)| filter(fragment).is_none()).collect();
    assert!(of_envoy.len() >= ENVOY.len());
    for (line, fragment) in of_envoy {
        let mut config = Config::shipped().expect("the shipped configuration");
        into_envoy(&mut config, &fragment).expect("a place for it");
        let validation = Envoy::validate(&config, programs.envoy().expect("Envoy"), &run).expect("Envoy ran");
        assert_eq!(validation.code, Some(0), "docs/configuration.md:{line}: {}", validation.output);
    }
}

#[test]
fn the_metadata_of_routes_is_accepted() {
    let policies = json!([
        {"name": "per-client", "key": ["client_address"], "limit": "60 per minute"},
        {"name": "strict", "only_if_chosen": true, "key": ["client_address"], "limit": "5 per minute"},
    ]);
    let policies = Policies::from_value(filter(&policies).expect("a filter")).expect("valid");
    let mut seen = 0;
    for (line, text) in blocks("yaml") {
        let fragment = yaml(&text);
        for route in fragment["routes"].as_array().into_iter().flatten() {
            let Some(ours) = route.pointer("/metadata/filter_metadata/sluice") else { continue };
            let problems = policies.check_route(ours);
            assert!(problems.is_empty(), "docs/configuration.md:{line}: {problems:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 4, "one for each field");
}

#[test]
fn the_explanation_that_is_shown_is_what_is_told() {
    let (_, shown) = blocks("console").into_iter().next().expect("a command");
    let (command, expected) = shown.split_once('\n').expect("a command and what it prints");
    let programs = Programs::from_env();
    let sluice = programs.sluice().expect("the sidecar").display().to_string();
    let script = command.strip_prefix("$ sluice ").expect("a command of ours");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("'{sluice}' {script}")]).current_dir(tools::workspace());
    let outcome = shell.output().expect("it ran");
    let told = String::from_utf8_lossy(&outcome.stdout);
    assert_eq!(told.trim_end(), expected.trim_end(), "{}", String::from_utf8_lossy(&outcome.stderr));
}

/// Where each type of the configuration is told of: the section, and whether each of its fields begins a row of a table
/// there, or is only named.
const SECTIONS: [(&str, &str, Told); 32] = [
    ("Sluice", "## The filter", Told::Row),
    ("WrittenSidecar", "### sidecar", Told::Row),
    ("WrittenDenyCache", "### deny_cache", Told::Row),
    ("WrittenLocal", "### local", Told::Row),
    ("WrittenPolicyLocal", "### local", Told::Row),
    ("WrittenHeaders", "### headers", Told::Row),
    ("WrittenJitter", "### headers", Told::Named),
    ("WrittenUpstream", "### headers", Told::Named),
    ("WrittenDenied", "### denied", Told::Row),
    ("WrittenPolicy", "## Policies", Told::Row),
    ("WrittenMissing", "## Policies", Told::Named),
    ("WrittenOnError", "## Policies", Told::Named),
    ("WrittenLimit", "### Limits", Told::Row),
    ("Rate", "### How values are written", Told::Named),
    ("Word", "### Keys", Told::Named),
    ("WrittenPartFields", "### Keys", Told::Named),
    ("WrittenPrefixes", "### Keys", Told::Named),
    ("WrittenPathPart", "### Keys", Told::Named),
    ("WrittenMetadata", "### Keys", Told::Named),
    ("WrittenClaim", "### Keys", Told::Named),
    ("WrittenCertificate", "### Keys", Told::Named),
    ("WrittenCondition", "### Conditions", Told::Row),
    ("WrittenPath", "### Conditions", Told::Named),
    ("WrittenTest", "### Conditions", Told::Named),
    ("WrittenClaimTest", "### Conditions", Told::Named),
    ("WrittenMetadataTest", "### Conditions", Told::Named),
    ("WrittenHeaderCost", "### Cost", Told::Row),
    ("Lease", "### Leases", Told::Named),
    ("LeaseTokens", "### Leases", Told::Named),
    ("WrittenLeaseFields", "### Leases", Told::Row),
    ("WrittenSettle", "### What it really cost", Told::Row),
    ("Mode", "### Mode and roll-out", Told::Row),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Row,
    Named,
}

/// A section, with those below it.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().map_or(0, str::len);
    let end = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level)))).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The names of a type: its fields, or the words that it may be.
fn names(schema: &Value) -> Vec<String> {
    let fields = |schema: &Value| -> Vec<String> {
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let mut names = fields(schema);
    for choice in ["oneOf", "anyOf"].into_iter().filter_map(|kind| schema[kind].as_array()).flatten() {
        names.extend(fields(choice));
        names.extend(choice["const"].as_str().map(str::to_owned));
    }
    names
        .extend(schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    names
}

/// Every name of a field and every text in a value.
fn words(value: &Value, to: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(to.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| words(item, to)),
        Value::Object(fields) => {
            for (name, value) in fields {
                to.insert(name.clone());
                words(value, to);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn every_field_is_documented_and_in_an_example() {
    let mut shown = BTreeSet::new();
    blocks("yaml").iter().for_each(|(_, text)| words(&yaml(text), &mut shown));
    let schema = policy::schema();
    let types = schema["$defs"].as_object().expect("definitions").iter();
    let types = types.map(|(name, schema)| (name.as_str(), schema)).chain([("Sluice", &schema)]);
    for (name, schema) in types {
        let names = names(schema);
        let told = SECTIONS.iter().find(|(of, ..)| *of == name);
        let Some((_, heading, told)) = told else {
            assert!(names.is_empty(), "no section tells of {name}");
            continue;
        };
        assert!(!names.is_empty(), "{name} has neither fields nor words");
        let section = section(heading);
        let in_code: Vec<&str> = section.split('`').skip(1).step_by(2).collect();
        let is_named = |name: &str| {
            in_code
                .iter()
                .any(|code| code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name))
        };
        for field in names {
            let found = match told {
                Told::Row => section.contains(&format!("\n| `{field}` |")),
                Told::Named => is_named(&field),
            };
            assert!(found, "`{field}` of {name} is missing below {heading}");
            // Of the words that a field may be, the table tells enough.
            let is_field = schema.pointer(&format!("/properties/{field}")).is_some();
            assert!(!is_field || shown.contains(&field), "`{field}` of {name} is in no example");
        }
    }
}

/// What the page says of ranges, at both sides of each border.
#[test]
fn the_ranges_are_those_that_are_told() {
    let letters = |count: usize| "x".repeat(count);
    let parts = |count: usize| vec![json!({"header": "x"}); count];
    let limits = |count: usize| -> Value {
        (1..=count).map(|number| json!({"limit": format!("1 per {number}s")})).collect()
    };
    let policies = |count: usize| -> Value {
        let policy = |number| json!({"name": format!("p{number}"), "match": {"method": ["GET"]}, "key": [], "limit": "1/s"});
        (0..count).map(policy).collect()
    };
    let regexes = |count: usize| -> Value { vec![json!({"path": {"regex": "/x"}}); count].into() };
    let headers = |count: usize| -> Value {
        (0..count).map(|number| (format!("x-{number}"), json!("y"))).collect::<Map<_, _>>().into()
    };
    let exact = 1_u64 << 53;
    let borders = [
        (
            json!({"sidecar": {"cluster": "c", "timeout": "1ms"}}),
            json!({"sidecar": {"cluster": "c", "timeout": "999us"}}),
        ),
        (
            json!({"sidecar": {"cluster": "c", "timeout": "60s"}}),
            json!({"sidecar": {"cluster": "c", "timeout": "60001ms"}}),
        ),
        (
            json!({"sidecar": {"cluster": "c", "in_flight": 32}}),
            json!({"sidecar": {"cluster": "c", "in_flight": 33}}),
        ),
        (
            json!({"sidecar": {"cluster": "c", "in_flight": 1}}),
            json!({"sidecar": {"cluster": "c", "in_flight": 0}}),
        ),
        (json!({"deny_cache": {"ceiling": "60s"}}), json!({"deny_cache": {"ceiling": "60001ms"}})),
        (json!({"deny_cache": {"entries": 100_000}}), json!({"deny_cache": {"entries": 100_001}})),
        (json!({"lease": {"tokens": 1}}), json!({"lease": {"tokens": 0}})),
        (json!({"lease": {"ttl": "10ms"}}), json!({"lease": {"ttl": "9ms"}})),
        (json!({"lease": {"ttl": "60s"}}), json!({"lease": {"ttl": "60001ms"}})),
        (json!({"lease": {"share_percent": 2}}), json!({"lease": {"share_percent": 0}})),
        (json!({"lease": {"share_percent": 100}}), json!({"lease": {"share_percent": 101}})),
        (json!({"domain": letters(64)}), json!({"domain": letters(65)})),
        (json!({"hash_secret": letters(16)}), json!({"hash_secret": letters(15)})),
        (json!({"policies": policies(1_000)}), json!({"policies": policies(1_001)})),
        (
            json!({"headers": {"retry_after": {"jitter": "1s"}}}),
            json!({"headers": {"retry_after": {"jitter": "0s"}}}),
        ),
        (
            json!({"headers": {"retry_after": {"jitter": "1h"}}}),
            json!({"headers": {"retry_after": {"jitter": "3601s"}}}),
        ),
        (
            json!({"headers": {"retry_after": {"jitter": "2s"}}}),
            json!({"headers": {"retry_after": {"jitter": "2500ms"}}}),
        ),
        (json!({"denied": {"status": 400}}), json!({"denied": {"status": 399}})),
        (json!({"denied": {"status": 599}}), json!({"denied": {"status": 600}})),
        (json!({"denied": {"headers": headers(16)}}), json!({"denied": {"headers": headers(17)}})),
        (
            json!({"denied": {"headers": {"x": letters(1_024)}}}),
            json!({"denied": {"headers": {"x": letters(1_025)}}}),
        ),
        (
            json!({"denied": {"body": letters(16 << 10)}}),
            json!({"denied": {"body": letters((16 << 10) + 1)}}),
        ),
        (json!({"skip": regexes(64)}), json!({"skip": regexes(65)})),
        (
            json!({"match": {"path": {"regex": "[a-z]{100}"}}}),
            json!({"match": {"path": {"regex": "([a-z]{100}){100}"}}}),
        ),
        (json!({"name": letters(64)}), json!({"name": letters(65)})),
        (json!({"key": parts(8)}), json!({"key": parts(9)})),
        (json!({"key": [{"first_of": parts(8)}]}), json!({"key": [{"first_of": parts(9)}]})),
        (json!({"key": [{"text": letters(128)}]}), json!({"key": [{"text": letters(129)}]})),
        (json!({"key": [{"path": {"segments": 1}}]}), json!({"key": [{"path": {"segments": 0}}]})),
        (json!({"key": [{"path": {"segments": 32}}]}), json!({"key": [{"path": {"segments": 33}}]})),
        (
            json!({"key": [{"client_address": {"ipv4_prefix": 32}}]}),
            json!({"key": [{"client_address": {"ipv4_prefix": 33}}]}),
        ),
        (
            json!({"key": [{"client_address": {"ipv6_prefix": 128}}]}),
            json!({"key": [{"client_address": {"ipv6_prefix": 129}}]}),
        ),
        (json!({"limits": limits(8)}), json!({"limits": limits(9)})),
        (json!({"limits": limits(1)}), json!({"limits": []})),
        (json!({"burst": 1}), json!({"burst": 0})),
        (
            json!({"limit": "1/s", "burst": 9_000_000_000_u64}),
            json!({"limit": "1/s", "burst": 9_010_000_000_u64}),
        ),
        (json!({"limit": "1/day", "burst": 104_248}), json!({"limit": "1/day", "burst": 104_249})),
        (json!({"enforce_percent": "99.9999"}), json!({"enforce_percent": "0.00001"})),
        (json!({"enforce_percent": 100}), json!({"enforce_percent": 101})),
        (
            json!({"mode": "enforce", "enforce_percent": 1}),
            json!({"key": [], "mode": "shadow", "enforce_percent": 1}),
        ),
        (json!({"refund_on": [100, 599, "1xx", "5xx"]}), json!({"refund_on": [600]})),
        (
            json!({"burst": 100, "cost": {"header": "x", "min": 5, "max": 5}}),
            json!({"cost": {"header": "x", "min": 6, "max": 5}}),
        ),
        (
            json!({"cost": {"header": "x", "default": 5, "max": 5}}),
            json!({"cost": {"header": "x", "default": 6, "max": 5}}),
        ),
        (json!({"cost": {"header": "x", "max": 5}}), json!({"cost": {"header": "x"}})),
        (
            json!({"settle": {"header": "x", "max": exact - 1}}),
            json!({"settle": {"header": "x", "max": exact}}),
        ),
        (
            json!({"settle": {"bytes_per_token": 1, "max": 1}}),
            json!({"settle": {"bytes_per_token": 0, "max": 1}}),
        ),
        (
            json!({"settle": {"header": "x", "max": 1}}),
            json!({"settle": {"header": "x", "bytes_per_token": 1, "max": 1}}),
        ),
        (
            json!({"cost": 1, "settle": {"header": "x", "max": 1}}),
            json!({"cost": 0, "settle": {"header": "x", "max": 1}}),
        ),
        (
            json!({"match": {"client_address": ["10.0.0.0/8"]}}),
            json!({"match": {"client_address": ["10.0.0.1/8"]}}),
        ),
        (json!({"match": {"method": ["POST"]}}), json!({"match": {"method": ["post"]}})),
        (json!({"match": {"header": {"x": "present"}}}), json!({"match": {"header": {"cookie": "present"}}})),
        (json!({"match": {"path": {"prefix": "/a"}}}), json!({"match": {"path": {"prefix": "/a?b"}}})),
        (json!({"match": {"path": {"prefix": "/a"}}}), json!({"match": {}, "key": null})),
    ];
    for (within, beyond) in borders {
        let read = |fragment: &Value| Policies::from_value(filter(fragment).expect("a filter"));
        let shown = |fragment: &Value| fragment.to_string().chars().take(200).collect::<String>();
        let refused = read(&within).err().and_then(|problems| problems.into_iter().next());
        assert!(refused.is_none(), "{} is refused: {refused:?}", shown(&within));
        assert!(read(&beyond).is_err(), "{} is accepted", shown(&beyond));
    }
}
