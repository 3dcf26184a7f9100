//! What must hold, whatever anybody writes or sends. Everything here panics where it does not.

use contract::{Leased, MAX_BUCKETS, MAX_KEY_BYTES, Take, TakeRequest, Verdict};
use policy::{Answer, Ask, ConfigError, Decided, Failure, OnError, Place, Policies, Policy, Step};
use serde_json::Value;

use crate::{
    answered,
    batch::Batch,
    check::{self, inspect::File},
    memory,
    sent::{Received, Sent},
};

/// The outcome of reading a configuration.
pub type Outcome = Result<Policies, ConfigError>;

/// Reads a configuration within a bounded memory. Whatever is accepted can be used; whatever is refused has a place.
pub fn reading(bytes: &[u8]) -> Outcome {
    // A value in memory is larger than the two bytes that may have written it, and so is what is wrong with it. What a
    // regular expression may need is bounded, too.
    let regexes = bytes.windows(5).filter(|word| word == b"regex").count();
    let enough_bytes = (2 << 20) + 96 * bytes.len() + (256 << 10) * regexes;
    let outcome = memory::within(enough_bytes, || Policies::from_bytes(bytes));
    match &outcome {
        Ok(policies) => accepted(policies),
        Err(error) => {
            assert!(!error.to_string().is_empty(), "refused without a word");
            if let ConfigError::Invalid(problems) = error {
                assert!(!problems.is_empty(), "refused for nothing");
                assert!(problems.iter().all(|problem| !problem.message.is_empty()), "{problems:?}");
            }
        }
    }
    outcome
}

/// Each place that is named is there, or is a field that is missing.
pub fn places(outcome: &Outcome, configuration: &Value) {
    let Err(ConfigError::Invalid(problems)) = outcome else { return };
    for problem in problems {
        assert!(leads_into(&problem.place, configuration), "{problem}: there is no such place");
    }
}

fn leads_into(place: &Place, configuration: &Value) -> bool {
    let Some((last, before)) = place.0.split_last() else { return true };
    let inside = before.iter().try_fold(configuration, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Item(index) => value.get(index),
    });
    match (inside, last) {
        (Some(Value::Object(_)), Step::Field(_)) => true,
        (Some(Value::Array(items)), Step::Item(index)) => *index < items.len(),
        _ => false,
    }
}

/// Two ways to write one configuration mean the same, or are wrong in the same places.
pub fn alike(one: &Outcome, other: &Outcome) {
    // Each has its own bounds, and an empty Struct has no bytes.
    if [one, other].iter().any(|outcome| !matches!(outcome, Ok(_) | Err(ConfigError::Invalid(_)))) {
        return;
    }
    let told = |outcome: &Outcome| match outcome {
        Ok(policies) => format!("{policies:?}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(told(one), told(other));
}

fn accepted(policies: &Policies) {
    assert!(contract::is_name(policies.domain()), "{:?} is no domain", policies.domain());
    let timeout_ms = policies.sidecar().timeout.as_millis();
    assert!((1..=60_000).contains(&timeout_ms), "a timeout of {timeout_ms} ms");
    policies.iter().for_each(shares);
    assert!(policies.warnings().iter().all(|warning| !warning.message.is_empty()));
    let plain = Sent::default().header(":path", b"/a").header(":method", b"GET").header(":authority", b"a");
    let dear = Received::of("x-tokens-used", b"18446744073709551616");
    for sent in [Sent::default(), plain] {
        let asks = asking(policies, &sent);
        for failure in [Failure::NotSent, Failure::StoreFull, Failure::TooManyPolicies] {
            sendable(&policies.failed(&asks, failure));
            sendable(&policies.failed_locally(&asks, failure));
            locally(policies, &asks, failure);
        }
        let takes = policies.takes(&asks);
        let denied: Vec<_> = takes.iter().map(|take| answered::denied(take.buckets.len())).collect();
        let _denied = answering(policies, &asks, &denied, u32::MAX);
        let allowed: Vec<_> = takes.iter().map(|take| answered::allowed(take.buckets.len())).collect();
        let charged = answering(policies, &asks, &allowed, u32::MAX).charged;
        billing(policies, &asks, &charged, &dear, u64::MAX);
    }
}

/// An Envoy by itself allows no more than all of them.
fn shares(policy: &Policy) {
    let local = if policy.on_error() == OnError::Local { policy.limits().len() } else { 0 };
    assert_eq!(policy.local_limits().len(), local, "{policy:?}");
    for (own, all) in policy.local_limits().iter().zip(policy.limits()) {
        let (own, all) = (own.limit, all.limit);
        assert!((1..=all.burst_tokens()).contains(&own.burst_tokens()), "{own:?} of {all:?}");
        let speed =
            |limit: bucket::Limit, by: bucket::Limit| u128::from(limit.tokens()) * u128::from(by.period_us());
        assert!(speed(own, all) <= speed(all, own), "{own:?} of {all:?}");
    }
}

/// What an Envoy's own buckets decide can be sent, too.
fn locally(policies: &Policies, asks: &[Ask], failure: Failure) {
    let places = policies.local_asks(asks);
    for verdict in [answered::allowed, answered::denied] {
        let mut known = vec![None; asks.len()];
        for &place in &places {
            let count = policies.get(&asks[place]).map_or(0, |policy| policy.local_limits().len());
            let (Verdict::Allowed(buckets) | Verdict::Denied(buckets)) = verdict(count) else { continue };
            known[place] = Some(buckets);
        }
        let answer = policies.locally(asks, &known, failure, u32::MAX);
        sendable(&answer);
        assert!(!answer.charged.contains(&true), "nothing is to be settled: {answer:?}");
    }
}

/// What is asked for a request: little, and nothing that a sidecar would refuse, since it shares a batch with others.
#[must_use]
pub fn asking(policies: &Policies, sent: &Sent) -> Vec<Ask> {
    // Metadata of a route is read like a configuration.
    let asks = memory::within((1 << 20) + 96 * sent.bytes(), || policies.asks(sent).asks);
    for ask in &asks {
        assert!(ask.key.len() <= MAX_KEY_BYTES, "a key of {} bytes", ask.key.len());
        assert!(policies.get(ask).is_some(), "nobody's ask: {ask:?}");
        leasing(policies, ask);
    }
    let takes = policies.takes(&asks);
    assert_eq!(takes.len(), Policies::take_count(&asks));
    assert_eq!(takes.iter().map(|take| take.buckets.len()).sum::<usize>(), policies.bucket_count(&asks));
    // Too many are not sent: see `Failure::TooManyPolicies`.
    if policies.bucket_count(&asks) <= MAX_BUCKETS {
        acceptable(policies, takes);
    }
    asks
}

/// A lease of what an ask asks, and its return, are nothing that a sidecar would refuse.
fn leasing(policies: &Policies, ask: &Ask) {
    for tokens in [1, 1 << 52] {
        let Some(lease) = policies.lease_take(ask, tokens, false) else { return };
        let follows = policies.lease_take(ask, tokens, true).is_some_and(|take| take.follows);
        assert!(follows, "a lease that goes with a request follows it");
        let granted = Leased { tokens, lapses_at_us: 1 };
        acceptable(
            policies,
            vec![lease, policies.return_take(ask, granted, 0), policies.return_take(ask, granted, tokens)],
        );
    }
}

/// A sidecar takes these takes.
fn acceptable(policies: &Policies, takes: Vec<Take<'_>>) {
    if takes.is_empty() {
        return;
    }
    let request = TakeRequest { domain: policies.domain().into(), takes };
    if let Err(refusal) = Batch::try_from(&request) {
        panic!("a sidecar refuses it: {refusal}: {request:?}");
    }
}

/// Whatever is answered can be sent, and nobody is denied by nobody.
#[must_use]
pub fn answering(policies: &Policies, asks: &[Ask], verdicts: &[Verdict], draw: u32) -> Answer {
    let answer =
        policies.answer(asks, verdicts, draw).unwrap_or_else(|failure| policies.failed(asks, failure));
    sendable(&answer);
    assert!(answer.charged.len() <= asks.len(), "{answer:?}");
    let denied = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Denied(_)));
    assert!(denied || answer.decided != Decided::Shared || answer.denial.is_none(), "{answer:?}");
    answer
}

