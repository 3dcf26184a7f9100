//! A store that remembers denials against one that asks each time, both on a real Redis.
//!
//! Time passes for both at once: the buckets are rewritten as if counted earlier, and the store's clock is put forward
//! as far. Limits refill in hours, so that what the test itself takes decides nothing.

mod support;

use std::{
    collections::HashMap,
    future::poll_fn,
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bucket::{Kind, Lease, Limit, Terms};
use contract::{BucketVerdict, Outcome, Verdict};
use sluice::{
    batch::{Ask, Batch, Take, bucket_key},
    store::{
        Answer,
        denials::DenyCache,
        redis::{Asking, RedisAddress, RedisStore, Timeouts},
    },
};
use support::{Random, RedisServer};

/// Longer than all the time that is let pass: nothing is late, and no link is idle for so long that it is probed.
const TIMEOUTS: Timeouts = Timeouts { answer: YEAR, connect: YEAR };
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const MINUTE: Duration = Duration::from_secs(60);
const KEYS: u64 = 4;

/// Long, so that a lease hardly ever lapses between the question to one Redis and to the other.
const TERMS: Terms = Terms { ttl_us: 3_600_000_000, share_percent: 60 };

async fn store(server: &RedisServer, deny_cache: DenyCache) -> RedisStore {
    let address = RedisAddress::parse(&server.url()).expect("the URL is right");
    RedisStore::start(address, Asking { deny_cache, ..TIMEOUTS.into() }).await
}

async fn take(store: &RedisStore, takes: &[Take]) -> Answer {
    store.take(Batch { takes: takes.to_vec() }).await.expect("not overloaded")
}

/// Lets time pass for the stores, and not for Redis.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn of_one(key: u64, limit: Limit, cost_tokens: u64, kind: Kind) -> Take {
    Take { buckets: vec![Ask { bucket_key: name(key), limit, cost_tokens }], kind, follows: false }
}

/// Two sidecars on one Redis that remember, and one on another that asks each time.
struct Twins {
    remembering: [RedisStore; 2],
    asking: RedisStore,
    servers: [RedisServer; 2],
    ceiling: Duration,
    limits: Vec<Limit>,
    passed: Duration,
    /// For each sidecar that remembers, when something was last returned to a bucket by way of the other, or its limit
    /// was changed.
    loosened: [HashMap<String, Duration>; 2],
    /// Leases that have not ended, though they may have lapsed: of which key, under which limit, and as each Redis
    /// granted them.
    leases: Vec<(u64, Limit, [Lease; 2])>,
    wrongly_denied: u64,
}

/// What else than takes there is.
#[derive(Clone, Copy, PartialEq)]
enum Mix {
    Charges,
    Everything,
}

impl Twins {
    async fn start(ceiling: Duration, entries: usize) -> Self {
        let servers = [RedisServer::start(), RedisServer::start()];
        let cache = DenyCache { entries, ceiling };
        let remembering = [store(&servers[0], cache).await, store(&servers[0], cache).await];
        let asking = store(&servers[1], DenyCache { ceiling: Duration::ZERO, ..cache }).await;
        let limits = (0..KEYS).map(|key| limit(1 + key % 3, 5)).collect();
        Self {
            remembering,
            asking,
            servers,
            ceiling,
            limits,
            passed: Duration::ZERO,
            loosened: [HashMap::new(), HashMap::new()],
            leases: Vec::new(),
            wrongly_denied: 0,
        }
    }

    async fn step(&mut self, random: &mut Random, mix: Mix) {
        match random.below(20) {
            0..=2 => self.pass(MINUTE * random.below(45) as u32).await,
            3 if mix == Mix::Everything => {
                let key = random.below(KEYS);
                self.limits[key as usize] = limit(1 + random.below(3), 3 + random.below(5));
                for loosened in &mut self.loosened {
                    loosened.insert(name(key), self.passed);
                }
            }
            4 if mix == Mix::Everything => self.lease(random).await,
            5 | 6 if mix == Mix::Everything && !self.leases.is_empty() => self.end_lease(random).await,
            _ => self.ask(random, mix).await,
        }
    }

