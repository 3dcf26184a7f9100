//! What is measured: each variant is one entry of [`VARIANTS`]. The first is what the others are compared to.

use std::{net::SocketAddr, path::PathBuf};

use fleet::{Config, Endpoint, Fleet, Programs, Store, artifacts};
use serde_json::{Value, json};

use crate::Failure;

/// The domain that Envoy's own rate-limit filter asks for.
pub const RLS_DOMAIN: &str = "bench";

/// The key of its one descriptor; the value is that of the request's header of this name.
pub const RLS_DESCRIPTOR: &str = "x-api-key";

/// What every answer of a variant has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Below 400.
    Passed,
    /// The same, and nearly all are paid by leases once the load has warmed up.
    Leased {
        /// Where no more requests than this are on their way at a time.
        at_a_time: u32,
    },
    /// 429, once the load has warmed up.
    Denied,
}

/// A way to run Envoy.
pub struct Variant {
    /// Its name in the table and for `--only`.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// What every answer has to be.
    pub expect: Expect,
    /// Distinct API keys.
    pub keys: u32,
    runs: Runs,
}

/// What runs in a variant's Envoy.
enum Runs {
    /// No filter.
    Nothing,
    /// `envoy.filters.http.local_ratelimit` with this many tokens per hour.
    LocalRateLimit(u64),
    /// `envoy.filters.http.ratelimit`, which asks a service that is there already.
    RateLimitService,
    /// A Wasm filter that does nothing.
    Noop,
    /// Sluice, with its buckets in the sidecar's memory.
    InMemory(fn() -> Value),
    /// Sluice, with its buckets in Redis.
    InRedis(fn() -> Value),
}

/// What some variants need besides Envoy.
#[derive(Default)]
pub struct Surroundings {
    /// Programs of a fleet.
    pub programs: Programs,
    /// The Wasm filter that does nothing.
    pub noop: Option<PathBuf>,
    /// A rate-limit service that speaks Envoy's protocol.
    pub rls: Option<SocketAddr>,
}

/// A variant that is up.
pub struct Running {
    /// Which.
    pub variant: &'static Variant,
    /// Its processes.
    pub fleet: Fleet,
}

const KEYS: u32 = 1_000;

/// Few enough that each is hot.
const HOT_KEYS: u32 = 8;

/// Of a lease that is soon spent.
const FEW_TOKENS: u32 = 50;

static VARIANTS: &[Variant] = &[
    passing("envoy", "Envoy alone: it answers, and nothing limits", Runs::Nothing),
    passing(
        "local_ratelimit",
        "Envoy's own local_ratelimit, one bucket in the worker's memory, shared by nobody",
        Runs::LocalRateLimit(1_000_000_000),
    ),
    denying(
        "local_ratelimit-denied",
        "the same where it denies: the cheapest 429 that Envoy has",
        Runs::LocalRateLimit(1),
    ),
    passing("wasm-noop", "a Wasm filter that does nothing: what any such filter costs", Runs::Noop),
    passing(
        "envoy-ratelimit",
        "Envoy's own ratelimit filter, which asks the service of --rls by gRPC",
        Runs::RateLimitService,
    ),
    passing("sluice-memory", "Sluice with the buckets in the sidecar's memory", Runs::InMemory(one)),
    passing(
        "sluice-redis",
        "Sluice with the buckets in Redis: one policy, which takes from one bucket",
        Runs::InRedis(one),
    ),
    passing(
        "sluice-in-flight-2",
        "the same with two callouts on their way at a time",
        Runs::InRedis(|| {
            let mut value = one();
            value["sidecar"]["in_flight"] = json!(2);
            value
        }),
    ),
    passing(
        "sluice-takes-2",
        "the same with two policies that take from a bucket each",
        Runs::InRedis(|| takes(2)),
    ),
    passing("sluice-takes-3", "and with three", Runs::InRedis(|| takes(3))),
    passing(
        "sluice-policies-10",
        "Sluice with ten policies, each for a path of its own, of which one governs the request",
        Runs::InRedis(|| paths(10)),
    ),
    passing("sluice-policies-100", "and with a hundred", Runs::InRedis(|| paths(100))),
    leasing(
        "sluice-lease-auto",
        "Sluice with `lease: auto`, on 8 hot keys: leases of as many tokens as were spent lately",
        u32::MAX,
        Runs::InRedis(|| leases(json!("auto"))),
    ),
    leasing(
        "sluice-lease",
        "the same with leases of 50 tokens at most, which are soon spent",
        // The next lease is asked for when half of one is left, which has to last until it is there.
        HOT_KEYS * FEW_TOKENS / 2,
        Runs::InRedis(|| leases(json!({"tokens": FEW_TOKENS}))),
    ),
    denying(
        "sluice-denied",
        "Sluice where it denies, and remembers what was denied, as it does by itself",
        Runs::InRedis(exhausted),
    ),
    denying(
        "sluice-denied-uncached",
        "the same where the filter remembers nothing: it asks for every denial, and the sidecar remembers",
        Runs::InRedis(|| {
            let mut value = exhausted();
            value["deny_cache"] = json!({"ceiling": "0s"});
            value
        }),
    ),
];

