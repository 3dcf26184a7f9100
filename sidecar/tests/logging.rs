//! What is logged, as an operator changes it while the sidecar runs.

mod support;

use serde_json::{Value, json};
use support::running::{Running, ask, get};

fn put(sluice: &Running, body: &str) -> (String, Value) {
    let length = body.len();
    let head =
        "PUT /v1/log HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let answer = ask(&sluice.admin, &format!("{head}content-length: {length}\r\n\r\n{body}"));
    parts(&answer)
}

fn parts(answer: &str) -> (String, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status");
    (status.to_owned(), serde_json::from_str(body).expect("JSON"))
}

fn logged(sluice: &Running) -> Value {
    parts(&get(&sluice.admin, "/v1/log")).1
}

/// Who speaks something else than HTTP is told of at debug alone.
fn speak_nonsense(sluice: &Running) {
    assert!(ask(&sluice.address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn what_is_logged_changes_at_once_and_stays() {
    let mut sluice = Running::start();
    assert_eq!(logged(&sluice), json!({"filter": "info"}));
    let (status, now) = put(&sluice, r#"{"filter": "warn,sluice=debug"}"#);
    assert_eq!((status.as_str(), now), ("200", json!({"filter": "warn,sluice=debug"})));
    let told = sluice.wait_for_line("what is logged was changed");
    assert!(told.contains("\"filter\":\"warn,sluice=debug\""), "{told}");
    speak_nonsense(&sluice);
    sluice.wait_for_line("a connection ended early");
    assert_eq!(logged(&sluice), json!({"filter": "warn,sluice=debug"}));

    // The change itself is told, though the new filter hides what is not of an operator.
    put(&sluice, r#"{"filter": "error"}"#);
    sluice.wait_for_line("\"filter\":\"error\"");
    speak_nonsense(&sluice);
    put(&sluice, r#"{"filter": "info"}"#);
    let next = sluice.wait_for_line("\"level\"");
    assert!(next.contains("\"filter\":\"info\""), "nothing else was logged in between: {next}");
}

#[test]
fn what_is_logged_for_a_while_is_then_as_it_was() {
    let mut sluice = Running::start();
    let (_, now) = put(&sluice, r#"{"filter": "debug", "for": "1s"}"#);
    assert_eq!(now, json!({"filter": "debug", "reverts_to": "info", "reverts_in_s": 1}));
    sluice.wait_for_line("what is logged is as it was before");
    assert_eq!(logged(&sluice), json!({"filter": "info"}));
}

#[test]
fn what_is_no_filter_is_refused_with_what_would_be_one() {
    let sluice = Running::start();
    for (body, code, words) in [
        (r#"{"filter": "sluice=loud"}"#, "invalid_filter", ["sluice=loud", "info,sluice::store=debug"]),
        (r#"{"filter": "inof"}"#, "invalid_filter", ["\"inof\"", "levels by module"]),
        (r#"{"filter": "info", "for": "10"}"#, "invalid_duration", ["\"10\"", "10m"]),
        (r#"{"filter": "info", "for": "8d"}"#, "invalid_duration", ["\"8d\"", "7 days"]),
        (r#"{"level": "info"}"#, "invalid_body", ["`level`", "`filter`"]),
        ("info", "invalid_body", ["expected", "line 1"]),
    ] {
        let (status, refusal) = put(&sluice, body);
        assert_eq!((status.as_str(), refusal["code"].as_str()), ("400", Some(code)), "{body}: {refusal}");
        let reason = refusal["reason"].as_str().expect("a reason");
        assert!(words.iter().all(|word| reason.contains(word)), "{words:?} in {reason}");
    }
    assert_eq!(logged(&sluice), json!({"filter": "info"}));
    let document = parts(&get(&sluice.admin, "/v1/openapi.json")).1;
    assert!(document["paths"]["/v1/log"]["put"]["requestBody"].is_object(), "{document}");
}

#[test]
fn what_operators_did_is_logged_at_every_level() {
    let mut sluice = Running::start();
    for filter in ["warn", "error", "off", "sluice=off", "off,sluice::store=debug"] {
        put(&sluice, &json!({"filter": filter}).to_string());
        let told = sluice.wait_for_line("what is logged was changed");
        assert!(
            told.contains(&format!("\"filter\":\"{filter}\"")) && told.contains("sluice::audit"),
            "{told}"
        );
        let path = "/v1/buckets/per-client/alice/reset?domain=shop&limit=1%20per%20second";
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        let answer =
            ask(&sluice.admin, &format!("{head}content-type: application/json\r\ncontent-length: 0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        sluice.wait_for_line("an operator has reset a bucket");
    }
}