    async fn ask(&mut self, random: &mut Random, mix: Mix) {
        let takes = any_takes(random, &self.limits, mix);
        self.compare(random.below(2) as usize, &takes, mix).await;
    }

    /// What one of the sidecars tells, and what is true.
    async fn compare(&mut self, asked_of: usize, takes: &[Take], mix: Mix) {
        let remembered = take(&self.remembering[asked_of], takes).await;
        let truth = take(&self.asking, takes).await;
        assert_eq!(remembered.verdicts.len(), takes.len());
        for ((take, told), truth) in takes.iter().zip(&remembered.verdicts).zip(&truth.verdicts) {
            if matches!(take.kind, Kind::Refund) {
                self.returned_by(asked_of, take);
            }
            match (told, truth) {
                (Verdict::Allowed(told), Verdict::Allowed(truth)) => assert_alike(told, truth),
                (Verdict::Denied(told), Verdict::Denied(truth)) => assert_denied_alike(told, truth),
                (Verdict::Denied(_), Verdict::Allowed(_)) if mix == Mix::Everything => {
                    self.wrongly_denied(asked_of, take).await;
                }
                differs => panic!("{differs:?}\nfor {take:?}\nin {takes:?}"),
            }
        }
    }

    /// Tokens in advance, by way of either sidecar.
    async fn lease(&mut self, random: &mut Random) {
        let key = random.below(2);
        let limit = self.limits[key as usize];
        let lease = of_one(key, limit, 1 + random.below(3), Kind::Lease(TERMS));
        let stores = [&self.remembering[random.below(2) as usize], &self.asking];
        let mut granted = Vec::new();
        for store in stores {
            let answer = take(store, std::slice::from_ref(&lease)).await;
            let [Verdict::Leased { tokens, lapses_at_us, .. }] = answer.verdicts[..] else {
                panic!("{answer:?} for {lease:?}")
            };
            granted.push(Lease { tokens, lapses_at_us });
        }
        assert_eq!(granted[0].tokens, granted[1].tokens, "for {lease:?}");
        if granted[0].tokens > 0 {
            self.leases.push((key, limit, [granted[0], granted[1]]));
        }
    }

    /// Returns what was not spent of a lease, by way of either sidecar, between two questions to the same.
    async fn end_lease(&mut self, random: &mut Random) {
        let place = random.below(self.leases.len() as u64) as usize;
        let (key, limit, granted) = self.leases.swap_remove(place);
        let unspent = random.below(granted[0].tokens + 1);
        let returned = granted.map(|lease| of_one(key, limit, unspent, Kind::Return(lease)));
        let asked_of = random.below(2) as usize;
        let once = [of_one(key, self.limits[key as usize], 1, Kind::Take)];
        self.compare(asked_of, &once, Mix::Everything).await;
        for (store, returned) in [&self.remembering[asked_of], &self.asking].into_iter().zip(&returned) {
            let answer = take(store, std::slice::from_ref(returned)).await;
            assert!(matches!(answer.verdicts[..], [Verdict::Allowed(_)]), "{answer:?} for {returned:?}");
        }
        self.returned_by(asked_of, &returned[0]);
        self.compare(asked_of, &once, Mix::Everything).await;
    }

    /// The sidecar that was asked knows of it at once.
    fn returned_by(&mut self, asked_of: usize, take: &Take) {
        let passed = self.passed;
        self.loosened[1 - asked_of].extend(take.buckets.iter().map(|ask| (ask.bucket_key.clone(), passed)));
    }

