//! The traffic: kinds of clients, each held to limits of its own.

use fleet::{traffic::Caller, windows::Promise};
use serde_json::{Value, json};

use super::TIMEOUT_MS;

/// What a client is told by its path, and what it is promised.
pub struct Kind {
    pub name: &'static str,
    /// Of its keys, all limits that hold.
    pub promises: &'static [Promise],
    /// What each of its requests takes when it arrives.
    pub cost: u64,
    /// What comes back of it when its response has ended.
    pub refunded: u64,
    /// How many different keys.
    keys: usize,
    /// How often in a row each key comes.
    visits: usize,
    /// How often each kind comes, of the sum of all.
    weight: usize,
    /// What its response costs in truth, where it is settled.
    really: Option<u64>,
}

impl Kind {
    /// What each of its requests takes at most, now or later.
    pub fn dearest(&self) -> u64 {
        self.really.unwrap_or(0).max(self.cost)
    }

    /// Whether requests take more than they had when they arrived, so that a key may owe what came in a while.
    pub fn owes(&self) -> bool {
        self.dearest() > self.cost
    }
}

/// Decided by each Envoy itself while nobody else does: a third of the limit each, so that all three keep it together.
pub const LOCAL: &str = "local";
const SHARE_PERCENT: u64 = 33;

const fn promise(tokens: u64, period_s: u64, burst_tokens: u64) -> Promise {
    Promise { tokens, period_us: period_s * 1_000_000, burst_tokens }
}

const fn kind(name: &'static str, promises: &'static [Promise], keys: usize, weight: usize) -> Kind {
    Kind { name, promises, cost: 1, refunded: 0, keys, visits: 1, weight, really: None }
}

/// Each asks for more than it may have, so that its limits are met all the time.
const KINDS: [Kind; 8] = [
    kind("plain", &[promise(20, 1, 15)], 6, 8),
    kind("two-limits", &[promise(30, 1, 10), promise(100, 10, 60)], 4, 4),
    kind("leased", &[promise(150, 1, 100)], 2, 8),
    Kind { cost: 5, refunded: 3, really: Some(2), ..kind("refunded", &[promise(40, 1, 50)], 2, 2) },
    Kind { cost: 1, really: Some(3), ..kind("charged", &[promise(40, 1, 50)], 2, 2) },
    kind("denied", &[promise(1, 10, 1)], 1, 2),
    kind(LOCAL, &[promise(20, 1, 15)], 2, 3),
    // Ever new keys, each seldom seen again.
    Kind { visits: 3, ..kind("visitors", &[promise(1, 60, 2)], 5_000, 4) },
];

/// Who asks in turn, and of which kind and key each is.
pub struct Mix {
    callers: Vec<Caller>,
    of: Vec<(usize, usize)>,
}

impl Mix {
    pub fn new() -> Self {
        let rounds = KINDS.iter().map(|kind| kind.keys * kind.visits / kind.weight).max().unwrap_or(1);
        let (mut callers, mut of, mut seen) = (Vec::new(), Vec::new(), [0; KINDS.len()]);
        for _ in 0..rounds {
            for (number, kind) in KINDS.iter().enumerate() {
                for _ in 0..kind.weight {
                    let key = seen[number] / kind.visits % kind.keys;
                    seen[number] += 1;
                    callers.push(caller(kind, key));
                    of.push((number, key));
                }
            }
        }
        Self { callers, of }
    }

    pub fn kinds(&self) -> &'static [Kind] {
        &KINDS
    }

    pub fn callers(&self) -> &[Caller] {
        &self.callers
    }

    /// The kind of a caller, and its key.
    pub fn of(&self, caller: usize) -> (usize, usize) {
        self.of[caller]
    }

    /// The filter's configuration, in versions that decide the same.
    pub fn configuration(&self, version: u64) -> Value {
        json!({
            "sidecar": {"cluster": "sluice", "timeout": format!("{}us", TIMEOUT_MS * 1_000 - version % 2)},
            "domain": "soak",
            "on_error": "allow",
            "local": {"share_percent": SHARE_PERCENT},
            "headers": {"debug": true},
            "policies": KINDS.iter().map(policy).collect::<Value>(),
        })
    }
}

fn policy(kind: &Kind) -> Value {
    let limit = |promise: &Promise| json!({"limit": format!("{} per {}s", promise.tokens, promise.period_us / 1_000_000), "burst": promise.burst_tokens});
    let mut policy = json!({
        "name": kind.name,
        "match": {"path": {"exact": format!("/{}", kind.name)}},
        "key": [{"header": "x-api-key"}],
        "limits": kind.promises.iter().map(limit).collect::<Value>(),
        "cost": kind.cost,
    });
    if kind.name == "leased" {
        policy["lease"] = json!({"tokens": 10, "ttl": "2s"});
    }
    if kind.name == LOCAL {
        policy["on_error"] = json!("local");
    }
    if kind.name == "denied" {
        policy["on_error"] = json!("deny");
    }
    if kind.really.is_some() {
        policy["settle"] = json!({"header": "x-tokens-used", "max": 100});
    }
    policy
}

fn caller(kind: &Kind, key: usize) -> Caller {
    let mut caller = Caller::new(&format!("/{}", kind.name), "x-api-key", &format!("key-{key}"));
    if let Some(really) = kind.really {
        caller.headers.push(("x-echo-header".into(), format!("x-tokens-used: {really}")));
    }
    caller
}
