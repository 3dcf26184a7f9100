//! Policies are found without asking each: what is found is what asking each would find.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use policy::{Ask, Policies, ROUTE_NAME, Request};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::sent::{Sent, policies};

/// A request that counts how often each thing is read of it.
struct Counting<'a> {
    sent: &'a Sent,
    reads: RefCell<BTreeMap<String, usize>>,
}

impl<'a> Counting<'a> {
    fn new(sent: &'a Sent) -> Self {
        Self { sent, reads: RefCell::default() }
    }

    fn read(&self, what: &str) {
        *self.reads.borrow_mut().entry(what.to_owned()).or_default() += 1;
    }
}

impl Request for Counting<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.read(name);
        self.sent.header(name)
    }

    fn cookies(&self) -> Vec<Cow<'_, [u8]>> {
        self.read("cookies");
        self.sent.cookies()
    }

    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        self.read(path);
        self.sent.attribute(path)
    }

    fn draw(&self) -> u32 {
        self.read("draw");
        self.sent.draw()
    }
}

/// What is read for a request, and what is asked.
fn read(policies: &Policies, sent: &Sent) -> (BTreeMap<String, usize>, Vec<Ask>) {
    let counting = Counting::new(sent);
    let asked = policies.asks(&counting);
    (counting.reads.into_inner(), asked.asks)
}

/// Few, so that they meet; some within others.
const TEXTS: [&str; 12] =
    ["/", "/a", "/a/", "/a/b", "/a/bc", "/ab", "/b", "/b/a", "/b/a/b/c", "/c%61", "/ü", "/a/b/c/d/e/f"];
const WORDS: [&str; 8] = ["", "a", "b", "ab", "aba", "5", "true", "gold"];
const HOSTS: [&str; 6] = ["a.example", "b.example", "x.a.example", "example", "[::1]", "a"];

fn condition() -> impl Strategy<Value = Value> {
    let word = || select(&WORDS[..]);
    let test = || {
        prop_oneof![
            word().prop_map(|text| json!({"exact": text})),
            select(&WORDS[1..]).prop_map(|text| json!({"prefix": text})),
            select(&WORDS[1..]).prop_map(|text| json!({"suffix": text})),
            Just(json!("present")),
        ]
    };
    let host = prop_oneof![
        select(&HOSTS[..]).prop_map(str::to_owned),
        select(&HOSTS[..4]).prop_map(|host| format!("*.{host}")),
    ];
    let hosts = prop::collection::vec(host, 1..3);
    let methods = prop::collection::vec(select(&["GET", "POST", "PUT"][..]), 1..3);
    let header = select(&["x-a", "x-b"][..]);
    let leaf = prop_oneof![
        4 => select(&TEXTS[..]).prop_map(|text| json!({"path": {"exact": text}})),
        4 => select(&TEXTS[..]).prop_map(|text| json!({"path": {"prefix": text}})),
        2 => hosts.prop_map(|hosts| json!({"host": hosts})),
        1 => methods.prop_map(|methods| json!({"method": methods})),
        2 => (header, test()).prop_map(|(name, test)| json!({"header": {name: test}})),
        1 => test().prop_map(|test| json!({"query": {"q": test}})),
        1 => test().prop_map(|test| json!({"cookie": {"c": test}})),
        1 => test().prop_map(|test| json!({"dynamic_metadata": {"namespace": "n", "path": ["m"], "is": test}})),
        1 => select(&WORDS[1..]).prop_map(|name| json!({"route_name": [name]})),
        1 => Just(json!({"client_address": ["192.0.2.0/25"]})),
        1 => Just(json!({"percent": 50})),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            2 => several.clone().prop_map(|all| json!({"all": all})),
            2 => several.prop_map(|any| json!({"any": any})),
            1 => inner.prop_map(|not| json!({"not": not})),
        ]
    })
}

