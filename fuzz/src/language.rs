//! The configuration's grammar, as data: what a careful author writes, and what is written by a slip.

/// What may be written in one place.
pub enum Rule {
    /// One of the first texts; by a slip one of the second.
    Word(&'static [&'static str], &'static [&'static str]),
    /// One of the first numbers; by a slip one of the second.
    Number(&'static [u64], &'static [u64]),
    /// Any text, often one of these.
    Text(&'static [&'static str]),
    /// True or false.
    Bool,
    /// By one of these rules.
    OneOf(&'static [&'static Rule]),
    /// One to four of them; by a slip none, or very many.
    List(&'static Rule),
    /// These fields.
    Map(&'static [(&'static str, Need, &'static Rule)]),
    /// Fields of some of the first names; by a slip of the second.
    Named(&'static [&'static str], &'static [&'static str], &'static Rule),
    /// The fields of both mappings.
    Both(&'static Rule, &'static Rule),
    /// A mapping with this field, which by a slip is nested in itself.
    Nested(&'static str, &'static Rule),
}

/// Whether a field must be written.
#[derive(Clone, Copy)]
pub enum Need {
    /// It must.
    Must,
    /// It has a default.
    May,
}

use Need::{May, Must};
use Rule::{Bool, Both, List, Map, Named, Nested, Number, OneOf, Text, Word};

/// Texts that somebody hopes nobody has thought of.
#[rustfmt::skip]
pub const HOSTILE: &[&str] = &[
    "a", "", "%", "%%", "%POLICY%", "%RETRY_AFTER%", "%NOBODY%", "=", ",", "a,b=c", "*sha256:", "\r\n", "\0", "\u{7f}", "é",
    "\u{202e}", "`", "`name`", "\"", "\\", "(", "(a*)*$", "(a{99}){99}", "(?i)\\pL{200}", "[", "policies", "limit",
    "x-api-key", "X-Api-Key", ":path", "null", "-1", "1e9", "18446744073709551616", "60 per minute", "1/0s",
    "1 per 584542y", "5xx", "NaN", "10.0.0.0/33", "::1/129", "*.", "*.*.a", "/", "?", "/a?b", "yes", "joe b 1C",
];

/// Few names, so that some are the same, or become the same once a limit's time or name is added to them.
const NAME: Rule = Word(&["a", "b", "c", "a.1s", "a.1d", "b.x", "per-client", "A"], &["é", "a b", "", "x/y"]);
const HEADER: Rule =
    Word(&["x-a", "X-A", "x-b", "x-cost", "x-tokens-used"], &["cookie", ":path", ":authority", "x a", ""]);
