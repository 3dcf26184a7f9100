//! What is measured: each variant is one entry of [`VARIANTS`]. The first is what the others are compared to.

use fleet::{Config, Fleet, FleetBuilder, Programs, Store};
use serde_json::{Value, json};

/// What every answer of a variant has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Below 400.
    Passed,
    /// 400 or above, once the load has warmed up.
    Denied,
}

/// A way to run Envoy.
pub struct Variant {
    /// Its name in the table and for `--only`.
    pub name: &'static str,
    /// Whether it needs a redis-server.
    pub needs_redis: bool,
    /// What every answer has to be.
    pub expect: Expect,
    /// Makes a fleet of it, given one that answers directly and has Sluice's filter.
    build: fn(FleetBuilder) -> FleetBuilder,
}

/// A variant that is up.
pub struct Running {
    /// Which.
    pub variant: &'static Variant,
    /// Its processes.
    pub fleet: Fleet,
}

static VARIANTS: [Variant; 5] = [
    Variant {
        name: "envoy",
        needs_redis: false,
        expect: Expect::Passed,
        build: |fleet| fleet.sidecars(0).adjust(|config| config.without_filters().map(drop)),
    },
    Variant {
        name: "local_ratelimit",
        needs_redis: false,
        expect: Expect::Passed,
        build: |fleet| {
            fleet.sidecars(0).adjust(|config| {
                config.without_filters()?.http_filters()?.insert(0, local_ratelimit());
                Ok(())
            })
        },
    },
    Variant {
        name: "sluice-memory",
        needs_redis: false,
        expect: Expect::Passed,
        build: |fleet| fleet.store(Store::Memory),
    },
    Variant {
        name: "sluice-redis",
        needs_redis: true,
        expect: Expect::Passed,
        build: |fleet| fleet.store(Store::Redis),
    },
    Variant {
        name: "sluice-denied",
        needs_redis: true,
        expect: Expect::Denied,
        build: |fleet| fleet.store(Store::Redis).policies(limit("1 per day", 1)),
    },
];

impl Variant {
    /// Starts it.
    pub fn start(&self, programs: &Programs) -> fleet::Result<Fleet> {
        let mut config = Config::shipped()?;
        config.answer_directly()?.without_access_log()?;
        // A limit that is never reached but slow to refill, so that every take finds a bucket that is written
        // down. At a million a second each would be full again, and gone, by the next request.
        let fleet =
            Fleet::builder().programs(programs).config(config).policies(limit("1000000 per hour", 1_000_000));
        (self.build)(fleet.concurrency(1)).start()
    }
}

/// The names, for the command line.
pub fn names() -> Vec<&'static str> {
    VARIANTS.iter().map(|variant| variant.name).collect()
}

/// Those that were named and the first, or all where none was named.
pub fn chosen(only: &[String]) -> Vec<&'static Variant> {
    let wanted =
        |index: usize, name: &str| index == 0 || only.is_empty() || only.iter().any(|one| one == name);
    VARIANTS.iter().enumerate().filter(|(index, one)| wanted(*index, one.name)).map(|(_, one)| one).collect()
}

fn limit(limit: &str, burst: u64) -> Value {
    json!([{"name": "bench", "key": [{"header": "x-api-key"}], "limit": limit, "burst": burst}])
}

fn local_ratelimit() -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "local",
            "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
            "filter_enabled": always,
            "filter_enforced": always,
        },
    })
}
