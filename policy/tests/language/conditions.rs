//! Which requests a policy governs.

use serde_json::{Value, json};

use crate::sent::{Sent, asks, error, governs, policy, read};

fn all_of(condition: &Value, cases: &[(Sent, bool)]) {
    for (sent, expected) in cases {
        assert_eq!(governs(condition, sent), *expected, "{condition} of {sent:?}");
    }
}

#[test]
fn a_path_is_compared_without_its_query() {
    let sent = |path: &str| Sent::get(path);
    all_of(
        &json!({"path": {"exact": "/login"}}),
        &[
            (sent("/login"), true),
            (sent("/login?x"), true),
            (sent("/login#x"), true),
            (sent("/login/"), false),
        ],
    );
    all_of(
        &json!({"path": {"prefix": "/api"}}),
        &[(sent("/api"), true), (sent("/apis"), true), (sent("/x?/api"), false)],
    );
    let regex = json!({"path": {"regex": "/v[0-9]+/(users|orders)"}});
    all_of(
        &regex,
        &[
            (sent("/v12/users?x"), true),
            (sent("/v12/orders"), true),
            // The whole of it must match.
            (sent("/v12/users/x"), false),
            (sent("/x/v12/users"), false),
            (sent("/v/users"), false),
        ],
    );
    let without = Sent::default().header(":method", "CONNECT");
    for form in [json!({"prefix": "/"}), json!({"exact": "/"}), json!({"regex": ".*"})] {
        assert!(!governs(&json!({"path": form}), &without), "without a path no condition on it is met");
    }
}

#[test]
fn a_regex_that_looks_like_two_is_still_one() {
    // Were it pasted between ^ and $ without a group, it would match what merely begins with a.
    all_of(
        &json!({"path": {"regex": "/a|/b"}}),
        &[(Sent::get("/ax"), false), (Sent::get("/xb"), false), (Sent::get("/b"), true)],
    );
}

#[test]
fn values_are_compared_as_bytes() {
    let with = |value: &[u8]| Sent::get("/").header("x-tier", value);
    let test = |test: Value| json!({"header": {"X-Tier": test}});
    all_of(&test(json!("present")), &[(with(b""), true), (with(b"\xff"), true), (Sent::get("/"), false)]);
    all_of(
        &test(json!({"exact": "gold"})),
        &[(with(b"gold"), true), (with(b"Gold"), false), (with(b""), false)],
    );
    all_of(&test(json!({"exact": ""})), &[(with(b""), true), (Sent::get("/"), false)]);
    all_of(&test(json!({"prefix": "go"})), &[(with(b"go\xff"), true), (with(b"g"), false)]);
    all_of(&test(json!({"suffix": "ld"})), &[(with(b"\xffld"), true), (with(b"d"), false)]);
    all_of(&test(json!({"regex": "g.*d"})), &[(with(b"g\xffd"), true), (with(b"xgd"), false)]);
}

#[test]
fn everything_a_request_has_can_be_a_condition() {
    let sent = Sent::get("/?version=%32&x")
        .method("POST")
        .header(":authority", "api.example.com:443")
        .header("cookie", "beta=yes")
        .attribute("xds|route_name", "checkout")
        .attribute("metadata|filter_metadata|envoy.filters.http.jwt_authn|jwt|tier", "gold")
        .attribute("metadata|filter_metadata|ns|a|b", 7.0_f64.to_le_bytes());
    for (condition, expected) in [
        (json!({"method": ["PUT", "POST"]}), true),
        (json!({"method": ["GET"]}), false),
        (json!({"host": ["api.example.com"]}), true),
        (json!({"host": ["*.example.com"]}), true),
        (json!({"host": ["*.api.example.com", "example.com"]}), false),
        (json!({"query": {"version": {"exact": "2"}}}), true),
        (json!({"query": {"x": "present", "y": "present"}}), false),
        (json!({"cookie": {"beta": {"exact": "yes"}}}), true),
        (json!({"cookie": {"alpha": "present"}}), false),
        (json!({"client_address": ["10.0.0.0/8", "192.0.2.0/24"]}), true),
        (json!({"client_address": ["192.0.2.2", "2001:db8::/32"]}), false),
        (json!({"route_name": ["cart", "checkout"]}), true),
        (json!({"route_name": ["cart"]}), false),
        (json!({"jwt_claim": {"payload": "jwt", "claim": "tier", "is": {"exact": "gold"}}}), true),
        (json!({"jwt_claim": {"payload": "jwt", "claim": "tier", "is": {"exact": "free"}}}), false),
        (json!({"jwt_claim": {"payload": "jwt", "claim": "name", "is": "present"}}), false),
        (json!({"dynamic_metadata": {"namespace": "ns", "path": ["a", "b"], "is": {"exact": "7"}}}), true),
        (json!({}), true),
        (json!({"method": ["POST"], "host": ["other.example"]}), false),
    ] {
        assert_eq!(governs(&condition, &sent), expected, "{condition}");
    }
    let v6 = sent.clone().from("[2001:db8::1]:4711");
    assert!(governs(&json!({"client_address": ["2001:db8::/32"]}), &v6));
    assert!(!governs(&json!({"client_address": ["0.0.0.0/0"]}), &v6));
    assert!(!governs(&json!({"client_address": ["0.0.0.0/0", "::/0"]}), &sent.from("/run/x.sock")));
}

