//! The command line: what the program is to do, as it is written.

mod ask;
mod line;
mod man;
mod offline;
mod online;
mod print;
mod reference;
mod run;
mod top;

use clap::{Parser, Subcommand, ValueEnum};

pub use offline::{CheckArgs, CompletionsArgs, DocumentFormat, ExplainArgs, ManArgs, OpenapiArgs};
pub use online::{Asking, BucketArgs, By, LogArgs, OverrideArgs, PolicyArgs, RefundArgs, TopArgs};
pub use run::{complain, misused, run};

use crate::config::Args;
use crate::replay::args::ReplayArgs;

/// Decides rate limits for a fleet of Envoys: the sidecar that their sluice filter asks.
///
/// Without --redis-url buckets are kept in this process: exact for the Envoys that share this one sidecar. With it,
/// they are kept in Redis and exact for all sidecars together.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct CommandLine {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the program's")]
    pub args: Args,
}

/// What the program does.
#[derive(Clone, Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, and it is read once")]
pub enum Command {
    /// Decide takes until told to stop: what sluice does without a command, with the same flags
    Serve(Box<Args>),
    /// Something else.
    #[command(flatten)]
    Task(Task),
}

/// What the program does besides serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Ask the sidecar that runs with the same --listen whether it is ready; exits with 0 or 1
    Health,
    /// Show the hottest and the most denied keys, and how the policies and the store do, as it happens
    Top(TopArgs),
    /// Tell how a bucket stands
    Get(BucketArgs),
    /// Fill a bucket
    Reset(BucketArgs),
    /// Return tokens to a bucket
    Refund(RefundArgs),
    /// Put another limit, or none, or a block in the place of a bucket's limit
    Override(OverrideArgs),
    /// List what operators have put in the place of limits
    Overrides(Asking),
    /// Tell what was decided, how fast, and how the store does
    Stats(Asking),
    /// Tell what a sidecar logs, or change it while it runs
    Log(LogArgs),
    /// Tell what is wrong with the limits in envoy.yaml, and what is hardly meant
    ///
    /// Checks every Sluice filter in the files, wherever it stands, by the filter's own code and as Envoy reads YAML:
    /// in Envoy's configuration (listeners, discovery files, ConfigMaps), in Istio's WasmPlugin, in Envoy Gateway's
    /// EnvoyExtensionPolicy, or as policies in a file of their own. Warns of what Envoy accepts and hardly anybody
    /// means.
    Check(CheckArgs),
    /// Tell which policies govern a request, from whose buckets it takes, and how much
    ///
    /// Nothing is asked and nothing is counted: the policies of every Sluice filter in the file are applied to the
    /// request by the filter's own code. What is chosen at random is told as a share.
    Explain(ExplainArgs),
    /// Tell what a configuration would have denied of the requests in access logs
    ///
    /// Nothing is asked and nothing is denied: each request of the logs is applied to the policies of every Sluice filter
    /// in the file by the filter's own code, and to buckets that stand as they would have at its time. It begins with full
    /// buckets.
    Replay(ReplayArgs),
    /// Print the JSON Schema of the filter's configuration, for editors
    Schema,
    /// Print the OpenAPI document of the admin API, or its reference in Markdown
    Openapi(OpenapiArgs),
    /// Print what a shell needs to complete this command line
    Completions(CompletionsArgs),
    /// Print the manual's page, or write all pages
    Man(ManArgs),
}

/// How something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

const AFTER_HELP: &str = "\
Examples:
  sluice                                          one machine, nothing installed
  sluice --redis-url redis://redis.internal       many sidecars, one truth
  sluice --redis-url redis+cluster://n1,n2,n3     the same on a Redis Cluster
  sluice --listen unix:/run/sluice/sluice.sock    for an Envoy on the same host
  sluice health                                   is it ready? for containers, which have no curl
  sluice top                                      who asks most, and who is denied most, as it happens
  sluice override KEY -p per-client --limit 9/s   another limit for one client, without a deploy
  sluice check envoy.yaml                         what is wrong with the limits in it
  sluice explain envoy.yaml --request 'GET /'     which of them govern a request
  sluice replay --config envoy.yaml access.log    what they would have denied
  sluice man | man -l -                           all of it, to read
  curl -s 127.0.0.1:9090/v1/take -d '{\"domain\":\"shop\",\"takes\":[{\"buckets\":[{\"policy\":\"per-client\",
    \"key\":\"alice\",\"tokens\":60,\"period_us\":60000000,\"burst\":60,\"cost\":1}]}]}'

Paths:
  POST /v1/take   decide a batch of takes
  GET /healthz    200 while the process is alive
  GET /readyz     200 while the store decides in time and this sidecar stays, otherwise 503 and the reason
  GET /v1/stats   on --admin-listen only: what was decided, in JSON; so are /v1/status, /v1/top, /v1/overrides,
                  /v1/buckets/{policy}/{key} and what else docs/api.md and `sluice openapi` tell of

Exit codes:
  0   stopped by SIGTERM or SIGINT, requests under way answered
  1   a listener could not be opened, or the process failed; from health: not ready; from check
      explain and replay: something is wrong with a file; from what asks a sidecar: it is not there, or refuses
  64  the command line or the environment is wrong";
