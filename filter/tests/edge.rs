//! The wasm edge on a fake Envoy: whatever happens in whatever order, nothing traps, every request that is still
//! there gets exactly one answer, and nobody else's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic: that is how it fails"
)]

mod fake_host;

use std::collections::BTreeMap;

use contract::TakeRequest;
use fake_host::{Event, Headers, callback, host, next_id, root_created};
use proptest::prelude::*;
use serde_json::{Value, json};
// Linked for its exports, which Envoy would call.
use sluice_filter as _;

unsafe extern "C" {
    safe fn proxy_on_context_create(context: u32, root: u32);
    safe fn proxy_on_configure(root: u32, size: usize) -> u32;
    safe fn proxy_on_request_headers(context: u32, num_headers: usize, end_of_stream: u32) -> u32;
    safe fn proxy_on_response_headers(context: u32, num_headers: usize, end_of_stream: u32) -> u32;
    safe fn proxy_on_http_call_response(
        context: u32,
        token: u32,
        headers: usize,
        body: usize,
        trailers: usize,
    );
    safe fn proxy_on_done(context: u32) -> u32;
    safe fn proxy_on_delete(context: u32);
}

const CONTINUE: u32 = 0;

/// A filter on the fake Envoy, and what became of its requests.
struct Filter {
    root: u32,
    /// Whether each request that is still there has had its answer.
    answered: BTreeMap<u32, bool>,
}

impl Filter {
    fn start(on_error: &str) -> Self {
        Self::configured(&json!({
            "sidecar": {"cluster": "sluice"},
            "on_error": on_error,
            "policies": [
                {"name": "all", "key": [{"header": "x-api-key"}], "limit": "1 per minute"},
                {"name": "api", "match": {"path": {"prefix": "/api"}}, "key": ["client_address"], "limit": "1 per day"},
            ],
        }))
    }

    fn configured(config: &Value) -> Self {
        let root = next_id();
        root_created(root);
        host(|host| host.configuration = config.to_string().into_bytes());
        callback(root, || proxy_on_context_create(root, 0));
        assert_eq!(callback(root, || proxy_on_configure(root, config.to_string().len())), 1);
        Self { root, answered: BTreeMap::new() }
    }

    fn arrive(&mut self, headers: Headers) -> u32 {
        let id = next_id();
        host(|host| host.requests.insert(id, headers));
        self.answered.insert(id, false);
        callback(id, || proxy_on_context_create(id, self.root));
        let action = callback(id, || proxy_on_request_headers(id, 4, 1));
        if action == CONTINUE {
            self.answer(id);
        }
        self.collect();
        id
    }

    fn leave(&mut self, id: u32) {
        callback(id, || proxy_on_done(id));
        host(|host| host.requests.remove(&id));
        callback(id, || proxy_on_delete(id));
        self.answered.remove(&id);
        self.collect();
    }

    /// Delivers an answer to the oldest callout.
    fn deliver(&mut self, answer: Option<(Headers, Vec<u8>)>) {
        let callout = host(|host| host.callouts.remove(0));
        assert_eq!(callout.owner, self.root, "a callout belongs to the root context");
        let (num_headers, size) =
            answer.as_ref().map_or((0, 0), |(headers, body)| (headers.len(), body.len()));
        host(|host| host.answer = answer);
        callback(self.root, || proxy_on_http_call_response(self.root, callout.token, num_headers, size, 0));
        self.collect();
    }

    fn answer(&mut self, id: u32) {
        let answered = self.answered.get_mut(&id).expect("an answer to nobody");
        assert!(!std::mem::replace(answered, true), "the request {id} got a second answer");
    }

    fn collect(&mut self) {
        for (id, _) in host(|host| std::mem::take(&mut host.events)) {
            self.answer(id);
        }
    }

    fn finish(mut self) {
        host(|host| host.no_endpoints = false);
        while host(|host| !host.callouts.is_empty()) {
            self.deliver(None);
        }
        assert!(self.answered.values().all(|answered| *answered), "a request waits for ever");
        for id in self.answered.keys().copied().collect::<Vec<_>>() {
            callback(id, || proxy_on_response_headers(id, 2, 1));
            self.leave(id);
        }
    }
}

fn request(path: Option<&'static str>, key: Option<&[u8]>) -> Headers {
    let path = path.map(|path| (":path", path.into()));
    let key = key.map(|key| ("x-api-key", key.to_vec()));
    [(":method", b"GET".to_vec())].into_iter().chain(path).chain(key).collect()
}

/// An answer that decides each take of the oldest callout in turn by `pattern`.
fn decided(pattern: &[bool]) -> Option<(Headers, Vec<u8>)> {
    let body = host(|host| host.callouts[0].body.clone());
    let request: TakeRequest = serde_json::from_slice(&body).expect("the callout speaks the contract");
    let verdict = |(take, allowed): (&contract::Take, &bool)| {
        let word = if *allowed { "allowed" } else { "denied" };
        let buckets: Vec<Value> = take
            .buckets
            .iter()
            .map(|_| json!({"outcome": word, "remaining": 0, "retry_after_us": 1, "full_after_us": 1}))
            .collect();
        json!({ word: buckets })
    };
    let verdicts: Vec<Value> = request.takes.iter().zip(pattern.iter().cycle()).map(verdict).collect();
    Some((marked("200"), json!({"now_us": 1, "verdicts": verdicts}).to_string().into_bytes()))
}

