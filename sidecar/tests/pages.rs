//! What docs/api.md and the README show of operating is what happens, and the reference is the one of this code.

mod support;

use std::process::Command;

use serde_json::Value;
use support::running::{Running, ask};

const API: &str = include_str!("../../docs/api.md");
const README: &str = include_str!("../../README.md");
const MARK: &str = "<!-- What follows is what `sluice openapi --format markdown` prints. -->\n\n";

/// Fields that differ from run to run.
const VOLATILE: [&str; 6] =
    ["now_us", "full_after_us", "created_at_us", "expires_at_us", "covers_us", "age_us"];

/// A sidecar of which a client has been denied.
fn operated() -> Running {
    fleet::tools::curl().expect("curl is there");
    let running = Running::start();
    let bucket =
        r#"{"policy":"per-client","key":"alice","tokens":5,"period_us":86400000000,"burst":5,"cost":1}"#;
    let takes = vec![format!(r#"{{"buckets":[{bucket}]}}"#); 7].join(",");
    let body = format!(r#"{{"domain":"shop","takes":[{takes}]}}"#);
    let head = "POST /v1/take HTTP/1.1\r\nhost: sluice\r\nconnection: close\r\ncontent-length:";
    let answer = ask(&running.address, &format!("{head} {}\r\n\r\n{body}", body.len()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    running
}

/// What a shell prints for a command of the page, asked of this sidecar instead of the one that the page has.
fn printed(command: &str, of: &Running) -> String {
    let here = |text: &str| text.replace("127.0.0.1:9090", &of.address).replace("127.0.0.1:9091", &of.admin);
    let sluice = std::path::Path::new(env!("CARGO_BIN_EXE_sluice")).parent().expect("a directory");
    let path = format!("{}:{}", sluice.display(), std::env::var("PATH").expect("a path"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1; {}", here(command))]).env_clear();
    let output = shell.env("PATH", path).env("SLUICE_ADMIN_LISTEN", &of.admin).output().expect("sh runs");
    String::from_utf8(output.stdout).expect("text")
}

/// JSON without what differs from run to run.
fn settled(text: &str) -> Option<Value> {
    fn settle(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field.is_number() && VOLATILE.contains(&name.as_str()) {
                        true => *field = "…".into(),
                        false => settle(field),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(settle),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(text).ok()?;
    settle(&mut value);
    Some(value)
}

/// Runs the commands of all console blocks of a text in turn; how many there were.
fn runs_as_shown(text: &str, of: &Running) -> usize {
    let blocks = text.split("```console\n").skip(1).filter_map(|after| after.split("```").next());
    let steps: Vec<&str> = blocks.flat_map(|block| block.split("$ ").skip(1)).collect();
    for step in &steps {
        let (command, shown) = step.split_once('\n').expect("a command and what it prints");
        let printed = printed(command, of);
        match settled(shown) {
            Some(shown) => assert_eq!(settled(&printed).as_ref(), Some(&shown), "{command}\n{printed}"),
            None => assert_eq!(printed, shown, "{command}"),
        }
    }
    steps.len()
}

#[test]
fn the_examples_of_the_api_do_what_is_shown() {
    let (examples, _) = API.split_once(MARK).expect("the mark");
    assert!(runs_as_shown(examples, &operated()) > 10);
}

#[test]
fn the_examples_of_operating_do_what_is_shown() {
    let section = README.split("\n## Operating it\n").nth(1).expect("a section").split("\n## ").next();
    assert!(runs_as_shown(section.expect("its end"), &operated()) > 2);
}

#[test]
fn the_reference_is_that_of_this_code() {
    let (_, reference) = API.split_once(MARK).expect("the mark");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.env_clear().args(["openapi", "--format", "markdown"]).output().expect("it runs");
    let printed = String::from_utf8(output.stdout).expect("text");
    let differs = printed.lines().zip(reference.lines()).find(|(printed, shown)| printed != shown);
    assert!(
        printed == reference,
        "put what `sluice openapi --format markdown` prints below the mark of docs/api.md; it differs at {differs:?}"
    );
}
