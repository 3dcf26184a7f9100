//! From the noisiest client to its bucket, and from there to all Envoys.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use e2e::{Client, by_api_key, strict};
use fleet::{Fleet, Key, Store, eventually, http};
use serde_json::json;

use crate::{Page, under_traffic};

const NOISY: &str = "noisy";
const KEY: &str = "header:x-api-key=noisy";

/// Whatever is done is seen everywhere within a second; and as much again for a machine that has much else to do.
const EVERYWHERE: Duration = Duration::from_secs(2);

fn fleet() -> Fleet {
    let policies = json!([by_api_key("per-client", "6 per minute", 5)]);
    Fleet::builder()
        .filter_configuration(strict(&policies))
        .envoys(3)
        .sidecars(2)
        .store(Store::Redis)
        .start()
        .expect("a fleet")
}

/// Waits until each Envoy answers the noisy client so, and says how long that took.
fn everywhere(fleet: &Fleet, what: &str, holds: impl Fn(&http::Answer) -> bool) {
    let since = Instant::now();
    for envoy in fleet.envoys() {
        let ask = || http::get("/").header("x-api-key", NOISY).send(envoy.addr()).expect("an answer");
        let left = EVERYWHERE.saturating_sub(since.elapsed());
        let mut last = None;
        let seen = eventually(left, what, || {
            let answer = ask();
            let holds = holds(&answer);
            last = Some(answer);
            holds.then_some(())
        });
        seen.unwrap_or_else(|error| panic!("{error} at {}: {}", envoy.addr(), last.expect("an answer")));
    }
    eprintln!("{what}: seen at three Envoys after {:?}", since.elapsed());
}