/// What is still to be paid is nothing that a sidecar would refuse.
pub fn billing(policies: &Policies, asks: &[Ask], charged: &[bool], received: &Received, body_bytes: u64) {
    let bill = policies.bill(asks, charged, received);
    let takes = bill.takes(policies, asks, body_bytes);
    assert!(takes.is_empty() || policies.settles(asks), "nobody settles: {takes:?}");
    if policies.bucket_count(asks) <= MAX_BUCKETS {
        acceptable(policies, takes);
    }
}

/// Whatever is said about a file is about a place in it, and steers no terminal.
pub fn checking(name: &str, text: &str) {
    // As much as the values of one file may take, and what is made of them.
    let enough_bytes = (512 << 20) + 256 * text.len();
    let said = memory::within(enough_bytes, || {
        let file = File::of_text(name, text.to_owned());
        let findings = file.inspect().findings;
        for at in findings.iter().filter_map(|finding| finding.at) {
            assert!(at.start <= at.end && at.end <= text.len(), "{at:?} of {} bytes", text.len());
        }
        let mut said = Vec::new();
        check::write_all(&file, &findings, &mut said).expect("there is always room in memory");
        said
    });
    let said = String::from_utf8(said).expect("it is text");
    let colored = |after: &str| after.strip_prefix('[').and_then(|after| after.split_once('m')).is_some();
    for (index, part) in said.split('\x1b').enumerate() {
        assert!(index == 0 || colored(part), "{part:?}");
        assert!(!part.chars().any(|sign| sign.is_control() && sign != '\n'), "{part:?}");
    }
}

fn sendable(answer: &Answer) {
    answer.headers.iter().for_each(header);
    assert!(is_line(&answer.report), "{:?}", answer.report);
    let Some(denial) = &answer.denial else { return };
    assert!((400..600).contains(&denial.status), "status {}", denial.status);
    assert!((0..=16).contains(&denial.grpc_status), "grpc-status {}", denial.grpc_status);
    assert!(is_line(&denial.details) && !denial.details.contains(' '), "{:?}", denial.details);
    assert!(is_line(&denial.message), "{:?}", denial.message);
    denial.headers.iter().for_each(header);
}

fn header((name, value): &policy::Header) {
    let token =
        |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || b"!#$%&'*+-.^_`|~".contains(&byte);
    assert!(!name.is_empty() && name.bytes().all(token), "{name:?} is no header's name");
    assert!(is_line(value), "{name}: {value:?}");
}

/// Whether it can stand in a header.
fn is_line(text: &str) -> bool {
    !text.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control())
}