    /// Denied what is allowed: lately, something was returned to one of the buckets by way of the other sidecar, or its
    /// limit was changed. What the other took meanwhile is undone, so that both go on alike.
    async fn wrongly_denied(&mut self, asked_of: usize, wrongly: &Take) {
        let loosened = &self.loosened[asked_of];
        let lately =
            |ask: &Ask| loosened.get(&ask.bucket_key).is_some_and(|&at| self.passed - at < self.ceiling);
        assert!(
            wrongly.buckets.iter().any(lately),
            "{wrongly:?} was denied for longer than the ceiling, or by who should know"
        );
        self.wrongly_denied += 1;
        let [mut remembering, mut asking] = self.servers.each_ref().map(RedisServer::connection);
        for Ask { bucket_key, .. } in &wrongly.buckets {
            let get = redis::pipe().get(bucket_key).pttl(bucket_key).query(&mut remembering);
            let (value, time_to_live_ms): (Option<String>, i64) = get.expect("Redis reads");
            let () = match value {
                Some(value) => redis::cmd("SET")
                    .arg(&[bucket_key, &value, "PX", &time_to_live_ms.to_string()])
                    .query(&mut asking)
                    .expect("Redis writes"),
                None => redis::cmd("DEL").arg(bucket_key).query(&mut asking).expect("Redis deletes"),
            };
        }
    }

    /// Lets time pass for the buckets and the stores alike.
    async fn pass(&mut self, time: Duration) {
        for server in &self.servers {
            let mut redis = server.connection();
            let keys: Vec<String> =
                redis::cmd("KEYS").arg("sluice:1:?*/*").query(&mut redis).expect("Redis lists");
            for key in keys {
                let value: String = redis::cmd("GET").arg(&key).query(&mut redis).expect("Redis reads");
                let mut numbers: Vec<i64> =
                    value.split(' ').map(|number| number.parse().expect("a number")).collect();
                // When it was counted, and when its leases lapse, of which there may be none.
                for at_us in numbers.iter_mut().skip(2).step_by(2).filter(|at_us| **at_us > 0) {
                    *at_us -= time.as_micros() as i64;
                }
                let value = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
                let set = redis::cmd("SET").arg(&key).arg(value).arg("KEEPTTL").clone();
                let () = set.query(&mut redis).expect("Redis writes");
            }
        }
        for lease in self.leases.iter_mut().flat_map(|(_, _, granted)| granted) {
            lease.lapses_at_us -= time.as_micros() as u64;
        }
        pass(time).await;
        self.passed += time;
    }

    /// How many runs each Redis was asked for.
    fn runs(&self) -> [u64; 2] {
        self.servers.each_ref().map(|server| server.runs())
    }
}

fn limit(tokens_per_hour: u64, burst: u64) -> Limit {
    Limit::new(tokens_per_hour, 3_600_000_000, burst).expect("valid")
}

fn name(key: u64) -> String {
    bucket_key("test", "hourly", &key.to_string())
}

/// A few takes of one or two buckets. Where something may be denied wrongly, one at a time: then it is undone before the
/// next.
fn any_takes(random: &mut Random, limits: &[Limit], mix: Mix) -> Vec<Take> {
    let count = 1 + if mix == Mix::Everything { 0 } else { random.below(4) };
    (0..count)
        .map(|place| {
            // Few, so that what was returned by one sidecar is soon asked of the other.
            let keys = if mix == Mix::Everything { 2 } else { KEYS };
            let first = random.below(keys);
            let second = (first + 1 + random.below(keys - 1)) % keys;
            let mut keys = vec![first];
            keys.extend(random.percent(40).then_some(second));
            let kind = match random.below(12) {
                // Few where something is returned, too, so that this is felt.
                0 if mix == Mix::Charges || random.percent(20) => Kind::Charge,
                1 | 2 if mix == Mix::Everything => Kind::Refund,
                _ => Kind::Take,
            };
            let follows = place > 0 && random.percent(20);
            let ask = |key: &u64| Ask {
                bucket_key: name(*key),
                limit: limits[*key as usize],
                cost_tokens: [0, 1, 1, 1, 1, 1, 1, 1, 2, 6][random.below(10) as usize],
            };
            Take { buckets: keys.iter().map(ask).collect(), kind, follows }
        })
        .collect()
}

