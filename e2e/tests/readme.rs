//! What the README shows is what happens.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use fleet::{Config, Envoy, Programs, RunDir, Sidecar, free_port, http, tools};

const README: &str = include_str!("../../README.md");
const FAILURES: &str = include_str!("failures.rs");
/// What happens under load has rows too, where a reader of the table would look for it.
const FAULTS: [&str; 7] = [
    include_str!("faults/clients.rs"),
    include_str!("faults/clock.rs"),
    include_str!("faults/network.rs"),
    include_str!("faults/promotion.rs"),
    include_str!("faults/proxy.rs"),
    include_str!("faults/redis.rs"),
    include_str!("faults/sidecar.rs"),
];

fn tests(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split("#[test]\nfn ").skip(1).filter_map(|after| after.split('(').next())
}

/// The content of the code blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).filter_map(|after| after.split("```").next()).collect()
}

/// Lines without what differs from run to run: the date, the ports, and the key of a second try on a busy machine.
fn lines_as_shown(text: &str, first_port: u16) -> Vec<String> {
    let mut text = text.to_owned();
    for (index, shown) in [":10000", ":10001", ":10002"].iter().enumerate() {
        let port = usize::from(first_port) + index;
        text = text.replace(&format!(":{port}"), shown);
    }
    let shown = |line: &str| match line.split_once(": ") {
        Some((name, _)) if name.ends_with("date") || name.ends_with("x-api-key") => format!("{name}: …"),
        _ => line.trim_end().to_owned(),
    };
    text.trim().lines().map(shown).collect()
}

/// Three ports in a row that are free.
fn free_ports() -> u16 {
    let in_a_row =
        |first: &u16| (1..3).all(|next| std::net::TcpListener::bind(("127.0.0.1", first + next)).is_ok());
    (0..100).filter_map(|_| free_port().ok()).find(in_a_row).expect("three free ports")
}

#[test]
fn the_first_command_prints_what_is_shown() {
    let first_port = free_ports();
    let run = Command::new(env!("CARGO"))
        .args(["xtask", "up", "--once", "--port", &first_port.to_string()])
        .current_dir(tools::workspace())
        .output()
        .expect("cargo runs");
    let printed = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{printed}\n{}", String::from_utf8_lossy(&run.stderr));
    let shown = blocks("console")[0].strip_prefix("$ cargo xtask up --once\n").expect("the first command");
    assert_eq!(lines_as_shown(&printed, first_port), lines_as_shown(shown, 10_000));
}

#[test]
fn the_limits_that_are_shown_are_accepted() {
    let programs = Programs::from_env();
    let run = RunDir::new().expect("a directory");
    let mut config = Config::shipped().expect("the shipped configuration");
    config.wasm(programs.wasm().expect("the filter")).expect("a Wasm filter");
    let shown = Config::from_yaml(blocks("yaml")[0]).expect("YAML").tree().clone();
    *config.filter_configuration().expect("configured") = shown;
    let validation = Envoy::validate(&config, programs.envoy().expect("Envoy"), &run).expect("Envoy ran");
    assert_eq!(validation.code, Some(0), "{}", validation.output);
}

/// What `sluice` prints for the arguments that a block shows, given these limits in the file that it names.
fn printed(block: &str, limits: &str) -> String {
    let directory = RunDir::new().expect("a directory");
    fs::write(directory.path().join("limits.yaml"), limits).expect("written");
    let command = block.lines().next().and_then(|line| line.strip_prefix("$ sluice ")).expect("a command");
    // As a shell reads it: what is in quotes is one argument.
    let arguments = command.split('\'').enumerate().flat_map(|(index, part)| match index % 2 {
        1 => vec![part],
        _ => part.split_whitespace().collect(),
    });
    let mut sluice = Command::new(Programs::from_env().sluice().expect("the sidecar"));
    let run = sluice.args(arguments).current_dir(directory.path()).output().expect("sluice runs");
    format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
}

#[test]
fn what_is_told_offline_is_told_as_shown() {
    let (limits, console) = (blocks("yaml")[0], blocks("console"));
    let misspelt = limits.replace("{ header: x-api-key }", "{ heder: x-api-key }");
    for (block, limits) in [(console[1], misspelt.as_str()), (console[2], limits)] {
        let shown = block.split_once('\n').expect("a command and what it prints").1;
        assert_eq!(printed(block, limits).trim_end(), shown.trim_end());
    }
}

#[test]
fn the_take_that_is_shown_is_answered_as_shown() {
    let run = RunDir::new().expect("a directory");
    let sidecar =
        Sidecar::builder().start(Programs::from_env().sluice().expect("the sidecar"), &run).expect("started");
    let shown = blocks("console").pop().expect("a block");
    let (command, answer) = shown.split_once("'\n").expect("a command and its answer");
    let (_, body) = command.split_once("-d '").expect("a body");
    let got =
        http::post("/v1/take").body(body).send(sidecar.addr()).expect("an answer").json().expect("JSON");
    let answer = Config::from_yaml(answer).expect("JSON").tree().clone();
    assert_eq!(got["verdicts"], answer["verdicts"]);
}

#[test]
fn every_row_of_the_failure_table_has_its_test_and_every_test_its_row() {
    let table = README.split("## When things fail").nth(1).and_then(|after| after.split("\n## ").next());
    let rows = table.expect("the failure table").lines().filter(|line| line.starts_with("| "));
    // A row may name several.
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.split('|').nth(2))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let must: BTreeSet<&str> = tests(FAILURES).collect();
    let may: BTreeSet<&str> = FAULTS.into_iter().flat_map(tests).chain(must.iter().copied()).collect();
    assert!(!must.is_empty() && may.len() > must.len());
    let (untold, untested): (Vec<_>, Vec<_>) =
        (must.difference(&named).collect(), named.difference(&may).collect());
    assert!(
        untold.is_empty() && untested.is_empty(),
        "without a row: {untold:?}; without a test: {untested:?}"
    );
}