#[test]
fn conditions_combine() {
    let get_a = json!({"method": ["GET"], "path": {"prefix": "/a"}});
    for (condition, expected) in [
        (json!({"not": get_a}), false),
        (json!({"not": {"path": {"prefix": "/b"}}}), true),
        (json!({"any": [{"method": ["PUT"]}, get_a]}), true),
        (json!({"any": [{"method": ["PUT"]}, {"path": {"prefix": "/b"}}]}), false),
        (json!({"all": [{"method": ["GET"]}, get_a]}), true),
        (json!({"all": [{"method": ["PUT"]}, get_a]}), false),
        (json!({"method": ["GET"], "not": {"not": {"any": [get_a]}}}), true),
    ] {
        assert_eq!(governs(&condition, &Sent::get("/a")), expected, "{condition}");
    }
}

#[test]
fn a_share_of_the_requests_is_drawn() {
    let drawn = |percent: Value, draw| governs(&json!({"percent": percent}), &Sent::get("/").drawing(draw));
    // 2^32 / 4 is where a quarter ends.
    assert!(drawn(json!(25), (1 << 30) - 1) && !drawn(json!(25), 1 << 30));
    assert!(drawn(json!(100), u32::MAX) && !drawn(json!(0), 0));
    assert!(drawn(json!("0.0001"), 4294) && !drawn(json!("0.0001"), 4295));
    assert!(drawn(json!(2.5), 107_374_182) && !drawn(json!(2.5), 107_374_183));
}

#[test]
fn a_skip_list_exempts() {
    let config = json!({
        "sidecar": {"cluster": "sluice"},
        "skip": [{"path": {"exact": "/healthz"}}, {"client_address": ["10.0.0.0/8"], "method": ["GET"]}],
        "policies": [policy("cost", json!(1))],
    });
    let policies = read(&config).expect("valid");
    let governed = |sent: &Sent| !asks(&policies, sent).is_empty();
    assert!(!governed(&Sent::get("/healthz")));
    assert!(!governed(&Sent::get("/").from("10.1.2.3:4")));
    assert!(governed(&Sent::get("/").method("POST").from("10.1.2.3:4")));
    assert!(governed(&Sent::get("/")));
    let mut everything = config;
    for all in [json!({"all": [{}]}), json!({"any": [{"method": ["GET"]}, {}]}), json!({"percent": 100})] {
        everything["skip"][1] = all;
        let told = read(&everything).expect_err("refused");
        assert!(told.contains("skip[1]: found no condition; this would exempt every request"), "{told}");
    }
    everything["skip"][1] = json!({"path": {"regex": "("}});
    let told = read(&everything).expect_err("refused");
    assert!(told.contains("no regular expression") && !told.contains("found no condition"), "{told}");
}

