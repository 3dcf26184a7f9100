//! Two clients under one key: it is the same text exactly where they are the same client.

#![no_main]

use arbitrary::{Result, Unstructured};
use hostile::{
    clients::{Client, Part, text},
    sent::Sent,
};
use libfuzzer_sys::{Corpus, fuzz_target};
use policy::Policies;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match try_key(&mut Unstructured::new(bytes)) {
        Ok(()) => Corpus::Keep,
        Err(_) => Corpus::Reject,
    }
});

fn try_key(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut parts = Vec::new();
    for _ in 0..bytes.int_in_range(1..=8)? {
        parts.push(*bytes.choose(&Part::ALL)?);
    }
    let written: Vec<_> = parts.iter().map(|part| part.written()).collect();
    let configuration = json!({
        "sidecar": {"cluster": "sluice"},
        "hash_secret": "at least 16 bytes",
        "policies": [{"name": "a", "key": written, "limit": "1/s"}],
    });
    // Not every list of parts makes sense.
    let Ok(policies) = Policies::from_value(configuration.clone()) else { return Ok(()) };

    let (one, other) = two_clients(bytes, &parts, &policies)?;
    let (one_sent, other_sent) = (one.sent(bytes)?, other.sent(bytes)?);
    let (one_key, other_key) = (key(&policies, &one_sent), key(&policies, &other_sent));
    let told = |client: &Client| parts.iter().map(|part| client.value(*part)).collect::<Vec<_>>();
    assert_eq!(
        one_key == other_key,
        told(&one) == told(&other),
        "{configuration}\n{one:?}\n{other:?}\n{one_sent:?}\n{other_sent:?}\n{one_key}\n{other_key}",
    );
    Ok(())
}

/// Two clients, of which the second does its best to get the key of the first.
fn two_clients(
    bytes: &mut Unstructured<'_>,
    parts: &[Part],
    policies: &Policies,
) -> Result<(Client, Client)> {
    let mut one: Client = bytes.arbitrary()?;
    let shown = key(policies, &one.sent(bytes)?);
    let shown: Vec<&str> = shown.split(',').collect();
    let at = bytes.choose_index(parts.len())?;
    let next = (at + 1).min(parts.len() - 1);
    let (Some(here), Some(there)) = (parts[at].said(), parts[next].said()) else {
        return Ok((one, bytes.arbitrary()?));
    };
    let of = |part: usize| shown.get(part).copied().unwrap_or_default();
    Ok(match bytes.int_in_range(0..=3)? {
        0 => (one, bytes.arbitrary()?),
        1 => {
            let other = one.disguised(bytes)?;
            (one, other)
        }
        2 => {
            // It says what the key shows of the other.
            let mut other = one.clone();
            other.say(here, of(at).split('=').nth(1).map(str::as_bytes));
            (one, other)
        }
        _ => {
            // The same letters in the same order, but a separator is meant as one in another place.
            let separator = format!(",{}=", of(next).split('=').next().unwrap_or_default()).into_bytes();
            let (a, b, c) = (text(bytes)?, text(bytes)?, text(bytes)?);
            let mut other = one.clone();
            one.say(here, Some(&a));
            one.say(there, Some(&[&b[..], &separator, &c].concat()));
            other.say(here, Some(&[&a[..], &separator, &b].concat()));
            other.say(there, Some(&c));
            (one, other)
        }
    })
}

fn key(policies: &Policies, sent: &Sent) -> String {
    let mut asks = policies.asks(sent).asks;
    assert_eq!(asks.len(), 1, "one policy, which has no condition: {asks:?}");
    asks.swap_remove(0).key
}
