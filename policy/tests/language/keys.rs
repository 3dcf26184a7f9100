//! Who shares a bucket: injective, bounded, and free of secrets.

use std::collections::BTreeSet;

use contract::MAX_KEY_BYTES;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::sent::{Sent, asks, error, one, policies};

fn key_of(key: &Value, sent: &Sent) -> String {
    asks(&one("key", key.clone()), sent).remove(0).key
}

fn of_address(part: &Value, address: &str) -> String {
    key_of(&json!([part]), &Sent::get("/").from(address))
}

#[test]
fn an_address_loses_its_port_and_ipv6_its_host_part() {
    let part = json!("client_address");
    assert_eq!(of_address(&part, "192.0.2.1:4711"), "client_address=192.0.2.1");
    assert_eq!(of_address(&part, "192.0.2.1"), "client_address=192.0.2.1");
    assert_eq!(of_address(&part, "[::ffff:192.0.2.1]:9"), "client_address=192.0.2.1");
    assert_eq!(of_address(&part, "[2001:db8:1:2:3:4:5:6]:4711"), "client_address=2001:db8:1:2::/64");
    assert_eq!(of_address(&part, "/run/a b.sock"), "client_address=/run/a%20b.sock");
}

#[test]
fn a_client_is_as_large_a_network_as_is_configured() {
    let part = json!({"client_address": {"ipv4_prefix": 24, "ipv6_prefix": 56}});
    assert_eq!(of_address(&part, "192.0.2.77:1"), "client_address=192.0.2.0/24");
    assert_eq!(of_address(&part, "[2001:db8:1:2ff::6]:1"), "client_address=2001:db8:1:200::/56");
    let all = json!({"client_address": {"ipv4_prefix": 0, "ipv6_prefix": 128}});
    assert_eq!(of_address(&all, "192.0.2.77:1"), "client_address=0.0.0.0/0");
    assert_eq!(of_address(&all, "[2001:db8::6]:1"), "client_address=2001:db8::6");
    for (field, bits) in [("ipv4_prefix", 33), ("ipv6_prefix", 129)] {
        let told = error("key", json!([{"client_address": {field: bits}}]));
        assert!(
            told.contains(&format!(
                "policies[0].key[0].client_address.{field}: found {bits}; it must be between 0 and"
            )),
            "{told}"
        );
    }
}