const NAMES: &[&str] = &["a", "b", "session", "user", "%61"];
const NAMED: Rule = Word(NAMES, &["a=b", ";", ""]);
const PATH: Rule = Word(&["/", "/a", "/a/b", "/%2e%2e/"], &["a", "/a?b", ""]);
#[rustfmt::skip]
const REGEX: Rule = Word(
    &["/a.*", ".*", "(a|b)+c?", "(?i)gold", "\\d{1,3}", "(?s-u:.)*", "[^/]+", "a{20}"],
    &["(a{99}){99}", "((a{9}){9}){9}", "(a*)*$", "[", "\\pL{250}", "(?=a)", "\\1"],
);
const HOST: Rule = Word(
    &["api.example.com", "*.example.org", "A.example", "a", "localhost"],
    &["[::1]", "a:80", "*.", "*", "a.*", ""],
);
#[rustfmt::skip]
const NETWORK: Rule = Word(
    &["10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "0.0.0.0/0", "::1"],
    &["10.0.0.1/8", "::ffff:10.0.0.0/104", "10.0.0.0/33", "x", ""],
);
const METHOD: Rule = Word(&["GET", "POST", "M-SEARCH"], &["get", ""]);
#[rustfmt::skip]
const RATE: Rule = OneOf(&[
    &Word(
        &["60 per minute", "5 per 12s", "1000/day", "1 per second", "10 per second", "1 per 1us", "60 per 1h 30m"],
        &[
            "9007199254 per second", "1 per 104249days", "0 per minute", "1 per 0s", "1.5 per hour",
            "18446744073709551615/s", "60 per month", "60", "",
        ],
    ),
    &Map(&[("tokens", Must, &WHOLE), ("per", Must, &Word(&["minute", "12s", "1h 30m"], &["0s", "year", ""]))]),
]);
const DURATION: Rule =
    Word(&["5s", "1s", "60s"], &["50ms", "0s", "1us", "1h", "61s", "1M", "584554051223years", "-1s"]);
const WHOLE: Rule = Number(&[1, 2, 60, 100, 1_000], &[0, 1 << 40, (1 << 53) - 1, 1 << 53, u64::MAX]);
const COSTS: Rule = Number(&[1, 2, 5], &[0, 1 << 40, (1 << 53) - 1, 1 << 53, u64::MAX]);
const BITS: Rule = Number(&[32, 24, 8, 1, 0], &[33, 64, 128, 129, 255, 256, u64::MAX]);
const SEGMENTS: Rule = Number(&[1, 2, 32], &[0, 33, u64::MAX]);
const PERCENT: Rule = OneOf(&[
    &Number(&[10, 50, 100], &[0, 101, u64::MAX]),
    &Word(&["2.5", "0.0001", "99.9999"], &["100.0001", "1.23456", "-0", "1.", ""]),
]);
const STATUS: Rule =
    OneOf(&[&Number(&[404, 500, 100, 599], &[99, 600]), &Word(&["5xx", "4xx"], &["6xx", "0xx", "xx"])]);
const ON_ERROR: Rule = Word(&["allow", "deny", "local", "local"], &["pass", ""]);
const SHARE: Rule = OneOf(&[
    &Number(&[1, 34, 50, 100], &[0, 101, u64::MAX]),
    &Word(&["2.5", "0.0001"], &["0.0", "100.0001", ""]),
]);
/// YAML makes a boolean of a bare `off`.
const MODE: Rule =
    OneOf(&[&Word(&["enforce", "shadow", "off"], &["on", ""]), &Word(&["enforce", "shadow"], &[])]);
const TEXTS: Rule = List(&Word(&["a", "b", "sub", "tenant", "a,b=%"], &["", "\0", "a\0b"]));

const TEST: Rule = OneOf(&[
    &Word(&["present"], &["absent"]),
    &Map(&[("exact", Must, &Text(&["gold", "1"]))]),
    &Map(&[("prefix", Must, &Text(&["a"]))]),
    &Map(&[("suffix", Must, &Text(&["a"]))]),
    &Map(&[("regex", Must, &REGEX)]),
]);
const PATH_TEST: Rule = OneOf(&[
    &Map(&[("prefix", Must, &PATH)]),
    &Map(&[("exact", Must, &PATH)]),
    &Map(&[("regex", Must, &REGEX)]),
]);
const CLAIM: Rule = OneOf(&[&Word(&["sub", "tier"], &[""]), &TEXTS]);

static CONDITION: Rule = Map(&[
    ("path", May, &PATH_TEST),
    ("method", May, &List(&METHOD)),
    ("host", May, &List(&HOST)),
    (
        "header",
        May,
        &Named(&["x-a", "X-B", "content-type", "x-tier"], &["x a", "cookie", ":path", ""], &TEST),
    ),
    ("query", May, &Named(NAMES, &["a=b", ";", ""], &TEST)),
    ("cookie", May, &Named(NAMES, &["a=b", ";", ""], &TEST)),
    ("client_address", May, &List(&NETWORK)),
    ("route_name", May, &TEXTS),
    (
        "jwt_claim",
        May,
        &Map(&[("payload", Must, &Word(&["jwt"], &[""])), ("claim", Must, &CLAIM), ("is", Must, &TEST)]),
    ),
    (
        "dynamic_metadata",
        May,
        &Map(&[
            ("namespace", Must, &Word(&["ns"], &["", "a\0b"])),
            ("path", Must, &TEXTS),
            ("is", Must, &TEST),
        ]),
    ),
    ("percent", May, &PERCENT),
    ("not", May, &OneOf(&[&CONDITION, &Nested("not", &CONDITION)])),
    ("any", May, &List(&CONDITION)),
    ("all", May, &List(&CONDITION)),
]);

const METADATA: Rule = Map(&[
    ("namespace", Must, &Word(&["ns", "envoy.filters.http.jwt_authn"], &["", "a\0b"])),
    ("path", Must, &TEXTS),
]);

static PART: Rule = OneOf(&[
    &Word(&["client_address", "path", "method", "host", "route_name"], &["header", "nobody", ""]),
    &Map(&[("client_address", Must, &Map(&[("ipv4_prefix", May, &BITS), ("ipv6_prefix", May, &BITS)]))]),
    &Map(&[("header", Must, &HEADER), ("hash", May, &Bool)]),
    &Map(&[("cookie", Must, &NAMED), ("hash", May, &Bool)]),
    &Map(&[("query", Must, &NAMED), ("hash", May, &Bool)]),
    &Map(&[("path", Must, &Map(&[("segments", May, &SEGMENTS)]))]),
    &Map(&[("route_metadata", Must, &METADATA)]),
    &Map(&[("listener_metadata", Must, &METADATA)]),
    &Map(&[("dynamic_metadata", Must, &METADATA), ("hash", May, &Bool)]),
    &Map(&[("jwt_claim", Must, &Map(&[("payload", Must, &Word(&["jwt"], &[""])), ("claim", Must, &CLAIM)]))]),
    &Map(&[("client_certificate", Must, &Word(&["uri_san", "dns_san", "digest", "subject"], &["issuer"]))]),
    &Map(&[("filter_state", Must, &Word(&["my.key", "é,=%"], &["", "\0"]))]),
    &Map(&[("text", Must, &Word(&["v2", "é,=%", ""], &[]))]),
    &Map(&[("first_of", Must, &List(&CHOICE))]),
    &Nested("first_of", &List(&CHOICE)),
]);

const CHOICE: Rule = OneOf(&[
    &Word(&["client_address", "route_name"], &["path", ""]),
    &Map(&[("header", Must, &HEADER)]),
    &Map(&[("cookie", Must, &NAMED), ("hash", May, &Bool)]),
    &Map(&[("query", Must, &NAMED)]),
]);

const COST: Rule = OneOf(&[
    &COSTS,
    &Map(&[
        ("header", Must, &HEADER),
        ("default", May, &Number(&[5, 7], &[0, 1 << 53])),
        ("min", Must, &Number(&[1, 2, 5], &[0, 1 << 53])),
        ("max", Must, &Number(&[10, 7, 100], &[1, 0, (1 << 53) - 1, 1 << 53, u64::MAX])),
    ]),
]);
const SETTLE: Rule = OneOf(&[
    &Map(&[("header", Must, &HEADER), ("max", Must, &WHOLE)]),
    &Map(&[("bytes_per_token", Must, &WHOLE), ("max", Must, &WHOLE)]),
]);
const FILLED: Rule = Word(
    &["%POLICY%", "%LIMIT% %REMAINING% %RETRY_AFTER% 100%%", "plain", "é", ""],
    &["%", "%NOBODY%", "a\r\nb: c", "\0", "%POLICY"],
);
const DENIED: Rule = Map(&[
    ("status", May, &Number(&[429, 400, 599], &[399, 600, 65_536 + 429])),
    (
        "headers",
        May,
        &Named(
            &["x-a", "X-A", "content-type", "retry-after", "x-ratelimit-limit"],
            &[":status", "connection", "x a", ""],
            &FILLED,
        ),
    ),
    ("body", May, &FILLED),
]);

const LEASE: Rule = OneOf(&[
    &Word(&["auto"], &["always", ""]),
    &Map(&[
        ("tokens", May, &OneOf(&[&Word(&["auto"], &["many"]), &Number(&[1, 50], &[0, 1 << 53])])),
        ("ttl", May, &DURATION),
        ("share_percent", May, &Number(&[1, 50, 100], &[0, 101])),
    ]),
]);

const ONE_LIMIT: Rule = Map(&[("limit", Must, &RATE), ("burst", May, &WHOLE)]);
const SEVERAL_LIMITS: Rule = Map(&[(
    "limits",
    Must,
    &List(&Map(&[("limit", Must, &RATE), ("burst", May, &WHOLE), ("name", May, &NAME)])),
)]);

static POLICY: Rule = Both(
    &OneOf(&[&ONE_LIMIT, &SEVERAL_LIMITS]),
    &Map(&[
        ("name", Must, &NAME),
        ("match", May, &CONDITION),
        ("key", Must, &List(&PART)),
        ("missing", May, &Word(&["share", "skip"], &["deny"])),
        ("cost", May, &COST),
        ("lease", May, &LEASE),
        ("settle", May, &SETTLE),
        ("refund_on", May, &List(&STATUS)),
        ("mode", May, &MODE),
        ("enforce_percent", May, &PERCENT),
        ("only_if_chosen", May, &Bool),
        ("on_error", May, &ON_ERROR),
        ("local", May, &Map(&[("share_percent", Must, &SHARE)])),
        ("denied", May, &DENIED),
    ]),
);

/// A whole configuration.
pub static CONFIGURATION: Rule = Map(&[
    (
        "sidecar",
        Must,
        &Map(&[
            ("cluster", Must, &Word(&["sluice"], &["", "\r"])),
            ("timeout", May, &DURATION),
            ("in_flight", May, &Number(&[1, 2, 32], &[0, 33])),
        ]),
    ),
    ("domain", May, &NAME),
    ("on_error", May, &ON_ERROR),
    (
        "local",
        May,
        &Map(&[
            ("share_percent", May, &SHARE),
            ("buckets", May, &Number(&[16, 16_384, 1_000_000], &[0, 15, 1_000_001])),
        ]),
    ),
    ("mode", May, &MODE),
    ("hash_secret", Must, &Word(&["at least 16 bytes"], &["short", ""])),
    ("skip", May, &List(&CONDITION)),
    (
        "deny_cache",
        May,
        &Map(&[("ceiling", May, &DURATION), ("entries", May, &Number(&[0, 1, 4_096, 100_000], &[100_001]))]),
    ),
    ("tracing", May, &Bool),
    (
        "headers",
        May,
        &Map(&[
            ("x_ratelimit", May, &Bool),
            ("ratelimit", May, &Bool),
            ("retry_after", May, &OneOf(&[&Bool, &Map(&[("jitter", Must, &DURATION)])])),
            ("upstream", May, &Word(&["replace", "keep", "append"], &["drop"])),
            ("debug", May, &Bool),
        ]),
    ),
    ("denied", May, &DENIED),
    ("policies", Must, &List(&POLICY)),
]);

/// What a route says in its metadata.
pub static ROUTE: Rule = Map(&[
    ("skip", May, &Bool),
    ("policies", May, &List(&Word(&["several", "half", "chosen", "address", "headers"], &["a", ""]))),
    ("cost", May, &WHOLE),
    ("mode", May, &MODE),
]);
