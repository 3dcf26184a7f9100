//! What is asked of a running sidecar: the arguments of the commands that do so.

use clap::{ArgGroup, Args, Parser, ValueEnum};

use super::Format;
use crate::config::AdminArgs;

const AFTER_BUCKET_HELP: &str = "\
Examples:
  sluice get 'header:x-api-key=alice' --policy per-client
  sluice reset 'header:x-api-key=alice' --policy per-client
  sluice refund 'header:x-api-key=alice' 5 --policy per-client --admin https://10.0.0.7:9091
  sluice get '' --policy all                      where one bucket is for all

Exit codes:
  0   it was told or done, and the bucket is printed as it stands
  1   no sidecar answers, or it refuses and says why
  64  the command line or the environment is wrong";

const AFTER_OVERRIDE_HELP: &str = "\
Examples:
  sluice override alice --policy per-client --limit '600 per minute' --for 1h --reason 'a launch'
  sluice override mallory --policy per-client --blocked
  sluice override alice --policy per-client --remove

Exit codes:
  0   it holds at this sidecar, and within a second at all that share its store
  1   no sidecar answers, or it refuses and says why
  64  the command line or the environment is wrong";

const AFTER_TOP_HELP: &str = "\
Keys:
  q, Esc      leave                     r, d, tab   by requests or by denials
  up, down    choose a key              Enter       show its bucket; Esc closes it
  R           fill its bucket, once y has been pressed

Examples:
  sluice top
  sluice top --by denied --policy per-client
  sluice top --once --format json --admin https://10.0.0.7:9091

Exit codes:
  0   it was left, or told once
  1   no sidecar answers, or it refuses and says why, or the terminal is gone
  64  the command line or the environment is wrong
  129, 130, 143   it was ended by SIGHUP, SIGINT or SIGTERM, and the terminal is as it was";

const AFTER_LOG_HELP: &str = "\
Examples:
  sluice log
  sluice log info,sluice::store=debug --for 10m

Exit codes:
  0   what is logged was told, or changed
  1   no sidecar answers, or it refuses and says why
  64  the command line or the environment is wrong";

/// How a sidecar is asked, and how its answer is printed.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Asking {
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub admin: AdminArgs,

    /// For people, or what the API answered
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// A bucket, and how the sidecar is asked.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = AFTER_BUCKET_HELP)]
pub struct BucketArgs {
    /// Whose bucket: the key as `sluice top` and `sluice explain` tell it, in the quotes that they may put it in
    pub key: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub policy: PolicyArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub asking: Asking,
}

/// Which policy's.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PolicyArgs {
    /// The policy; of one with several limits its name, a dot and the name of the limit
    #[arg(short, long, value_name = "NAME")]
    pub policy: String,

    /// The domain, where several have such a policy
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,

    /// The limit of the policy, such as '60 per minute', where the sidecar was not asked for it yet; with --domain
    #[arg(long, value_name = "LIMIT", requires = "domain")]
    pub policy_limit: Option<String>,

    /// The burst of that limit; by default its number
    #[arg(long, value_name = "TOKENS", requires = "policy_limit")]
    pub policy_burst: Option<u64>,
}

/// What to return to a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_BUCKET_HELP)]
pub struct RefundArgs {
    /// Whose bucket: the key as `sluice top` and `sluice explain` tell it, in the quotes that they may put it in
    pub key: String,

    /// So many, and never more than the bucket holds
    pub tokens: u64,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub policy: PolicyArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub asking: Asking,
}

/// What to put in the place of a bucket's limit.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_OVERRIDE_HELP)]
#[command(group(ArgGroup::new("instead").required(true).args(["limit", "unlimited", "blocked", "remove"])))]
pub struct OverrideArgs {
    /// Whose bucket: the key as `sluice top` and `sluice explain` tell it, in the quotes that they may put it in
    pub key: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub policy: PolicyArgs,

    /// Another limit, such as '600 per minute'
    #[arg(long, value_name = "LIMIT")]
    pub limit: Option<String>,

    /// The burst of --limit; by default its number
    #[arg(long, value_name = "TOKENS", requires = "limit", conflicts_with_all = ["unlimited", "blocked", "remove"])]
    pub burst: Option<u64>,

    /// Nothing is denied
    #[arg(long)]
    pub unlimited: bool,

    /// Everything is denied
    #[arg(long)]
    pub blocked: bool,

    /// The policy's own limit holds again
    #[arg(long, conflicts_with_all = ["lasting", "reason"])]
    pub remove: bool,

    /// How long it holds, such as 30m or 1h; by default until it is removed
    #[arg(id = "lasting", long = "for", value_name = "DURATION")]
    pub lasting: Option<String>,

    /// Why, for whoever sees it later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub asking: Asking,
}

/// What to show of the busiest keys.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_TOP_HELP)]
pub struct TopArgs {
    /// The hottest keys, or the most denied
    #[arg(long, default_value = "requests")]
    pub by: By,

    /// So many keys at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub limit: u32,

    /// Over how many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(10..=60))]
    pub window: u32,

    /// Only those of this domain
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,

    /// Only those of this policy
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,

    /// Tell it once; so it is also where the output is no terminal
    #[arg(long)]
    pub once: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub asking: Asking,
}

/// What keys are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Who asks most.
    Requests,
    /// Who is denied most.
    Denied,
}

impl By {
    /// As the API has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Denied => "denied",
        }
    }
}

/// What to log.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_LOG_HELP)]
pub struct LogArgs {
    /// From now on: error, warn, info, debug or trace, also by module; without it, what is logged now is told
    pub filter: Option<String>,

    /// After which time it is again as it was, such as 10m; by default never
    #[arg(id = "lasting", long = "for", value_name = "DURATION", requires = "filter")]
    pub lasting: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the command's")]
    pub asking: Asking,
}
