//! Two clients under one key: it is the same text exactly where they are the same client.

#![no_main]

use arbitrary::{Result, Unstructured};
use hostile::clients::{Client, Part};
use libfuzzer_sys::{Corpus, fuzz_target};
use policy::Policies;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match two_clients(&mut Unstructured::new(bytes)) {
        Ok(()) => Corpus::Keep,
        Err(_) => Corpus::Reject,
    }
});

fn two_clients(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut parts = Vec::new();
    for _ in 0..bytes.int_in_range(1..=8)? {
        parts.push(*bytes.choose(&Part::ALL)?);
    }
    let key: Vec<_> = parts.iter().map(|part| part.written()).collect();
    let configuration = json!({
        "sidecar": {"cluster": "sluice"},
        "hash_secret": "at least 16 bytes",
        "policies": [{"name": "a", "key": key, "limit": "1/s"}],
    });
    // Not every list of parts makes sense.
    let Ok(policies) = Policies::from_value(configuration.clone()) else { return Ok(()) };

    let one: Client = bytes.arbitrary()?;
    let other = if bytes.arbitrary()? { one.disguised(bytes)? } else { bytes.arbitrary()? };
    let told = |client: &Client| parts.iter().map(|part| client.value(*part)).collect::<Vec<_>>();
    let (one_sent, other_sent) = (one.sent(bytes)?, other.sent(bytes)?);
    let (one_asks, other_asks) = (policies.asks(&one_sent).asks, policies.asks(&other_sent).asks);
    let ([one_ask], [other_ask]) = (one_asks.as_slice(), other_asks.as_slice()) else {
        panic!("the policy has no condition: {one_asks:?}, {other_asks:?}");
    };
    assert_eq!(
        one_ask.key == other_ask.key,
        told(&one) == told(&other),
        "{configuration}\n{one:?}\n{other:?}\n{one_sent:?}\n{other_sent:?}\n{}\n{}",
        one_ask.key,
        other_ask.key,
    );
    Ok(())
}