#[test]
fn a_mistake_in_a_condition_is_told() {
    let long = "x".repeat(60);
    let cases = [
        (
            json!({"path": {"prefix": "api"}}),
            "policies[0].match.path.prefix: found \"api\"; a path begins with `/`",
        ),
        (
            json!({"path": {"exact": "/a?b"}}),
            "policies[0].match.path.exact: found \"/a?b\"; the query is not part",
        ),
        (
            json!({"path": {"prefx": "/"}}),
            "policies[0].match.path.prefx: found `prefx`; expected one of `exact`, `prefix`, `regex`; did you mean `prefix`?",
        ),
        (json!({"path": "/api"}), "policies[0].match.path: found `/api`; expected one of"),
        (
            json!({"path": {"regex": "(a"}}),
            "policies[0].match.path.regex: found \"(a\", which is no regular expression: unclosed group",
        ),
        (
            json!({"path": {"regex": "a)(b"}}),
            "policies[0].match.path.regex: found \"a)(b\", which is no regular expression",
        ),
        (
            json!({"path": {"regex": "(a{1000}){1000}"}}),
            "policies[0].match.path.regex: found a regular expression that needs more than 16384 bytes",
        ),
        (
            json!({"path": {"regex": format!("{}{}", "(".repeat(60), ")".repeat(60))}}),
            "is no regular expression",
        ),
        (
            json!({"path": {"exact": "/a", "prefix": "/b"}}),
            "policies[0].match.path: found a mapping; expected a mapping with exactly one field",
        ),
        (json!({"header": {"a": {"present": true}}}), "policies[0].match.header.a"),
        (
            json!({"path": null}),
            "policies[0].match.path: found nothing; write a value, or leave the field out",
        ),
        (json!(null), "policies[0].match: found nothing; write a value, or leave the field out"),
        (
            json!({"method": ["post"]}),
            "policies[0].match.method[0]: found \"post\"; methods are written in capitals, such as \"POST\"",
        ),
        (json!({"method": []}), "policies[0].match.method: found an empty list; leave it out"),
        (json!({"method": "POST"}), "policies[0].match.method: found \"POST\"; expected a list"),
        (
            json!({"host": ["a.example:80"]}),
            "policies[0].match.host[0]: found \"a.example:80\"; write a host without the port",
        ),
        (json!({"host": ["a*.example"]}), "policies[0].match.host[0]: found"),
        (json!({"host": ["*"]}), "policies[0].match.host[0]: found \"*\""),
        (
            json!({"header": {"x y": "present"}}),
            "policies[0].match.header.x y: found \"x y\"; write the name of a header",
        ),
        (
            json!({"header": {"x-a": {"exakt": "y"}}}),
            "policies[0].match.header.x-a.exakt: found `exakt`; expected one of",
        ),
        (
            json!({"header": {"x-a": {"prefix": ""}}}),
            "policies[0].match.header.x-a.prefix: found an empty text",
        ),
        (
            json!({"header": {"x-a": "yes"}}),
            "policies[0].match.header.x-a: found `yes`; expected one of `present`, `exact`",
        ),
        (json!({"header": {}}), "policies[0].match.header: found no name"),
        (
            json!({"header": {"host": "present"}}),
            "policies[0].match.header.host: found \"host\"; write `host` instead",
        ),
        (
            json!({"client_address": ["10.0.0.1/8"]}),
            "policies[0].match.client_address[0]: found \"10.0.0.1/8\", which is an address within a network; did you mean 10.0.0.0/8?",
        ),
        (
            json!({"client_address": ["10.0.0.0/33"]}),
            "policies[0].match.client_address[0]: found \"10.0.0.0/33\"; write an address or a network",
        ),
        (
            json!({"percent": 101}),
            "policies[0].match.percent: found the number `101`; expected a percentage from 0 to 100",
        ),
        (json!({"not": {"metod": ["GET"]}}), "policies[0].match.not.metod: found `metod`; expected one of"),
        (
            json!({"any": [{"path": {"prefix": "/"}}, {"method": ["get"]}]}),
            "policies[0].match.any[1].method[0]: found \"get\"",
        ),
        (json!({"any": []}), "policies[0].match.any: found an empty list"),
        (
            json!({"jwt_claim": {"payload": "jwt", "claim": "tier"}}),
            "policies[0].match.jwt_claim: the field `is` is missing",
        ),
        (json!({"query": {long.repeat(3): "present"}}), "a parameter has 1 to 128"),
        (
            json!([]),
            "policies[0].match: found a list; expected a mapping of conditions such as { path: { prefix: /api } }",
        ),
    ];
    for (condition, expected) in cases {
        let told = error("match", condition.clone());
        assert!(told.contains(expected), "{condition}:\n  {told}\ndoes not say\n  {expected}");
    }
}

#[test]
fn regexes_are_bounded_in_number_and_linear_in_time() {
    let many: Vec<Value> = (0..300).map(|n| json!({"path": {"regex": format!("/{n}")}})).collect();
    let told = error("match", json!({"any": many}));
    assert_eq!(told.matches("found more than 64 regular expressions").count(), 1, "{told}");
    // What takes exponential time where a matcher goes back, and what has as many states as are accepted: they end.
    for nasty in ["(/a*)*(/a*)*b", ".*a.{150}b", "/(?:[a-z]*[a-z0-9]*){20}X"] {
        let condition = json!({"path": {"regex": nasty}});
        assert!(!governs(&condition, &Sent::get(&"/a".repeat(30_000))), "{nasty}");
    }
}

#[test]
fn a_comment_in_a_regex_hides_nothing() {
    let condition = json!({"path": {"regex": "(?x) /a [0-9]  # a number"}});
    assert!(governs(&condition, &Sent::get("/a1")) && !governs(&condition, &Sent::get("/a1x")));
}
