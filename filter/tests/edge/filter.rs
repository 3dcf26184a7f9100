//! A filter on the fake Envoy, and what became of its requests.

use std::collections::BTreeMap;

use contract::{Kind, Take, TakeRequest};
use serde_json::{Value, json};
// Linked for its exports, which Envoy would call.
use sluice_filter as _;

use crate::fake_host::{Event, Headers, Reply, callback, host, next_id, root_created};

unsafe extern "C" {
    pub safe fn proxy_on_context_create(context: u32, root: u32);
    pub safe fn proxy_on_configure(root: u32, size: usize) -> u32;
    safe fn proxy_on_request_headers(context: u32, num_headers: usize, end_of_stream: u32) -> u32;
    safe fn proxy_on_response_headers(context: u32, num_headers: usize, end_of_stream: u32) -> u32;
    safe fn proxy_on_http_call_response(
        context: u32,
        token: u32,
        headers: usize,
        body: usize,
        trailers: usize,
    );
    safe fn proxy_on_tick(root: u32);
    safe fn proxy_on_done(context: u32) -> u32;
}

const CONTINUE: u32 = 0;

/// An answer to a callout: its headers and its body; `None` for one that broke off.
pub type CalloutAnswer = Option<(Headers, Vec<u8>)>;

/// A filter that is configured.
pub struct Filter {
    pub root: u32,
    /// The requests that are still there, by whether each has had its answer.
    pub answered: BTreeMap<u32, bool>,
    /// What became of requests, in order, of those that were not let through at once.
    pub events: Vec<(u32, Event)>,
}

impl Filter {
    pub fn configured(config: &Value) -> Self {
        let root = next_id();
        root_created(root);
        host(|host| {
            host.configuration = config.to_string().into_bytes();
            host.attributes.insert("source\0address", b"192.0.2.1:4711".to_vec());
        });
        callback(root, || proxy_on_context_create(root, 0));
        let right = callback(root, || proxy_on_configure(root, config.to_string().len()));
        assert_eq!(right, 1, "{:?}", host(|host| host.log.clone()));
        Self { root, answered: BTreeMap::new(), events: Vec::new() }
    }

