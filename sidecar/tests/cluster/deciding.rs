//! What a Cluster decides when it is well: the same as one Redis, and all or none over several slots.

use std::{collections::HashMap, sync::Arc};

use bucket::{Kind, Lease, Terms};
use contract::{Outcome, Verdict};
use sluice::{
    batch::{Batch, Take},
    store::{Store, redis::cluster::slot::slot_of},
};

use crate::support::*;

/// Splitmix64: each number determined by the one before.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[tokio::test]
async fn a_cluster_decides_as_one_store_does_whatever_the_slots() {
    let cluster = cluster(&[]);
    for key in ["", "a", "}", "{", "}{", "{}", "a}b", "{a}", "header:x=ü", "a{b}c", "\r\n\0"] {
        assert_eq!(slot_of(&name(key)), cluster.slot_of(&name(key)).expect("told"), "{key:?}");
    }

    // Buckets that do not fill while the test lasts tell the same whenever they are asked, but for the times.
    let (one, store) = (Store::memory(1_000), store(&cluster, PATIENT).await);
    let seed = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for _ in 0..1_500 {
        let led = 1 + random.below(3);
        let takes: Vec<Take> = (0..led).map(|place| any_take(&mut random, place > 0)).collect();
        let expected = one.take(Batch { takes: takes.clone() }).await.expect("not overloaded");
        let found = decide(&store, takes.clone()).await;
        for ((found, expected), take) in found.iter().zip(&expected.verdicts).zip(&takes) {
            assert_eq!(told(found), told(expected), "{found:?} instead of {expected:?} in {takes:?}");
            let spread = take
                .buckets
                .iter()
                .any(|ask| slot_of(&ask.bucket_key) != slot_of(&take.buckets[0].bucket_key));
            *seen.entry(if spread { "spread" } else { "one slot" }).or_default() += 1;
            *seen.entry(told(found).0).or_default() += 1;
        }
    }
    println!("{seen:?}");
    for what in ["spread", "one slot", "allowed", "denied"] {
        assert!(seen[what] > 200, "the steps were one-sided: {seen:?}");
    }
}

fn any_take(random: &mut Random, follows: bool) -> Take {
    let keys = ["a", "b", "c", "d", "e", "f"];
    let count = 1 + random.below(3) as usize;
    let first = random.below(6) as usize;
    let buckets = (0..count).map(|place| {
        let key = keys[(first + place) % keys.len()];
        let policy = if random.below(2) == 0 { "slow" } else { "other" };
        let mut ask = ask(key, 9, random.below(4));
        ask.bucket_key = sluice::batch::bucket_key("test", policy, key);
        ask
    });
    let buckets = buckets.collect();
    let kind = match random.below(10) {
        0..6 => Kind::Take,
        6..9 => Kind::Refund,
        _ => Kind::Charge,
    };
    Take { buckets, kind, follows }
}

/// What does not depend on the clock.
fn told(verdict: &Verdict) -> (&'static str, Vec<(Outcome, u64)>) {
    let word = match verdict {
        Verdict::Allowed(_) => "allowed",
        Verdict::Denied(_) => "denied",
        Verdict::Leased { .. } => "leased",
        Verdict::Failed(_) => "failed",
    };
    (word, buckets(verdict).iter().map(|bucket| (bucket.outcome, bucket.remaining)).collect())
}