impl Variant {
    /// Whether it needs a redis-server.
    pub fn needs_redis(&self) -> bool {
        matches!(self.runs, Runs::InRedis(_))
    }

    /// Whether it asks a rate-limit service that is there already.
    pub fn needs_rls(&self) -> bool {
        matches!(self.runs, Runs::RateLimitService)
    }

    /// Starts it.
    pub fn start(&self, around: &Surroundings) -> fleet::Result<Fleet> {
        let mut config = Config::shipped()?;
        config.without_access_log()?;
        let mut fleet = Fleet::builder().programs(&around.programs).concurrency(1);
        match &self.runs {
            Runs::Nothing => {
                config.without_filters()?;
                fleet = fleet.sidecars(0);
            }
            Runs::LocalRateLimit(tokens) => {
                config.without_filters()?.http_filters()?.insert(0, local_ratelimit(*tokens));
                fleet = fleet.sidecars(0);
            }
            Runs::RateLimitService => {
                if let Some(addr) = around.rls {
                    ask_service(&mut config, addr)?;
                }
                fleet = fleet.sidecars(0);
            }
            Runs::Noop => {
                let noop = around.noop.clone();
                fleet = fleet.sidecars(0).adjust(move |config| match &noop {
                    Some(noop) => config.wasm(noop).map(drop),
                    None => Ok(()),
                });
            }
            Runs::InMemory(filter) => fleet = fleet.filter_configuration(filter()),
            Runs::InRedis(filter) => {
                fleet = fleet.store(Store::Redis).filter_configuration(filter());
                fleet = fleet.sidecar_args(["--redis-timeout", "900ms"]);
            }
        }
        answer(&mut config)?;
        fleet.config(config).start()
    }
}

impl Surroundings {
    /// Finds and builds what these variants need.
    pub fn prepare(variants: &[&Variant], rls: Option<SocketAddr>) -> Result<Self, Failure> {
        let programs = Programs::prepare(variants.iter().any(|variant| variant.needs_redis()))?;
        let noop = variants.iter().any(|variant| matches!(variant.runs, Runs::Noop));
        let noop = if noop { Some(artifacts::wasm("sluice-noop-filter")?) } else { None };
        Ok(Self { programs, noop, rls })
    }
}

/// The names, for the command line.
pub fn names() -> Vec<&'static str> {
    VARIANTS.iter().map(|variant| variant.name).collect()
}

/// What a variant is, for people.
pub fn about(name: &str) -> Option<&'static str> {
    VARIANTS.iter().find(|variant| variant.name == name).map(|variant| variant.about)
}

/// Those that were named and the first, or all where none was named; one that asks a service only where there is one.
pub fn chosen(only: &[String], has_rls: bool) -> Result<Vec<&'static Variant>, Failure> {
    let named = |variant: &Variant| only.iter().any(|name| name == variant.name);
    if let Some(variant) = VARIANTS.iter().find(|variant| variant.needs_rls() && named(variant) && !has_rls) {
        return Err(format!("{} needs a service to ask: say --rls HOST:PORT", variant.name).into());
    }
    let all = VARIANTS.iter().enumerate();
    let wanted = all.filter(|(index, variant)| {
        *index == 0 || named(variant) || (only.is_empty() && (has_rls || !variant.needs_rls()))
    });
    Ok(wanted.map(|(_, variant)| variant).collect())
}