fn remaining(answer: &http::Answer) -> u64 {
    answer.header("x-ratelimit-remaining").and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[test]
fn the_noisiest_client_is_found_and_its_limit_raised_and_its_bucket_reset_and_blocked() {
    let fleet = fleet();
    let noisy = Client::new(NOISY);
    let calm: Vec<Client> = (0..40).map(|number| Client::new(&format!("calm-{number}"))).collect();
    // Each of them asks for less than its limit.
    let visits = AtomicUsize::new(0);
    let round = || {
        for envoy in fleet.envoys() {
            (0..4).for_each(|_| assert!(noisy.get(envoy.addr(), "/") != 503));
            let visit = visits.fetch_add(1, Ordering::Relaxed);
            if visit < 3 * calm.len() {
                assert_eq!(calm[visit % calm.len()].get(envoy.addr(), "/"), 200);
            }
        }
    };
    let page = Page::open(fleet.sidecar(0).admin_addr());
    page.await_live();
    under_traffic(round, || {
        page.await_text("#most-denied tbody tr:first-child .key", "the most denied", |shown| shown == KEY);
        page.await_text("#hottest tbody tr:first-child .key", "the noisiest", |shown| shown == KEY);
        page.keep_picture("noisy");
        page.browser.click("#hottest tbody tr:first-child .open").expect("clicked");
        page.await_text("#bucket-key", "its bucket", |shown| shown == KEY);
        page.await_text("#bucket-limit", "its limit", |shown| shown == "6 per minute, burst 5");
        page.await_text("#bucket-tokens", "an empty bucket", |shown| shown == "0");
    });
    page.keep_picture("bucket");

    page.browser.write("#bucket-put [name=limit]", "300 per minute").expect("written");
    page.browser.write("#bucket-put [name=burst]", "300").expect("written");
    page.browser.write("#bucket-put [name=reason]", "a test").expect("written");
    page.browser.click("#bucket-put .primary").expect("clicked");
    // What was spent stays spent, and the old limit gives one token in ten seconds.
    everywhere(&fleet, "another limit", |answer| answer.status == 200);
    page.await_text("#bucket-burst", "the other limit", |shown| shown == "300");
    page.await_text("#overrides tbody tr .key", "the override in the list", |_| {
        page.run("return document.querySelector('#overrides tbody .key')?.textContent") == KEY
    });

    page.browser.click("#bucket-reset").expect("clicked");
    everywhere(&fleet, "a full bucket", |answer| answer.status == 200 && remaining(answer) > 280);
    page.await_text("#bucket-said", "that it was done", |shown| shown == "The bucket is full.");

    page.browser.click("#bucket-put [value=blocked]").expect("clicked");
    page.browser.click("#bucket-put .primary").expect("clicked");
    everywhere(&fleet, "a block", |answer| answer.status == 429);
    page.await_text("#bucket-override", "the block", |shown| shown.starts_with("Blocked · ends in "));
    assert_eq!(calm[0].get(fleet.envoy(0).addr(), "/"), 200, "others are governed as before");

    page.browser.click("#bucket-remove").expect("clicked");
    page.await_text("#bucket-override", "no override", |shown| shown == "none");
    page.browser.click("#bucket-reset").expect("clicked");
    everywhere(&fleet, "the limit as configured", |answer| answer.status == 200 && remaining(answer) < 5);
    page.assert_clean();
}

#[test]
fn what_the_sidecar_refuses_is_told_where_it_was_asked() {
    let sidecar = crate::sidecar(|sidecar| sidecar);
    crate::take(&sidecar, "per-client", KEY);
    let page = Page::open(sidecar.admin_addr());
    page.await_live();
    page.browser.write("#find [name=policy]", "per-client").expect("written");
    page.browser.write("#find [name=key]", KEY).expect("written");
    page.browser.click("#find .primary").expect("clicked");
    page.await_text("#bucket-tokens", "its tokens", |shown| shown == "9");
    page.browser.write("#bucket-put [name=limit]", "many").expect("written");
    page.browser.click("#bucket-put .primary").expect("clicked");
    let told = page.await_text("#bucket-problem", "a refusal", |shown| !shown.is_empty());
    assert!(told.starts_with("invalid_override: ") && told.contains("many"), "{told}");
    // A policy that nobody has asked for is not known.
    page.browser.click("#bucket [data-close]").expect("clicked");
    page.browser.write("#find [name=policy]", "-unknown").expect("written");
    page.browser.click("#find .primary").expect("clicked");
    page.await_text("#bucket-problem", "a refusal", |shown| shown.starts_with("unknown_policy: "));
}

#[test]
fn the_keys_go_on_after_one_of_them_was_opened() {
    let sidecar = crate::sidecar(|sidecar| sidecar);
    crate::take(&sidecar, "per-client", "old");
    let page = Page::open(sidecar.admin_addr());
    page.await_text("#hottest tbody tr:first-child .key", "a key", |shown| shown == "old");
    // The mouse stays where it clicked, and closing gives the focus back to what was clicked.
    page.browser.click("#hottest tbody tr:first-child .open").expect("clicked");
    page.await_text("#bucket-tokens", "its tokens", |shown| shown == "9");
    page.browser.press(Key::Escape).expect("pressed");
    let more = || crate::take(&sidecar, "per-client", "new");
    under_traffic(more, || {
        page.await_text("#hottest tbody tr:first-child .key", "the next key", |shown| shown == "new");
    });
    page.assert_clean();
}

#[test]
fn what_is_leased_counts_as_decided() {
    let sidecar = crate::sidecar(|sidecar| sidecar);
    let bucket = json!({"policy": "leased", "key": "a", "tokens": 1000, "period_us": 60_000_000, "burst": 1000, "cost": 900});
    let lease =
        json!({"buckets": [bucket], "kind": "lease", "lease": {"ttl_us": 1_000_000, "share_percent": 100}});
    let body = json!({"domain": "shop", "takes": [lease]}).to_string();
    let page = Page::open(sidecar.admin_addr());
    page.await_live();
    let answer = http::post("/v1/take").body(body).send(sidecar.addr()).expect("an answer");
    assert_eq!(answer.status, 200, "{answer}");
    page.await_text("#decisions-note", "what is leased", |shown| {
        shown == "over the last 10 s, 100% on lease"
    });
    assert_ne!(page.text("#decisions"), "0");
    assert_ne!(page.text("#policies tbody tr:first-child td"), "0");
    page.assert_clean();
}