fn assert_alike(told: &[BucketVerdict], truth: &[BucketVerdict]) {
    let of = |buckets: &[BucketVerdict]| {
        buckets.iter().map(|bucket| (bucket.outcome, bucket.remaining)).collect::<Vec<_>>()
    };
    assert_eq!(of(told), of(truth));
}

/// At least one bucket is said to deny, and what never fits is told apart. How the others stood may have been heard
/// before.
fn assert_denied_alike(told: &[BucketVerdict], truth: &[BucketVerdict]) {
    assert_eq!(told.len(), truth.len());
    assert!(told.iter().any(|bucket| bucket.outcome != Outcome::Allowed));
    for (told, truth) in told.iter().zip(truth) {
        if told.outcome == Outcome::NeverFits || truth.outcome == Outcome::NeverFits {
            assert_eq!(told.outcome, truth.outcome);
        }
        assert_eq!(told.retry_after_us.is_none(), told.outcome == Outcome::NeverFits);
    }
}

async fn play(ceiling: Duration, entries: usize, mix: Mix, steps: usize) -> Twins {
    let mut random = Random::from_environment();
    let mut twins = Twins::start(ceiling, entries).await;
    for _ in 0..steps {
        twins.step(&mut random, mix).await;
    }
    twins
}

#[tokio::test]
async fn what_is_remembered_is_what_redis_would_decide() {
    for (ceiling, entries) in [(MINUTE * 60 * 24, 64), (MINUTE * 30, 64), (MINUTE * 90, 2)] {
        let twins = play(ceiling, entries, Mix::Charges, 500).await;
        let [remembering, asking] = twins.runs();
        assert!(remembering < asking, "nothing was answered from memory: {remembering} runs of {asking}");
    }
}

#[tokio::test]
async fn what_is_returned_is_seen_by_all_within_the_ceiling() {
    let twins = play(MINUTE * 40, 64, Mix::Everything, 3000).await;
    let [remembering, asking] = twins.runs();
    assert!(remembering < asking, "nothing was answered from memory: {remembering} runs of {asking}");
    assert!(twins.wrongly_denied > 0, "no refund was ever noticed late: the test tests nothing");
}

#[tokio::test]
async fn what_is_returned_by_the_same_sidecar_is_seen_at_once() {
    let server = RedisServer::start();
    let store = store(&server, DenyCache { ceiling: MINUTE * 60, ..DenyCache::default() }).await;
    let ask = Ask { bucket_key: name(0), limit: limit(1, 1), cost_tokens: 1 };
    let plain = |kind| Take { buckets: vec![ask.clone()], kind, follows: false };
    let (once, back) = (plain(Kind::Take), plain(Kind::Refund));
    let allowed = |answer: Answer| {
        answer.verdicts.iter().map(|verdict| matches!(verdict, Verdict::Allowed(_))).collect::<Vec<_>>()
    };
    assert_eq!(allowed(take(&store, &[once.clone(), once.clone()]).await), [true, false]);
    assert_eq!(server.runs(), 1);
    assert_eq!(allowed(take(&store, &[once.clone(), once.clone()]).await), [false, false]);
    assert_eq!(server.runs(), 1, "known to be denied");
    let mixed = [once.clone(), back.clone(), once.clone(), once.clone()];
    assert_eq!(allowed(take(&store, &mixed).await), [false, true, true, false]);
    assert_eq!(server.runs(), 2);
    assert_eq!(allowed(take(&store, &[back, once]).await), [true, true]);
}