#[tokio::test]
async fn many_at_once_get_exactly_the_burst_of_each_bucket() {
    const BURST: u64 = 300;
    let cluster = cluster(&[]);
    // A bucket that all take from, and one of each client, in slots of all three primaries.
    let stores = [store(&cluster, PATIENT).await, store(&cluster, PATIENT).await];
    let keys: Arc<Vec<String>> = Arc::new((0..12).map(|key| key_of(&cluster, key % 3, key)).collect());
    let tasks = (0..48).map(|task: usize| {
        let (store, keys) = (Arc::clone(&stores[task % 2]), Arc::clone(&keys));
        tokio::spawn(async move {
            let mut allowed = HashMap::<String, u64>::new();
            for _ in 0..20 {
                // Of requests in a batch, some take from one bucket and some from two.
                let both = take(vec![ask("everybody", BURST, 1), ask(&keys[task % 12], 40, 1)]);
                let single = take(vec![ask(&keys[(task + 1) % 12], 40, 1)]);
                let takes = [both, single];
                for (verdict, take) in decide(&store, takes.to_vec()).await.iter().zip(&takes) {
                    match verdict {
                        Verdict::Allowed(_) => take.buckets.iter().for_each(|ask| {
                            *allowed.entry(ask.bucket_key.clone()).or_default() += ask.cost_tokens;
                        }),
                        Verdict::Denied(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            allowed
        })
    });
    let mut allowed = HashMap::<String, u64>::new();
    for task in tasks.collect::<Vec<_>>() {
        for (key, count) in task.await.expect("no panic") {
            *allowed.entry(key).or_default() += count;
        }
    }
    // Nothing is lost where nothing fails: refunds included, what was admitted and what is left are the burst.
    for (key, burst) in keys.iter().map(|key| (key.as_str(), 40)).chain([("everybody", BURST)]) {
        let (taken, left) =
            (allowed.get(&name(key)).copied().unwrap_or(0), left(&stores[0], key, burst).await);
        assert_eq!(Some(burst - taken), left, "{taken} were taken of {key}");
    }
    assert!(allowed[&name("everybody")] > 0);
    let runs: u64 = cluster.nodes().iter().map(|node| calls(node, "evalsha")).sum();
    println!("{runs} runs for {} takes", 48 * 20 * 2);
}

#[tokio::test]
async fn a_take_over_several_slots_is_taken_from_all_buckets_or_from_none() {
    let cluster = cluster(&[]);
    let store = store(&cluster, PATIENT).await;
    let [a, b, c] = [0, 1, 2].map(|primary| key_of(&cluster, primary, 0));
    let three = |cost: [u64; 3]| vec![ask(&a, 5, cost[0]), ask(&b, 5, cost[1]), ask(&c, 5, cost[2])];
    assert_eq!(remaining(&decide_one(&store, take(three([1, 2, 3]))).await), [4, 3, 2]);

    // The second slot denies: the first is given back, the third only looked at, and each tells how it stands.
    let denied = decide_one(&store, take(three([1, 4, 1]))).await;
    assert!(matches!(denied, Verdict::Denied(_)), "{denied:?}");
    assert_eq!(remaining(&denied), [4, 3, 2]);
    let outcomes: Vec<Outcome> = buckets(&denied).iter().map(|bucket| bucket.outcome).collect();
    assert_eq!(outcomes, [Outcome::Allowed, Outcome::Denied, Outcome::Allowed]);
    assert_eq!(buckets(&denied)[0].retry_after_us, Some(0));
    let denied = decide_one(&store, take(three([1, 1, 6]))).await;
    assert_eq!(buckets(&denied)[2].outcome, Outcome::NeverFits);
    assert_eq!(remaining(&denied), [4, 3, 2]);

    // A follower elsewhere is made where its leader was, and otherwise looks and leaves no trace.
    let shadow = |cost| follower(vec![ask("shadow", 5, cost), ask(&b, 5, 0)]);
    let made = decide(&store, vec![take(three([1, 1, 1])), shadow(2)]).await;
    assert_eq!((remaining(&made[0]), remaining(&made[1])), (vec![3, 2, 1], vec![3, 2]));
    let looked = decide(&store, vec![take(three([1, 3, 1])), shadow(3), shadow(4)]).await;
    assert!(
        matches!(&looked[..], [Verdict::Denied(_), Verdict::Allowed(_), Verdict::Denied(_)]),
        "{looked:?}"
    );
    assert_eq!(remaining(&looked[1]), [3, 2]);
    assert_eq!(left(&store, "shadow", 5).await, Some(3));
    let single = decide(&store, vec![take(vec![ask(&a, 5, 9)]), follower(vec![ask(&c, 5, 1)])]).await;
    assert!(matches!(&single[..], [Verdict::Denied(_), Verdict::Allowed(_)]), "{single:?}");
    assert_eq!(left(&store, &c, 5).await, Some(1), "it only looked");

    // Refunds and charges are made wherever they are; a lease over several slots grants nothing.
    let refund = decide_one(&store, of_kind(Kind::Refund, three([1, 1, 1]))).await;
    assert_eq!(remaining(&refund), [4, 3, 2]);
    let charge = decide_one(&store, of_kind(Kind::Charge, three([9, 0, 1]))).await;
    assert_eq!(remaining(&charge), [0, 3, 1]);
    let terms = Kind::Lease(Terms { ttl_us: 1_000_000, share_percent: 100 });
    let lease = decide_one(&store, of_kind(terms, three([1, 1, 1]))).await;
    let Verdict::Leased { tokens: 0, lapses_at_us: 1.., buckets: told } = &lease else { panic!("{lease:?}") };
    assert!(told.iter().all(|bucket| bucket.outcome == Outcome::Allowed));
    assert_eq!(remaining(&lease), [0, 3, 1], "nothing was leased");
    let lease = decide_one(&store, of_kind(terms, vec![ask(&b, 5, 2)])).await;
    let Verdict::Leased { tokens: 2, lapses_at_us, .. } = lease else { panic!("{lease:?}") };
    let ended = Kind::Return(Lease { tokens: 2, lapses_at_us });
    assert_eq!(remaining(&decide_one(&store, of_kind(ended, vec![ask(&b, 5, 2)])).await), [3]);

    // What is in one slot is decided at once, whatever else is in the batch.
    let batch =
        (0..100).map(|place| take(vec![ask(&format!("own{place}"), 3, 1), ask("all", 60, 1)])).collect();
    let verdicts = decide(&store, batch).await;
    let allowed = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Allowed(_))).count();
    assert!(allowed <= 60, "{allowed} of 60");
    assert_eq!(left(&store, "all", 60).await, Some(60 - allowed as u64), "denials gave theirs back");
}