const fn passing(name: &'static str, about: &'static str, runs: Runs) -> Variant {
    Variant { name, about, expect: Expect::Passed, keys: KEYS, runs }
}

const fn denying(name: &'static str, about: &'static str, runs: Runs) -> Variant {
    Variant { name, about, expect: Expect::Denied, keys: KEYS, runs }
}

const fn leasing(name: &'static str, about: &'static str, at_a_time: u32, runs: Runs) -> Variant {
    Variant { name, about, expect: Expect::Leased { at_a_time }, keys: HOT_KEYS, runs }
}

/// Has Envoy answer in the place of an upstream, so that none is measured. A route with a direct response would do for all
/// but Envoy's own ratelimit filter, which asks for nothing on a route without a cluster: so a filter does, behind the
/// limits, and the route to the upstream is never taken.
fn answer(config: &mut Config) -> fleet::Result<()> {
    let filters = config.http_filters()?;
    let before_router = filters.len().saturating_sub(1);
    filters.insert(
        before_router,
        json!({
            "name": "envoy.filters.http.health_check",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
                "pass_through_mode": false,
                "headers": [{"name": ":path", "string_match": {"prefix": "/"}}],
            },
        }),
    );
    Ok(())
}

/// Sluice with these policies. A request that could not be decided is denied, so that it is not taken for one that
/// passed; the timeouts are long, so that a hiccup of the machine does not fail a run.
fn filter(policies: Value) -> Value {
    json!({
        "sidecar": {"cluster": "sluice", "timeout": "1s"},
        "domain": "bench",
        "on_error": "deny",
        "policies": policies,
    })
}

/// A limit that is never reached, but refills more slowly than it is taken from: every take finds a bucket that is
/// written down. One that is full again by the next request is forgotten, which is cheaper.
fn policy(name: &str) -> Value {
    json!({"name": name, "key": [{"header": "x-api-key"}], "limit": "1 per second", "burst": 100_000_000})
}

fn one() -> Value {
    takes(1)
}

fn takes(count: usize) -> Value {
    filter((1..=count).map(|number| policy(&format!("bench-{number}"))).collect())
}

/// The load asks for `/`, which the last one governs.
fn paths(count: usize) -> Value {
    let with_path = |number: usize| {
        let mut policy = policy(&format!("bench-{number}"));
        let path = if number == count { "/".to_owned() } else { format!("/elsewhere/{number}") };
        policy["match"] = json!({"path": {"exact": path}});
        policy
    };
    filter((1..=count).map(with_path).collect())
}

/// Half of the burst may be leased, which is more than any load takes.
fn leases(lease: Value) -> Value {
    let mut policy = policy("bench");
    policy["lease"] = lease;
    filter(json!([policy]))
}

/// A request that could not be decided passes here, so that it is not taken for one that was denied.
fn exhausted() -> Value {
    let mut policy = policy("bench");
    policy["limit"] = json!("1 per day");
    policy["burst"] = json!(1);
    policy["on_error"] = json!("allow");
    filter(json!([policy]))
}

fn local_ratelimit(tokens: u64) -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "local",
            "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "3600s"},
            "filter_enabled": always,
            "filter_enforced": always,
        },
    })
}

/// Puts Envoy's own filter in the place of Sluice's.
fn ask_service(config: &mut Config, addr: SocketAddr) -> fleet::Result<()> {
    let filter = json!({
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": RLS_DOMAIN,
            "timeout": "1s",
            "failure_mode_deny": true,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "rls"}},
            },
            "rate_limits": [{
                "actions": [{
                    "request_headers": {"header_name": "x-api-key", "descriptor_key": RLS_DESCRIPTOR},
                }],
            }],
        },
    });
    config.without_filters()?.http_filters()?.insert(0, filter);
    if let Some(clusters) = config.tree()["static_resources"]["clusters"].as_array_mut() {
        clusters.push(json!({"name": "rls", "connect_timeout": "1s"}));
    }
    config.endpoints("rls", &[Endpoint::Tcp(addr)])?.http2("rls")?;
    Ok(())
}
