//! What an operator does by the command line, on the real program.

mod asking;
mod live;
mod reaching;
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, Output};

use support::running::{Running, ask};

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// A key that would clear the screen, name the window, turn text around and end the line.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}evil\r\n\u{9b}31m";

fn sluice(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(SLUICE);
    command.env_clear().args(words).envs(environment.iter().copied());
    command.output().expect("it runs")
}

/// What it prints where it does what it is told.
fn done(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(err.is_empty(), "{err}");
    harmless(&out)
}

/// What it says where it exits with `code`.
fn refused(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty());
    harmless(&said)
}

/// Nothing that is printed steers a terminal.
fn harmless(text: &str) -> String {
    let steers = |sign: char| (sign.is_control() && sign != '\n') || sign == '\u{202e}';
    assert!(!text.contains(steers), "{text:?}");
    text.to_owned()
}

/// A sidecar, and the environment by which commands find it.
struct Operated {
    sluice: Running,
    admin: String,
}

impl Operated {
    fn start(arguments: &[&str]) -> Self {
        let sluice = Running::start_with(arguments);
        let admin = format!("http://{}", sluice.admin);
        Self { sluice, admin }
    }

    fn command(&self, words: &[&str]) -> Output {
        sluice(words, &[("SLUICE_ADMIN", &self.admin)])
    }

    /// What a command prints.
    fn tell(&self, words: &[&str]) -> String {
        done(&self.command(words))
    }

    /// The same as JSON.
    fn json(&self, words: &[&str]) -> serde_json::Value {
        let output = self.command(&[words, &["--format", "json"]].concat());
        serde_json::from_str(&done(&output)).expect("JSON")
    }

    /// Takes so many times from a bucket of 5 tokens a day.
    fn take(&self, key: &str, times: usize) {
        take(&self.sluice.address, "shop", key, times);
    }
}

fn take(address: &str, domain: &str, key: &str, times: usize) {
    let bucket = serde_json::json!({
        "policy": "per-client", "key": key, "tokens": 5, "period_us": 86_400_000_000_u64, "burst": 5, "cost": 1,
    });
    let body = serde_json::json!({ "domain": domain, "takes": vec![serde_json::json!({ "buckets": [bucket] }); times] });
    let body = body.to_string();
    let head = "POST /v1/take HTTP/1.1\r\nhost: sluice\r\nconnection: close\r\ncontent-length:";
    let answer = ask(address, &format!("{head} {}\r\n\r\n{body}", body.len()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