#[test]
fn every_part_of_a_request_can_tell_its_client() {
    let sent = Sent::get("/api/v2/users?user=%61da+b&x=1")
        .header(":authority", "Shop.Example.COM.:8443")
        .header("x-api-key", "alice")
        .header("cookie", "theme=dark; session=s3; session=s4")
        .attribute("xds|route_name", "checkout")
        .attribute("xds|route_metadata|filter_metadata|com.example|team", "web")
        .attribute("xds|listener_metadata|filter_metadata|com.example|zone", "edge")
        .attribute("metadata|filter_metadata|com.example|a|b", 5.0_f64.to_le_bytes())
        .attribute("metadata|filter_metadata|envoy.filters.http.jwt_authn|jwt|sub", "ada")
        .attribute("metadata|filter_metadata|envoy.filters.http.jwt_authn|jwt|org|id", [1])
        .attribute("connection|uri_san_peer_certificate", "spiffe://td/web")
        .attribute("connection|dns_san_peer_certificate", "web.example.com")
        .attribute("connection|sha256_peer_certificate_digest", "ab12")
        .attribute("connection|subject_peer_certificate", "CN=web")
        .attribute("filter_state|my.key", "state");
    let metadata = |path: &[&str]| json!({"namespace": "com.example", "path": path});
    let cases = [
        (json!({"header": "X-API-Key"}), "header:x-api-key=alice"),
        (json!({"cookie": "session"}), "cookie:session=s3"),
        (json!({"query": "user"}), "query:user=ada%20b"),
        (json!("path"), "path=/api/v2/users"),
        (json!({"path": {"segments": 2}}), "path:2=/api/v2"),
        (json!({"path": {"segments": 9}}), "path:9=/api/v2/users"),
        (json!("method"), "method=GET"),
        (json!("host"), "host=shop.example.com"),
        (json!("route_name"), "route_name=checkout"),
        (json!({"route_metadata": metadata(&["team"])}), "route_metadata:com.example:team=web"),
        (json!({"listener_metadata": metadata(&["zone"])}), "listener_metadata:com.example:zone=edge"),
        (json!({"dynamic_metadata": metadata(&["a", "b"])}), "dynamic_metadata:com.example:a:b=*5"),
        (json!({"jwt_claim": {"payload": "jwt", "claim": "sub"}}), "jwt_claim:jwt:sub=ada"),
        (json!({"jwt_claim": {"payload": "jwt", "claim": ["org", "id"]}}), "jwt_claim:jwt:org:id=*true"),
        (json!({"client_certificate": "uri_san"}), "client_certificate:uri_san=spiffe://td/web"),
        (json!({"client_certificate": "dns_san"}), "client_certificate:dns_san=web.example.com"),
        (json!({"client_certificate": "digest"}), "client_certificate:digest=ab12"),
        (json!({"client_certificate": "subject"}), "client_certificate:subject=CN%3Dweb"),
        (json!({"filter_state": "my.key"}), "filter_state:my.key=state"),
        (json!({"text": "v2"}), "text=v2"),
    ];
    for (part, expected) in &cases {
        assert_eq!(key_of(&json!([part]), &sent), *expected, "{part}");
    }
    let all: Vec<&Value> = cases.iter().take(3).map(|(part, _)| part).collect();
    assert_eq!(key_of(&json!(all), &sent), "header:x-api-key=alice,cookie:session=s3,query:user=ada%20b");
}

#[test]
fn a_parameter_is_the_same_however_it_is_encoded() {
    let of = |path: &str| key_of(&json!([{"query": "key"}]), &Sent::get(path));
    for path in ["/?key=ab", "/?%6bey=%61b", "/?x&key=ab&key=cd", "/?key=ab#key=cd", "/?a=?&key=a%62"] {
        assert_eq!(of(path), "query:key=ab", "{path}");
    }
    assert_eq!([of("/?key"), of("/?key=")], ["query:key=", "query:key="]);
    assert_eq!(of("/?keys=ab&&"), "query:key", "missing");
    assert_eq!(of("/?key=%FF"), "query:key=%FF", "bytes stay bytes");
    assert_ne!(of("/?key=%FF"), of("/?key=%FE"));
    assert_eq!(of("/?key=%zz%4"), "query:key=%25zz%254", "what is no encoding stays as it is");
}

#[test]
fn a_cookie_does_not_hide_in_another_line() {
    let of = |lines: &[&str]| {
        let sent = lines.iter().fold(Sent::get("/"), |sent, line| sent.header("cookie", line));
        key_of(&json!([{"cookie": "session"}]), &sent)
    };
    assert_eq!(of(&["a=1", "session=x"]), "cookie:session=x");
    assert_eq!(
        of(&["a=1; b=2", " session = x ;c", "session=y"]),
        "cookie:session=x",
        "the first of all lines"
    );
    assert_eq!(of(&["sessions=1", "asession=2; session"]), "cookie:session");
}

#[test]
fn a_host_is_the_same_whatever_its_case_and_port() {
    let of = |host: &str| key_of(&json!(["host"]), &Sent::get("/").header(":authority", host));
    for host in ["a.example", "A.EXAMPLE", "a.example:80", "a.example.", "A.example.:443"] {
        assert_eq!(of(host), "host=a.example", "{host}");
    }
    assert_eq!(of("[2001:DB8::1]:443"), "host=%5B2001:db8::1%5D");
    assert_eq!(of("[2001:db8::1]"), "host=%5B2001:db8::1%5D");
}