#[tokio::test]
async fn a_batch_that_is_known_in_part_keeps_its_order_and_its_time_goes_on() {
    let server = RedisServer::start();
    let store = store(&server, DenyCache { ceiling: MINUTE * 60, ..DenyCache::default() }).await;
    let of = |key: u64, burst| {
        let ask = Ask { bucket_key: name(key), limit: limit(1, burst), cost_tokens: 1 };
        Take { buckets: vec![ask], kind: Kind::Take, follows: false }
    };
    take(&store, &[of(0, 1), of(1, 9)]).await;
    let heard = take(&store, &[of(0, 1)]).await;
    let Verdict::Denied(first) = &heard.verdicts[0] else { panic!("{heard:?}") };
    pass(MINUTE).await;
    let known = take(&store, &[of(0, 1)]).await;
    let Verdict::Denied(later) = &known.verdicts[0] else { panic!("{known:?}") };
    let minute_us = MINUTE.as_micros() as u64;
    let waited_us = first[0].retry_after_us.expect("a wait") - later[0].retry_after_us.expect("a wait");
    assert!((minute_us..minute_us * 2).contains(&waited_us), "{waited_us}");
    assert_eq!(known.now_us - heard.now_us, waited_us, "the store's time goes on as far");
    let mixed = take(&store, &[of(1, 9), of(0, 1), of(1, 9)]).await;
    let remaining = |verdict: &Verdict| match verdict {
        Verdict::Allowed(buckets) => Some(buckets[0].remaining),
        _ => None,
    };
    assert_eq!(mixed.verdicts.iter().map(remaining).collect::<Vec<_>>(), [Some(7), None, Some(6)]);
}

#[tokio::test]
async fn what_is_known_is_denied_while_redis_is_gone() {
    let server = RedisServer::start();
    let store = store(&server, DenyCache { ceiling: MINUTE * 60, ..DenyCache::default() }).await;
    let ask = |key| Ask { bucket_key: name(key), limit: limit(1, 1), cost_tokens: 1 };
    let of = |key| Take { buckets: vec![ask(key)], kind: Kind::Take, follows: false };
    take(&store, &[of(0), of(0)]).await;
    server.kill();
    support::wait_until("the loss to be noticed", async || store.ready().is_err()).await;
    let answer = take(&store, &[of(1), of(0)]).await;
    assert!(matches!(answer.verdicts[..], [Verdict::Failed(_), Verdict::Denied(_)]), "{answer:?}");
}

#[tokio::test]
async fn a_denial_that_is_heard_after_its_wait_is_not_repeated() {
    const WAIT: Duration = Duration::from_secs(30 * 60);
    let timeouts = Timeouts { answer: WAIT * 4, connect: WAIT * 4 };
    let deny_cache = DenyCache { ceiling: WAIT * 4, ..DenyCache::default() };
    // Heard in time, it is repeated; heard late, the bucket must be asked.
    for (heard_after, asked) in [(Duration::ZERO, 1), (WAIT * 2, 2)] {
        let server = RedisServer::start();
        let address = RedisAddress::parse(&server.url()).expect("the URL is right");
        let store = RedisStore::start(address, Asking { deny_cache, ..timeouts.into() }).await;
        let limit = Limit::new(1, WAIT.as_micros() as u64, 1).expect("valid");
        let once = of_one(0, limit, 1, Kind::Take);
        // It was counted in the days to come, so that its wait is the same whenever it is decided.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let empty = format!("0 {} {}", limit.period_us(), (now + WAIT * 100).as_micros());
        let () = redis::cmd("SET").arg(name(0)).arg(empty).query(&mut server.connection()).expect("set");
        server.freeze();
        let mut waiting = Box::pin(take(&store, std::slice::from_ref(&once)));
        // All runs in turn on this one thread: it arrives, and is sent.
        for _ in 0..100 {
            assert!(poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await.is_pending());
            tokio::task::yield_now().await;
        }
        pass(heard_after).await;
        server.thaw();
        let answer = waiting.await;
        let [Verdict::Denied(buckets)] = &answer.verdicts[..] else { panic!("{answer:?}") };
        assert_eq!(buckets[0].retry_after_us, Some(WAIT.as_micros() as u64));
        assert!(matches!(take(&store, &[once]).await.verdicts[..], [Verdict::Denied(_)]));
        assert_eq!(server.runs(), asked, "heard after {heard_after:?}");
    }
}
