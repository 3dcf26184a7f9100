//! Each command, and what it tells.

use std::process::Command;

use fleet::{Redis, RunDir};

use super::{HOSTILE, Operated, SLUICE, done, refused, sluice, support::wait_for, take};

const ALICE: [&str; 3] = ["alice", "--policy", "per-client"];

/// All commands about a bucket, in turn.
fn a_bucket_is_seen_and_filled(of: &Operated) {
    let bucket = |command, more: &[&str]| of.tell(&[&[command], &ALICE[..], more].concat());
    of.take("alice", 7);
    let empty = bucket("get", &[]);
    assert!(
        empty.contains("policy    per-client, domain shop\nkey       alice\nlimit     5 per day, burst 5\n"),
        "{empty}"
    );
    assert!(empty.contains("\noverride  none\ntokens    0\nfull      in 1day\n"), "{empty}");
    let refunded = of.tell(&["refund", "alice", "2", "--policy", "per-client"]);
    assert!(refunded.contains("\ntokens    2\n"), "{refunded}");
    let full = bucket("reset", &[]);
    assert!(full.contains("\ntokens    5\nfull      now\n"), "{full}");
}

/// What is put in the place of a limit.
fn a_limit_is_overridden(of: &Operated) {
    let bucket = |command, more: &[&str]| of.tell(&[&[command], &ALICE[..], more].concat());
    of.take("alice", 1);
    let raised = bucket(
        "override",
        &["--limit", "600 per minute", "--burst", "700", "--for", "1h", "--reason", HOSTILE],
    );
    assert!(
        raised.contains("limit     5 per day, burst 5\noverride  600 per minute, burst 700, for "),
        "{raised}"
    );
    let listed = of.tell(&["overrides"]);
    assert!(listed.starts_with("shop/per-client alice\n  600 per minute, burst 700, for "), "{listed}");
    assert!(listed.contains("\\u{1b}[2J"), "{listed}");
    assert!(bucket("override", &["--blocked"]).contains("\noverride  blocked, until it is removed\n"));
    assert!(bucket("override", &["--unlimited"]).contains("\noverride  unlimited, until it is removed\n"));
    assert_eq!(of.json(&["overrides"])["overrides"][0]["unlimited"], true);
    assert!(bucket("override", &["--remove"]).contains("\noverride  none\n"));
    assert_eq!(of.tell(&["overrides"]), "there are none\n");
    let said = refused(&of.command(&[&["override"], &ALICE[..], &["--remove"]].concat()), 1);
    assert!(said.contains("(no_override)"), "{said}");
}

#[test]
fn a_bucket_in_memory() {
    let of = Operated::start(&[]);
    a_bucket_is_seen_and_filled(&of);
    a_limit_is_overridden(&of);
}

#[test]
fn a_bucket_in_redis() {
    let run = RunDir::new().expect("a directory");
    let program = fleet::tools::redis_server().expect("redis-server is there");
    let redis = Redis::start(&program, &run, &[]).expect("Redis starts");
    let of = Operated::start(&["--redis-url", &redis.url()]);
    wait_for("Redis to be reached", || of.tell(&["stats"]).contains("redis ready").then_some(()));
    a_bucket_is_seen_and_filled(&of);
    a_limit_is_overridden(&of);
}

#[test]
fn what_is_logged_is_told_and_changed() {
    let of = Operated::start(&[]);
    assert_eq!(of.tell(&["log"]), "info\n");
    assert_eq!(of.tell(&["log", "info,sluice::store=debug"]), "info,sluice::store=debug\n");
    assert_eq!(of.tell(&["log", "debug", "--for", "1h"]), "debug\n");
    assert_eq!(of.json(&["log"])["filter"], "debug");
    for (words, code) in [
        (&["log", "inof"][..], "(invalid_filter)"),
        (&["log", "info", "--for", "soon"], "(invalid_duration)"),
    ] {
        let said = refused(&of.command(words), 1);
        assert!(said.contains(code), "{said}");
    }
    assert_eq!(of.tell(&["log"]), "debug\n", "what is refused changes nothing");
}

#[test]
fn a_policy_is_named_where_it_is_not_known() {
    let of = Operated::start(&[]);
    let said = refused(&of.command(&["get", "bob", "-p", "per-client"]), 1);
    assert!(said.contains("(unknown_policy): by --domain and --policy-limit"), "{said}");
    let by_hand = ["--domain", "shop", "--policy-limit", "5 per hour", "--policy-burst", "9"];
    let told = of.tell(&[&["get", "bob", "-p", "per-client"], &by_hand[..]].concat());
    assert!(told.contains("limit     5 per hour, burst 9\n"), "{told}");
    of.take("bob", 1);
    take(&of.sluice.address, "bank", "bob", 1);
    let said = refused(&of.command(&["get", "bob", "-p", "per-client"]), 1);
    assert!(said.contains("bank, shop") && said.contains("(ambiguous_domain): by --domain"), "{said}");
    assert!(of.tell(&["get", "bob", "-p", "per-client", "--domain", "bank"]).contains("domain bank\n"));
}

