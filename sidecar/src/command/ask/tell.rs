//! Answers of the admin API as text. Whatever a client has sent, or an operator written, is shown and steers no terminal.

use std::io::Write;

use super::{
    Failed,
    words::{about, ends, grouped, instead, limit, per_second},
};
use crate::{
    admin_client::{
        Answer,
        answers::{Bucket, Counts, Latency, Log, Override, Overrides, Policy, Stats, Top},
    },
    check::finding::Shown,
    clock::Clock,
    quoted::Quoted,
};

/// How a bucket stands, line by line.
pub(in crate::command) fn bucket_lines(bucket: &Bucket) -> Vec<(&'static str, String)> {
    let Bucket { domain, policy, key, tokens, full_after_us, now_us, .. } = bucket;
    let full = match full_after_us {
        0 => "now".to_owned(),
        us => format!("in {}", about(*us)),
    };
    let holds = |of: &Override| {
        let reason = of.reason.as_deref().map(|reason| format!(": {}", Shown(reason))).unwrap_or_default();
        format!("{}, {}{reason}", instead(of), ends(of, *now_us))
    };
    vec![
        ("policy", format!("{}, domain {}", Shown(policy), Shown(domain))),
        ("key", key_name(key)),
        ("limit", limit(&bucket.limit)),
        ("override", bucket.r#override.as_ref().map_or_else(|| "none".to_owned(), holds)),
        ("tokens", grouped(*tokens)),
        ("full", full),
    ]
}

pub(super) fn bucket(answer: &Answer, to: &mut dyn Write) -> Result<(), Failed> {
    for (name, value) in bucket_lines(&answer.read()?) {
        writeln!(to, "{name:<9} {value}")?;
    }
    Ok(())
}

pub(super) fn overrides(answer: &Answer, to: &mut dyn Write) -> Result<(), Failed> {
    let Overrides { overrides } = answer.read()?;
    let now_us = Clock::start().now_us();
    for found in &overrides {
        let of = &found.r#override;
        writeln!(to, "{} {}", policy_name(&found.domain, &found.policy), key_name(&found.key))?;
        writeln!(to, "  {}, {}", instead(of), ends(of, now_us))?;
        if let Some(reason) = &of.reason {
            writeln!(to, "  {}", Shown(reason))?;
        }
    }
    if overrides.is_empty() {
        writeln!(to, "there are none")?;
    }
    Ok(())
}

pub(super) fn log(answer: &Answer, to: &mut dyn Write) -> Result<(), Failed> {
    let Log { filter } = answer.read()?;
    Ok(writeln!(to, "{}", Shown(&filter))?)
}

/// How the store does, in a few words.
pub(in crate::command) fn store(stats: &Stats) -> String {
    let store = &stats.store;
    let state = match (&store.reason, store.ready) {
        (None, true) => "ready".to_owned(),
        (Some(reason), true) => format!("ready, but {}", Shown(reason)),
        (Some(reason), false) => format!("NOT READY: {}", Shown(reason)),
        (None, false) => "NOT READY".to_owned(),
    };
    format!("{} {state}", Shown(&store.kind))
}

pub(super) fn stats(answer: &Answer, to: &mut dyn Write) -> Result<(), Failed> {
    stats_lines(&answer.read()?, to)
}

/// What was decided, how fast, and how the store does.
pub(in crate::command) fn stats_lines(stats: &Stats, to: &mut dyn Write) -> Result<(), Failed> {
    writeln!(
        to,
        "sidecar      {}, up {}",
        Shown(&stats.version),
        about(stats.uptime_s.saturating_mul(1_000_000))
    )?;
    writeln!(to, "store        {}", store(stats))?;
    writeln!(to, "connections  {} of {}", grouped(stats.connections.open), grouped(stats.connections.max))?;
    writeln!(to, "overrides    {}", grouped(stats.overrides.count))?;
    writeln!(to, "takes        {}", latency(&stats.latency_us.take))?;
    if let Some(redis) = &stats.latency_us.redis {
        writeln!(to, "Redis        {}", latency(redis))?;
    }
    writeln!(to)?;
    policies(stats, to)
}

fn latency(of: &Latency) -> String {
    let Latency { count, p50, p90, p99, max } = *of;
    if count == 0 {
        return "none in the last minute".to_owned();
    }
    let [p50, p90, p99, max] = [p50, p90, p99, max].map(about);
    format!("half within {p50}, 90% {p90}, 99% {p99}, all {max}")
}

/// Names of the columns of [`policy_cells`].
pub(in crate::command) const POLICY_COLUMNS: [&str; 6] =
    ["allowed/s", "denied/s", "repeats/s", "shadow/s", "failed/s", "p99"];

/// The rates of a policy over the last ten seconds, of which so many microseconds are counted.
pub(in crate::command) fn policy_cells(of: &Policy, covers_us: u64) -> [String; 6] {
    let Counts { allowed, denied, blocked, repeats, shadow_denied, failed, .. } = of.last_10s;
    let [allowed, denied, repeats, shadow, failed] =
        [allowed, denied.saturating_add(blocked), repeats, shadow_denied, failed]
            .map(|count| per_second(count, covers_us));
    let p99 = if of.latency_us.count == 0 { "-".to_owned() } else { about(of.latency_us.p99) };
    [allowed, denied, repeats, shadow, failed, p99]
}

/// A key that can be seen, and given back.
pub(in crate::command) fn key_name(key: &str) -> String {
    if key.is_empty() { "'' (one for all)".to_owned() } else { Quoted(key).to_string() }
}

/// The name of a policy, with its domain.
pub(in crate::command) fn policy_name(domain: &str, policy: &str) -> String {
    format!("{}/{}", Shown(domain), Shown(policy))
}

fn policies(stats: &Stats, to: &mut dyn Write) -> Result<(), Failed> {
    let rows: Vec<(String, [String; 6])> = stats
        .policies
        .iter()
        .map(|of| (policy_name(&of.domain, &of.policy), policy_cells(of, stats.covers_us)))
        .collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(14);
    write!(to, "{:width$}", "domain/policy")?;
    POLICY_COLUMNS.iter().try_for_each(|column| write!(to, " {column:>10}"))?;
    writeln!(to)?;
    for (name, cells) in &rows {
        write!(to, "{name:width$}")?;
        cells.iter().try_for_each(|cell| write!(to, " {cell:>10}"))?;
        writeln!(to)?;
    }
    Ok(())
}

/// The busiest keys, once.
pub(in crate::command) fn top(top: &Top, to: &mut dyn Write) -> Result<(), Failed> {
    writeln!(to, "{:>10} {:>10}  domain/policy key", "asked/s", "denied/s")?;
    for key in &top.keys {
        let [asked, denied] = [key.requests, key.denied].map(|count| per_second(count, top.covers_us));
        writeln!(
            to,
            "{asked:>10} {denied:>10}  {} {}",
            policy_name(&key.domain, &key.policy),
            key_name(&key.key)
        )?;
    }
    Ok(())
}