    pub fn arrive(&mut self, headers: Headers) -> u32 {
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

    /// The headers of a response pass the filter on their way to the client; gives them as they arrive there.
    pub fn respond(&mut self, id: u32, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        host(|host| host.responses.insert(id, headers));
        callback(id, || proxy_on_response_headers(id, 2, 1));
        self.collect();
        host(|host| host.responses.remove(&id)).unwrap()
    }

    /// The request is over, or its client hangs up.
    pub fn leave(&mut self, id: u32) {
        callback(id, || proxy_on_done(id));
        host(|host| host.requests.remove(&id));
        self.answered.remove(&id);
        self.collect();
    }

    /// Delivers an answer to the oldest callout.
    pub fn deliver(&mut self, answer: CalloutAnswer) {
        let callout = host(|host| host.callouts.remove(0));
        assert_eq!(callout.owner, self.root, "a callout belongs to the root context");
        let (num_headers, size) =
            answer.as_ref().map_or((0, 0), |(headers, body)| (headers.len(), body.len()));
        host(|host| host.answer = answer);
        callback(self.root, || proxy_on_http_call_response(self.root, callout.token, num_headers, size, 0));
        self.collect();
    }

    /// The configuration is over.
    pub fn end(&self) {
        callback(self.root, || proxy_on_done(self.root));
    }

    /// Time has passed, if the filter asked to be told.
    pub fn tick(&mut self) {
        if host(|host| host.tick_periods_ms.get(&self.root).is_some_and(|period| *period > 0)) {
            callback(self.root, || proxy_on_tick(self.root));
            self.collect();
        }
    }

    /// Lets what is on the way break off, and ends every request; each must have had its answer.
    pub fn finish(mut self) {
        host(|host| host.no_endpoints = false);
        self.break_off();
        assert!(self.answered.values().all(|answered| *answered), "a request waits for ever");
        for id in self.answered.keys().copied().collect::<Vec<_>>() {
            self.respond(id, &[(":status", "200")]);
            self.leave(id);
        }
        self.break_off();
    }

    fn break_off(&mut self) {
        while host(|host| !host.callouts.is_empty()) {
            self.deliver(None);
        }
    }

    /// The last reply, which must have been to this request.
    pub fn reply(&self, id: u32) -> &Reply {
        match self.events.last() {
            Some((to, Event::Replied(reply))) if *to == id => reply,
            other => panic!("the request {id} got no reply, but {other:?}"),
        }
    }

    fn answer(&mut self, id: u32) {
        let answered = self.answered.get_mut(&id).expect("an answer to nobody");
        assert!(!std::mem::replace(answered, true), "the request {id} got a second answer");
    }

    /// Notes what became of requests. As on Envoy, a reply passes the filter on its way to the client.
    fn collect(&mut self) {
        for (id, event) in host(|host| std::mem::take(&mut host.events)) {
            self.answer(id);
            self.events.push((id, event.clone()));
            if let Event::Replied(reply) = event {
                let headers =
                    [(":status".to_owned(), reply.status.to_string())].into_iter().chain(reply.headers);
                let headers: Vec<(String, String)> = headers.collect();
                let sent: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                assert_eq!(self.respond(id, &sent), headers, "a reply is complete as it is");
            }
        }
    }
}

/// A request with a path and an API key.
pub fn request(path: Option<&'static str>, key: Option<&[u8]>) -> Headers {
    let path = path.map(|path| (":path", path.into()));
    let key = key.map(|key| ("x-api-key", key.to_vec()));
    [(":method", b"GET".to_vec())].into_iter().chain(path).chain(key).collect()
}

/// What the oldest callout asks.
pub fn asked() -> TakeRequest<'static> {
    let body = host(|host| host.callouts[0].body.clone());
    serde_json::from_slice(body.leak()).expect("the callout speaks the contract")
}

/// The key of each take that is on the way.
pub fn keys_on_the_way() -> Vec<String> {
    asked().takes.iter().map(|take| take.buckets[0].key.to_string()).collect()
}

/// An answer that decides each take of the oldest callout in turn by `pattern`.
pub fn decided(pattern: &[bool]) -> CalloutAnswer {
    if host(|host| host.callouts[0].path != contract::TAKE_PATH) {
        return Some((marked("200"), b"{}".to_vec()));
    }
    let verdict = |(take, allowed): (&Take, &bool)| {
        if take.kind == Kind::Lease {
            let bucket =
                json!({"outcome": "allowed", "remaining": 0, "retry_after_us": 0, "full_after_us": 1});
            let tokens = if *allowed { take.buckets[0].cost } else { 0 };
            let buckets = vec![bucket; take.buckets.len()];
            return json!({"leased": {"tokens": tokens, "lapses_at_us": 9, "buckets": buckets}});
        }
        let word = if *allowed || take.kind != Kind::Take { "allowed" } else { "denied" };
        let bucket = json!({"outcome": word, "remaining": 0, "retry_after_us": u64::from(!*allowed), "full_after_us": 1});
        json!({ word: vec![bucket; take.buckets.len()] })
    };
    let verdicts: Vec<Value> = asked().takes.iter().zip(pattern.iter().cycle()).map(verdict).collect();
    Some((marked("200"), json!({"now_us": 1, "verdicts": verdicts}).to_string().into_bytes()))
}

/// The headers of an answer that a sidecar wrote.
pub fn marked(status: &'static str) -> Headers {
    vec![(":status", status.into()), ("x-sluice-contract", b"1".to_vec())]
}

/// How far a counter has come since the test began.
pub fn counted(name: &str) -> i64 {
    host(|host| host.counters.get(name).copied().unwrap_or_default())
}