#[test]
fn the_first_that_is_present_is_taken_and_named() {
    let key = json!([{"first_of": [{"header": "a"}, "client_address"]}]);
    let with_key = Sent::get("/").header("a", "192.0.2.1");
    assert_eq!(key_of(&key, &with_key), "header:a=192.0.2.1", "and is not the address of that client");
    assert_eq!(key_of(&key, &Sent::get("/")), "client_address=192.0.2.1");
}

#[test]
fn what_is_missing_shares_a_bucket_or_is_not_governed() {
    let key = json!([{"header": "a"}, {"first_of": [{"header": "b"}, {"cookie": "b"}]}]);
    assert_eq!(key_of(&key, &Sent::get("/").header("a", "")), "header:a=,header:b", "missing is not empty");
    assert_eq!(key_of(&key, &Sent::get("/")), "header:a,header:b");
    let skipping = policies(json!([{"name": "p", "key": key, "missing": "skip", "limit": "1 per day"}]));
    assert_eq!(asks(&skipping, &Sent::get("/").header("a", "x")), []);
    assert_eq!(asks(&skipping, &Sent::get("/").header("a", "x").header("cookie", "b=")).len(), 1);
}

#[test]
fn an_attribute_that_is_empty_is_missing() {
    let of = |value: &str| key_of(&json!(["route_name"]), &Sent::get("/").attribute("xds|route_name", value));
    assert_eq!([of(""), of("x")], ["route_name", "route_name=x"]);
}

#[test]
fn a_long_value_is_replaced_by_its_digest() {
    let key = json!([{"header": "a"}, {"header": "b"}]);
    let long = key_of(&key, &Sent::get("/").header("a", vec![b'x'; 60_000]));
    assert!(long.starts_with("header:a=*sha256:") && long.len() < 100, "{long}");
    let forged = long["header:a=".len()..].split(',').next().expect("the digest").to_owned();
    assert_ne!(key_of(&key, &Sent::get("/").header("a", forged)), long);
}

#[test]
fn a_secret_is_hashed_with_a_key_that_all_share() {
    let of =
        |value: &str| key_of(&json!([{"header": "a", "hash": true}]), &Sent::get("/").header("a", value));
    // printf alice | openssl dgst -sha256 -hmac 0123456789abcdef
    let expected = "header:a=*hmac-sha256:fdbf8b1cacd3d578e062d0e41104357d06aa63eca39f80b6fd7c83afedf1d44a";
    assert_eq!(of("alice"), expected);
    assert!(!of("alice").contains("alice"));
    assert_ne!(of("alice"), of("bob"));
    let told = error("key", json!([{"header": "a", "hash": true}]));
    assert!(told.contains("policies[0].key[0].hash: found true, but no secret to hash with"), "{told}");
}