/// Many policies, most of which are alike, as are those of real configurations: else hardly any could be looked up.
fn many() -> impl Strategy<Value = Policies> {
    let path = select(&TEXTS[..]);
    let by_path =
        (path, select(&["exact", "prefix"][..])).prop_map(|(text, form)| json!({"path": {form: text}}));
    let by_host = select(&HOSTS[..]).prop_map(|host| json!({"host": [host]}));
    let by_header = select(&WORDS[1..]).prop_map(|word| json!({"header": {"x-a": {"suffix": word}}}));
    let by_metadata = select(&WORDS[..]).prop_map(
        |word| json!({"dynamic_metadata": {"namespace": "n", "path": ["m"], "is": {"exact": word}}}),
    );
    let one = prop_oneof![
        4 => by_path,
        2 => by_host,
        2 => by_header,
        2 => by_metadata,
        5 => condition(),
        1 => Just(Value::Null),
    ];
    prop::collection::vec(one, 1..90).prop_map(|conditions| {
        let all = conditions.into_iter().enumerate().map(|(place, condition)| {
            let mut policy = json!({"name": format!("p{place}"), "key": ["method"], "limit": "1 per day"});
            // In shadow, so that one request may have as many as there are.
            policy["mode"] = json!("shadow");
            if !condition.is_null() {
                policy["match"] = condition;
            }
            policy
        });
        policies(all.collect())
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let path = (select(&TEXTS[..]), select(&["", "/b", "c", "?q=a", "?q=aba#x", "/b/c?q", "#?q=a"][..]));
    let host = (select(&HOSTS[..]), select(&["", ":80", ".", "."][..]));
    let word = || prop::option::of(select(&WORDS[..]).prop_map(str::as_bytes));
    let number = 5.0_f64.to_le_bytes();
    let metadata = prop_oneof![
        word().prop_map(|word| word.map(<[u8]>::to_vec)),
        Just(Some(number.to_vec())),
        Just(Some(vec![1])),
    ];
    let address = select(&["192.0.2.1:1", "192.0.2.200:1", "@socket"][..]);
    let method = select(&["GET", "POST", "get"][..]);
    (
        prop::option::of(path),
        prop::option::of(host),
        (word(), word(), word(), word()),
        metadata,
        (address, method),
        any::<u32>(),
    )
        .prop_map(|(path, host, (a, b, cookie, route), metadata, (address, method), draw)| {
            let mut sent = Sent::default().method(method).from(address).drawing(draw);
            if let Some((path, rest)) = path {
                sent = sent.header(":path", format!("{path}{rest}"));
            }
            if let Some((host, port)) = host {
                sent = sent.header(":authority", format!("{}{port}", host.to_uppercase()));
            }
            let named = [("x-a", a), ("x-b", b)].into_iter().filter_map(|(name, word)| Some((name, word?)));
            for (name, word) in named {
                sent = sent.header(name, word);
            }
            if let Some(cookie) = cookie {
                sent = sent.header("cookie", [b"b=1; c=", cookie].concat());
            }
            if let Some(route) = route {
                sent = sent.attribute(ROUTE_NAME, route);
            }
            if let Some(metadata) = metadata {
                sent = sent.attribute("metadata|filter_metadata|n|m", metadata);
            }
            sent
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_found_is_what_asking_each_finds(policies in many(), sent in prop::collection::vec(sent(), 1..20)) {
        for sent in sent {
            let (reads, asks) = read(&policies, &sent);
            let mut met: Vec<usize> = Vec::new();
            met.extend(policies.iter().enumerate().filter(|(_, policy)| policy.matches(&sent)).map(|(place, _)| place));
            let answers = policies.answers(&sent);
            prop_assert_eq!(answers.len(), policies.iter().len());
            // What is beyond a take's buckets makes way, the last of them first.
            met.truncate(asks.len());
            let found: Vec<usize> = asks.iter().map(|ask| ask.policy).collect();
            prop_assert_eq!(found, met);
            let answered: Vec<Ask> = answers.into_iter().flatten().collect();
            prop_assert_eq!(asks, answered);
            prop_assert!(reads.values().all(|count| *count == 1), "read twice: {:?}", reads);
        }
    }
}

/// So many policies, each on the path of its number and as `and` has it besides.
fn on_paths(count: usize, and: &Value) -> Policies {
    let policy = |place: usize| {
        let mut condition = json!({"path": {"prefix": format!("/p{place}/")}});
        condition.as_object_mut().expect("a mapping").extend(and.as_object().expect("a mapping").clone());
        json!({"name": format!("p{place}"), "key": [{"header": "x-api-key"}], "limit": "1 per day", "match": condition})
    };
    policies((0..count).map(policy).collect())
}

fn names(reads: &BTreeMap<String, usize>) -> Vec<&str> {
    reads.keys().map(String::as_str).collect()
}

#[test]
fn nothing_is_read_that_decides_nothing() {
    let sent = Sent::get("/p7/x").header(":authority", "a.example").header("x-api-key", "k");
    for count in [8, 16, 100, 1_000] {
        let policies = on_paths(count, &json!({"host": ["a.example"], "header": {"x-a": "present"}}));
        assert_eq!(names(&read(&policies, &Sent::get("/other")).0), [":path"], "of {count}");
        // The host and the header are only of interest once the path is right; they are, and the header is not there.
        assert_eq!(names(&read(&policies, &sent).0), [":authority", ":path", "x-a"], "of {count}");
        let (reads, asks) = read(&on_paths(count, &json!({})), &sent);
        assert_eq!(asks.iter().map(|ask| ask.policy).collect::<Vec<_>>(), [7]);
        assert_eq!(names(&reads), [":path", "x-api-key", "xds\0route_metadata"], "of {count}");
    }
}

#[test]
fn a_host_is_read_only_where_enough_policies_are_told_by_it() {
    let on_hosts = |count: usize| {
        let policy = |place: usize| {
            json!({"name": format!("p{place}"), "key": [], "limit": "1 per day",
                "match": {"method": ["POST"], "host": [format!("h{place}.example"), format!("*.h{place}.example")]}})
        };
        policies((0..count).map(policy).collect())
    };
    let sent = |method, host| Sent::get("/").method(method).header(":authority", host);
    let asks = |count, method, host| {
        let (reads, asks) = read(&on_hosts(count), &sent(method, host));
        (names(&reads).join(" "), asks.iter().map(|ask| ask.policy).collect::<Vec<_>>())
    };
    assert_eq!(asks(16, "GET", "h3.example"), (":method".to_owned(), vec![]));
    assert_eq!(asks(100, "GET", "other.example"), (":authority".to_owned(), vec![]));
    for host in ["h42.example", "a.H42.example:80"] {
        assert_eq!(asks(100, "POST", host).1, [42], "{host}");
    }
}
