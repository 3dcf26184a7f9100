//! Asking a running sidecar, and telling what it answers.

pub(super) mod tell;
pub(super) mod words;

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Asking, BucketArgs, Format, LogArgs, OverrideArgs, PolicyArgs, RefundArgs};
use crate::{
    admin_client::{Answer, Ask, AskError, Client, bucket_path, encoded},
    check::finding::ShownJson,
    config::{AdminTarget, Args, InvalidConfig},
};

/// Why a command has not done what it was to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Misused(#[from] InvalidConfig),
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The terminal, or where the output goes.
    #[error(transparent)]
    Print(#[from] io::Error),
    /// It was told to end, by the signal of this number.
    #[error("ended by signal {0}")]
    Signalled(u8),
}

/// Tells an answer to people.
type Telling = fn(&Answer, &mut dyn Write) -> Result<(), Failed>;

/// Who asks which sidecar.
pub(super) struct Session<'a> {
    asking: &'a Asking,
    serving: &'a Args,
}

impl<'a> Session<'a> {
    pub(super) fn new(asking: &'a Asking, serving: &'a Args) -> Self {
        Self { asking, serving }
    }

    /// To one that is asked again and again.
    pub(super) fn client(&self) -> Result<Client, Failed> {
        Ok(Client::new(AdminTarget::new(&self.asking.admin, self.serving)?)?)
    }

    /// Has one answer told as people or programs want it.
    pub(super) fn print(&self, ask: &Ask, text: Telling) -> Result<(), Failed> {
        let answer = self.client()?.ask(ask)?;
        let mut out = io::stdout().lock();
        match self.asking.format {
            Format::Text => text(&answer, &mut out)?,
            Format::Json => writeln!(out, "{}", ShownJson(answer.json()?))?,
        }
        Ok(out.flush()?)
    }
}

pub(super) fn get(args: &BucketArgs, serving: &Args) -> Result<(), Failed> {
    let ask = Ask::get(path(&args.policy, &args.key, ""));
    Session::new(&args.asking, serving).print(&ask, tell::bucket)
}

pub(super) fn reset(args: &BucketArgs, serving: &Args) -> Result<(), Failed> {
    let ask = Ask::post(path(&args.policy, &args.key, "/reset"), None);
    Session::new(&args.asking, serving).print(&ask, tell::bucket)
}

pub(super) fn refund(args: &RefundArgs, serving: &Args) -> Result<(), Failed> {
    let body = json!({ "tokens": args.tokens });
    let ask = Ask::post(path(&args.policy, &args.key, "/refund"), Some(body));
    Session::new(&args.asking, serving).print(&ask, tell::bucket)
}

pub(super) fn put_override(args: &OverrideArgs, serving: &Args) -> Result<(), Failed> {
    let path = path(&args.policy, &args.key, "/override");
    let ask = if args.remove { Ask::delete(path) } else { Ask::put(path, wanted(args)) };
    Session::new(&args.asking, serving).print(&ask, tell::bucket)
}

pub(super) fn overrides(asking: &Asking, serving: &Args) -> Result<(), Failed> {
    Session::new(asking, serving).print(&Ask::get("/v1/overrides"), tell::overrides)
}

pub(super) fn stats(asking: &Asking, serving: &Args) -> Result<(), Failed> {
    Session::new(asking, serving).print(&Ask::get("/v1/stats"), tell::stats)
}

pub(super) fn log(args: &LogArgs, serving: &Args) -> Result<(), Failed> {
    let ask = match &args.filter {
        None => Ask::get("/v1/log"),
        Some(filter) => {
            let fields =
                [("filter", Some(filter.as_str().into())), ("for", args.lasting.as_deref().map(Value::from))];
            Ask::put("/v1/log", given(fields))
        }
    };
    Session::new(&args.asking, serving).print(&ask, tell::log)
}

/// What is put in the place of a limit; which of its fields go together is known by clap.
fn wanted(args: &OverrideArgs) -> Value {
    given([
        ("limit", args.limit.as_deref().map(Value::from)),
        ("burst", args.burst.map(Value::from)),
        ("unlimited", args.unlimited.then(|| true.into())),
        ("blocked", args.blocked.then(|| true.into())),
        ("expires_in", args.lasting.as_deref().map(Value::from)),
        ("reason", args.reason.as_deref().map(Value::from)),
    ])
}

/// An object of what was given.
fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect())
}

/// The path of a bucket, or of something about it, with what names it besides policy and key.
fn path(policy: &PolicyArgs, key: &str, of_it: &str) -> String {
    let burst = policy.policy_burst.map(|burst| burst.to_string());
    let fields = [("domain", &policy.domain), ("limit", &policy.policy_limit), ("burst", &burst)];
    format!("{}{of_it}{}", bucket_path(&policy.policy, key), query(fields))
}

/// What follows the path, for what was given.
pub(super) fn query<const N: usize>(fields: [(&str, &Option<String>); N]) -> String {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}