#[test]
fn a_mistake_in_a_key_is_told() {
    let cases = [
        (
            json!(["hedder"]),
            "policies[0].key[0]: found `hedder`; expected one of `client_address`, `path`, `method`, `host`, `route_name`",
        ),
        (json!(["client_adress"]), "did you mean `client_address`?"),
        (json!(["header"]), "policies[0].key[0]: found `header` alone; say which: { header: … }"),
        (
            json!([{"heder": "a"}]),
            "policies[0].key[0].heder: found `heder`; expected one of `client_address`, `header`",
        ),
        (json!([{"heder": "a"}]), "did you mean `header`?"),
        (json!([{"header": "x y"}]), "policies[0].key[0].header: found \"x y\"; write the name of a header"),
        (json!([{"header": ":path"}]), "policies[0].key[0].header: found \":path\"; write `path` instead"),
        (
            json!([{"header": null}]),
            "policies[0].key[0].header: found nothing; write a value, or leave the field out; expected text",
        ),
        (
            json!([{"header": "a", "cookie": "b"}]),
            "policies[0].key[0]: found header and cookie; write exactly one part here",
        ),
        (json!([{}]), "policies[0].key[0]: found none; write exactly one part here"),
        (json!([{"first_of": []}]), "policies[0].key[0].first_of: found an empty list"),
        (
            json!([{"first_of": [{"first_of": ["method"]}]}]),
            "policies[0].key[0].first_of[0]: found first_of within first_of",
        ),
        (json!([{"first_of": ["method"], "hash": true}]), "policies[0].key[0]: found more beside `first_of`"),
        (
            json!([{"path": {"segments": 0}}]),
            "policies[0].key[0].path.segments: found 0; it must be between 1 and 32",
        ),
        (
            json!([{"jwt_claim": {"payload": "jwt", "claim": []}}]),
            "policies[0].key[0].jwt_claim.claim: found an empty list",
        ),
        (
            json!([{"dynamic_metadata": {"namespace": "n", "path": []}}]),
            "policies[0].key[0].dynamic_metadata.path: found an empty list",
        ),
        (
            json!([{"client_certificate": "san"}]),
            "policies[0].key[0].client_certificate: found `san`; expected one of `uri_san`",
        ),
        (json!(vec!["method"; 9]), "policies[0].key: found 9 parts; a key has at most 8"),
        (json!("method"), "policies[0].key: found \"method\"; expected a list"),
        (json!([["method"]]), "policies[0].key[0]: found a list; expected a part such as"),
    ];
    for (key, expected) in cases {
        let told = error("key", key.clone());
        assert!(told.contains(expected), "{key}:\n  {told}\ndoes not say\n  {expected}");
    }
}

fn two_headers(a: Option<&[u8]>, b: Option<&[u8]>) -> String {
    let with =
        |sent: Sent, name, value: Option<&[u8]>| value.map_or(sent.clone(), |value| sent.header(name, value));
    let sent = with(with(Sent::get("/"), "a", a), "b", b);
    key_of(&json!([{"header": "a"}, {"header": "b"}]), &sent)
}

proptest! {
    #[test]
    fn keys_are_equal_only_where_all_parts_are(
        left in any::<(Option<Vec<u8>>, Option<Vec<u8>>)>(),
        right in any::<(Option<Vec<u8>>, Option<Vec<u8>>)>(),
    ) {
        let key = |(a, b): &(Option<Vec<u8>>, Option<Vec<u8>>)| two_headers(a.as_deref(), b.as_deref());
        prop_assert_eq!(left == right, key(&left) == key(&right));
    }

    #[test]
    fn separators_cannot_be_smuggled_in(a in "[a-b,=:%*]{0,6}", b in "[a-b,=:%*]{0,6}", cut in 0..6_usize) {
        // The same bytes, cut elsewhere into two headers.
        let joined = format!("{a}{b}");
        let cut = cut.min(joined.len());
        let key = |a: &str, b: &str| two_headers(Some(a.as_bytes()), Some(b.as_bytes()));
        prop_assert_eq!(key(&a, &b) == key(&joined[..cut], &joined[cut..]), cut == a.len());
    }

    #[test]
    fn a_key_is_never_longer_than_the_contract_allows(bytes in any::<Vec<u8>>(), length in 0..70_000_usize) {
        let long: Vec<u8> = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { length }).collect();
        let name = "a".repeat(128);
        let parts = vec![json!({"header": name}); 8];
        prop_assert!(key_of(&json!(parts), &Sent::get("/").header(&name, long)).len() <= MAX_KEY_BYTES);
    }
}

#[test]
fn no_two_kinds_of_parts_are_named_alike() {
    let sent = Sent::get("/a?a=a").header("a", "a").header("cookie", "a=a").attribute("filter_state|a", "a");
    let parts = [
        json!({"header": "a"}),
        json!({"cookie": "a"}),
        json!({"query": "a"}),
        json!({"filter_state": "a"}),
        json!({"text": "a"}),
    ];
    let keys: BTreeSet<String> = parts.iter().map(|part| key_of(&json!([part]), &sent)).collect();
    assert_eq!(keys.len(), parts.len());
}