fn marked(status: &'static str) -> Headers {
    vec![(":status", status.into()), ("x-sluice-contract", b"1".to_vec())]
}

/// Something that happens to a filter.
#[derive(Clone, Debug)]
enum Step {
    Arrive { path: Option<&'static str>, key: Option<Vec<u8>> },
    Leave(prop::sample::Index),
    Decide(Vec<bool>),
    BreakOff,
    EnvoyAnswers(&'static str),
    Refuse,
    Garbage(Vec<u8>),
    Endpoints(bool),
}

fn steps() -> impl Strategy<Value = Step> {
    let path = prop::sample::select(vec![None, Some("/"), Some("/api/x?y"), Some("")]);
    prop_oneof![
        8 => (path, any::<Option<Vec<u8>>>()).prop_map(|(path, key)| Step::Arrive { path, key }),
        3 => any::<prop::sample::Index>().prop_map(Step::Leave),
        5 => prop::collection::vec(any::<bool>(), 1..4).prop_map(Step::Decide),
        1 => Just(Step::BreakOff),
        1 => prop::sample::select(vec!["503", "504", "502"]).prop_map(Step::EnvoyAnswers),
        1 => Just(Step::Refuse),
        1 => any::<Vec<u8>>().prop_map(Step::Garbage),
        1 => any::<bool>().prop_map(Step::Endpoints),
    ]
}

fn run(filter: &mut Filter, step: Step) {
    let on_the_way = host(|host| !host.callouts.is_empty());
    match step {
        Step::Arrive { path, key } => {
            filter.arrive(request(path, key.as_deref()));
        }
        Step::Leave(index) if !filter.answered.is_empty() => {
            let ids: Vec<u32> = filter.answered.keys().copied().collect();
            filter.leave(*index.get(&ids));
        }
        Step::Decide(pattern) if on_the_way => filter.deliver(decided(&pattern)),
        Step::BreakOff if on_the_way => filter.deliver(None),
        Step::EnvoyAnswers(status) if on_the_way => {
            filter.deliver(Some((vec![(":status", status.into())], b"no healthy upstream".to_vec())));
        }
        Step::Refuse if on_the_way => filter.deliver(Some((marked("400"), b"{}".to_vec()))),
        Step::Garbage(bytes) if on_the_way => filter.deliver(Some((marked("200"), bytes))),
        Step::Endpoints(there) => host(|host| host.no_endpoints = !there),
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_request_gets_exactly_one_answer(
        on_error in prop::sample::select(vec!["allow", "deny"]),
        steps in prop::collection::vec(steps(), 0..80),
    ) {
        let mut filter = Filter::start(on_error);
        for step in steps {
            run(&mut filter, step);
            prop_assert!(host(|host| host.callouts.len()) <= 1, "one callout at a time");
        }
        filter.finish();
    }
}

fn takes_on_the_way() -> Vec<String> {
    let body = host(|host| host.callouts[0].body.clone());
    let request: TakeRequest = serde_json::from_slice(&body).expect("the callout speaks the contract");
    request.takes.iter().map(|take| take.buckets[0].key.to_string()).collect()
}

#[test]
fn a_client_that_leaves_before_its_take_is_sent_charges_nothing() {
    let mut filter = Filter::start("deny");
    filter.arrive(request(Some("/"), Some(b"first")));
    let leaving = filter.arrive(request(Some("/"), Some(b"leaving")));
    filter.arrive(request(Some("/"), Some(b"staying")));
    filter.leave(leaving);
    filter.deliver(decided(&[true]));
    assert_eq!(takes_on_the_way(), ["header:x-api-key=staying"]);
    filter.finish();
}

#[test]
fn a_client_that_leaves_takes_nobodys_answer_with_it() {
    let mut filter = Filter::start("deny");
    let first = filter.arrive(request(Some("/"), Some(b"first")));
    let [second, third] =
        [b"second", b"third!"].map(|key| filter.arrive(request(Some("/"), Some(key.as_slice()))));
    filter.leave(first);
    filter.deliver(decided(&[true]));
    assert_eq!(takes_on_the_way().len(), 2);
    filter.leave(second);
    filter.deliver(decided(&[true]));
    assert_eq!(filter.answered, BTreeMap::from([(third, true)]));
    filter.finish();
}

#[test]
fn a_failing_callout_fails_only_its_batch() {
    let mut filter = Filter::start("deny");
    filter.arrive(request(Some("/"), Some(b"unlucky")));
    filter.arrive(request(Some("/"), Some(b"lucky")));
    let replies = |host: &mut fake_host::Host| host.events.clone();
    let callout = host(|host| host.callouts.remove(0));
    host(|host| host.answer = None);
    callback(filter.root, || proxy_on_http_call_response(filter.root, callout.token, 0, 0, 0));
    assert_eq!(host(replies).len(), 1);
    assert_eq!(host(replies)[0].1, Event::Replied(503));
    filter.collect();
    filter.deliver(decided(&[true]));
    filter.finish();
}

#[test]
fn a_request_that_too_many_policies_match_fails_alone() {
    let policy = |number: usize| {
        let prefix = if number == 0 { "/" } else { "/many" };
        json!({"name": format!("p{number}"), "match": {"path": {"prefix": prefix}}, "key": [], "limit": "1 per day"})
    };
    let policies: Vec<Value> = (0..=contract::MAX_BUCKETS).map(policy).collect();
    let mut filter = Filter::configured(
        &json!({"sidecar": {"cluster": "sluice"}, "on_error": "deny", "policies": policies}),
    );
    let many = filter.arrive(request(Some("/many"), None));
    assert!(filter.answered[&many], "at once, and nobody else's batch is refused for it");
    assert!(host(|host| host.callouts.is_empty()));
    filter.arrive(request(Some("/"), None));
    filter.deliver(decided(&[true]));
    filter.finish();
}

#[test]
fn a_configuration_that_is_wrong_is_refused_and_told() {
    let root = next_id();
    root_created(root);
    callback(root, || proxy_on_context_create(root, 0));
    for bad in [
        &b""[..],
        b"{",
        b"\xff\xfe",
        br#"{"sidecar": {"cluster": "x"}, "policies": [{"name": "a", "key": [], "limit": "often"}]}"#,
    ] {
        host(|host| (host.configuration, host.log) = (bad.to_vec(), Vec::new()));
        assert_eq!(callback(root, || proxy_on_configure(root, bad.len())), 0, "{bad:?} was accepted");
        assert_eq!(host(|host| host.log.len()), 1, "one line says what is wrong");
    }
    assert!(host(|host| host.log[0].contains("policies[0].limit: invalid value: string \"often\"")));
}

/// The filter of the golden files: two limits on `/expensive`, three on `/three`.
fn golden() -> Filter {
    Filter::configured(&json!({
        "sidecar": {"cluster": "sluice"},
        "domain": "shop",
        "on_error": "deny",
        "policies": [
            {"name": "per-client", "key": [{"header": "x-api-key"}], "limit": "60 per minute"},
            {
                "name": "expensive", "match": {"path": {"prefix": "/expensive"}},
                "key": ["client_address"], "limit": "5 per minute",
            },
            {"name": "third", "match": {"path": {"prefix": "/three"}}, "key": [], "limit": "5 per minute"},
            {"name": "other", "match": {"path": {"prefix": "/three"}}, "key": [], "limit": "5 per minute"},
        ],
    }))
}

#[test]
fn the_filter_asks_as_the_golden_request_does() {
    let mut filter = golden();
    filter.arrive(request(Some("/expensive"), Some(b"alice")));
    let asked: Value = host(|host| serde_json::from_slice(&host.callouts[0].body)).expect("JSON");
    let golden: Value =
        serde_json::from_str(include_str!("../../contract/golden/take-request.json")).expect("JSON");
    assert_eq!((&asked["domain"], &asked["takes"][0]), (&golden["domain"], &golden["takes"][0]));
    filter.finish();
}

#[test]
fn the_filter_understands_the_golden_response() {
    let mut filter = golden();
    filter.arrive(request(Some("/"), None));
    let requests = ["/", "/three", "/", "/"].map(|path| filter.arrive(request(Some(path), None)));
    filter.deliver(decided(&[true]));
    let body = include_bytes!("../../contract/golden/take-response.json").to_vec();
    let callout = host(|host| host.callouts.remove(0));
    host(|host| host.answer = Some((marked("200"), body.clone())));
    callback(filter.root, || proxy_on_http_call_response(filter.root, callout.token, 2, body.len(), 0));
    let replied = Event::Replied;
    let expected = [Event::Resumed, replied(429), replied(503), replied(503)];
    assert_eq!(host(|host| host.events.clone()), requests.into_iter().zip(expected).collect::<Vec<_>>());
    filter.collect();
    filter.finish();
}

/// What one request costs in calls into Envoy: a change here is a change of the filter's price.
#[test]
fn a_lone_request_makes_few_calls() {
    let mut filter = Filter::start("allow");
    host(|host| host.calls.clear());
    let id = filter.arrive(request(Some("/"), Some(b"alice")));
    filter.deliver(decided(&[true]));
    callback(id, || proxy_on_response_headers(id, 2, 1));
    let calls = host(|host| host.calls.clone());
    let expected = BTreeMap::from([
        ("continue_stream", 1),
        ("get_buffer_bytes", 1),
        // The path, the key, and of the sidecar's answer the status and the marker.
        ("get_header_map_value", 4),
        ("http_call", 1),
        ("increment_metric", 2),
        ("replace_header_map_value", 3),
        // To the root for the callout, to the request for the answer.
        ("set_effective_context", 2),
        ("set_property", 1),
    ]);
    assert_eq!(calls, expected);
    filter.finish();
}