#[test]
fn what_is_decided_is_told() {
    let of = Operated::start(&[]);
    assert!(of.tell(&["stats"]).contains("takes        none in the last minute\n"));
    of.take("alice", 7);
    of.take("", 1);
    let stats = of.tell(&["stats"]);
    for line in
        ["sidecar      0.", "store        memory ready\n", "overrides    0\n", "takes        half within "]
    {
        assert!(stats.contains(&format!("\n{line}")) || stats.starts_with(line), "{line}: {stats}");
    }
    let policy = stats.lines().find(|line| line.starts_with("shop/per-client ")).expect("a line");
    assert!(!policy.contains(" 0.0        0.0        0.0        0.0        0.0"), "{policy}");
    let totals = of.json(&["stats"])["totals"].clone();
    assert_eq!((&totals["allowed"], &totals["denied"]), (&6.into(), &2.into()), "{totals}");
}

#[test]
fn the_busiest_keys_are_told_once_where_nobody_watches() {
    let of = Operated::start(&[]);
    of.take("alice", 9);
    of.take("", 2);
    of.take(HOSTILE, 30);
    let keys = |words: &[&str]| -> Vec<String> {
        let told = of.tell(words);
        let keys = told.split("domain/policy key\n").nth(1).expect("keys").lines();
        keys.map(|line| line.split_once("shop/per-client ").expect("a key").1.to_owned()).collect()
    };
    let hostile = r"$'\033[2J\033]0;owned\007\342\200\256evil\r\n\302\23331m'".to_owned();
    // Once by being told to, and once because the output is no terminal.
    assert_eq!(keys(&["top", "--once"]), [hostile.as_str(), "alice", "'' (one for all)"]);
    assert_eq!(keys(&["top", "--by", "denied"]), [hostile.as_str(), "alice"]);
    assert_eq!(keys(&["top", "--limit", "1"]), [hostile.as_str()]);
    assert!(keys(&["top", "--domain", "bank"]).is_empty());
    let found = of.json(&["top", "--by", "denied", "--window", "60"]);
    assert_eq!((&found["by"], &found["keys"][0]["key"]), (&"denied".into(), &HOSTILE.into()), "{found}");
}

#[test]
fn hostile_keys_are_asked_for_as_they_are_and_shown_so_that_they_do_nothing() {
    let of = Operated::start(&[]);
    let long = "k".repeat(1_000);
    for key in [HOSTILE, "", ".", "..", "a/b", "a%2Fb", "?x#y&z=1", "--", "ключ 🔑", &long] {
        of.take(key, 2);
        let told = of.tell(&["get", "--policy", "per-client", "--", key]);
        assert!(told.contains("\ntokens    3\n"), "{key:?}: {told}");
        let json = of.command(&["get", "--policy", "per-client", "--format", "json", "--", key]);
        let json: serde_json::Value = serde_json::from_str(&done(&json)).expect("JSON");
        assert_eq!(json["key"], key);
    }
}

#[test]
fn a_key_is_given_back_to_a_shell_as_it_is_shown() {
    let of = Operated::start(&[]);
    for key in [HOSTILE, "", "(one for all)", r"\u{1b}[2J", "it's \u{9b}", "it's", r"$'\033'", "~", "a b;c"] {
        of.take(key, 2);
        let told = of.tell(&["get", "--policy", "per-client", "--", key]);
        let shown = told.lines().find_map(|line| line.strip_prefix("key       ")).expect("a key");
        let shown = shown.strip_suffix(" (one for all)").unwrap_or(shown);
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec \"$0\" get --policy per-client --format json -- {shown}"), SLUICE]);
        let given = bash.env("SLUICE_ADMIN", &of.admin).output().expect("bash is there");
        let bucket: serde_json::Value = serde_json::from_str(&done(&given)).expect("JSON");
        assert_eq!((&bucket["key"], &bucket["tokens"]), (&key.into(), &3.into()), "{shown}");
    }
}

#[test]
fn what_is_missing_or_too_much_ends_with_64() {
    for (words, said) in [
        (&["get"][..], "--policy"),
        (&["get", "alice"], "--policy"),
        (&["refund", "alice", "-p", "x"], "<TOKENS>"),
        (&["refund", "alice", "many", "-p", "x"], "many"),
        (&["override", "alice", "-p", "x"], "--unlimited"),
        (&["override", "alice", "-p", "x", "--blocked", "--unlimited"], "cannot be used with"),
        (&["override", "alice", "-p", "x", "--blocked", "--burst", "1"], "cannot be used with"),
        (&["override", "alice", "-p", "x", "--remove", "--for", "1h"], "cannot be used with"),
        (&["get", "alice", "-p", "x", "--policy-limit", "1/s"], "--domain"),
        (&["top", "--limit", "101"], "100"),
        (&["top", "--window", "9"], "10"),
        (&["log", "--for", "1h"], "<FILTER>"),
        (&["stats", "--admin", "10.0.0.7:9091"], "Write http://"),
        (&["stats", "--admin-token-file", "/nowhere"], "/nowhere cannot be read"),
        (&["--admin-listen", "off", "stats"], "--admin-listen is off"),
    ] {
        let told = refused(&sluice(words, &[]), 64);
        assert!(told.contains(said), "{words:?}: {told}");
    }
}
