//! Tokens taken in advance for keys that are asked about often: who gets a lease, and what is left of it. There is no
//! clock and no Envoy here; times are those of the worker's clock.
//!
//! A lease is spent until three quarters of its time are over, counted from before it was asked for. The store ends it
//! no earlier than after all of it, counted from its decision: so nothing is spent that the store counts as gone, and
//! what is returned comes in time. What is not returned, the store counts as spent.

use std::collections::VecDeque;
use std::hash::RandomState;

use contract::{BucketVerdict, Leased};
use denials::aged;
use hashlink::LruCache;
use policy::{Ask, Lease};

/// The most keys of which is known how often they are asked about; of more, those that were not asked about for longest
/// are forgotten.
const MAX_KEYS: usize = 1_024;

/// So many requests within the time of a lease make a key hot.
const HOT_REQUESTS: u64 = 4;

/// Beyond any burst, and exact everywhere.
const MOST_TOKENS: u64 = 1 << 52;

/// The leases of one worker.
pub struct Leases {
    keys: LruCache<Ask, Key, RandomState>,
    ended: Vec<Ended>,
    /// How many are held.
    held: usize,
}

/// A lease that is not spent from any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub ask: Ask,
    pub leased: Leased,
    pub unspent_tokens: u64,
}

/// What is known of one key.
#[derive(Default)]
struct Key {
    /// The time in which `requests` came, and before it as much time in which `requests_before` did.
    window_start_us: u64,
    requests: u64,
    requests_before: u64,
    /// Oldest first.
    held: VecDeque<Held>,
    /// Before this no lease is asked for: one is on the way, or there was none to have.
    ask_again_at_us: u64,
}

/// A lease that is spent from.
struct Held {
    leased: Leased,
    unspent_tokens: u64,
    spend_until_us: u64,
    heard_at_us: u64,
    /// How the buckets stood when it was granted, without its tokens.
    buckets: Vec<BucketVerdict>,
}

impl Leases {
    pub fn new() -> Self {
        Self { keys: LruCache::with_hasher(MAX_KEYS, RandomState::new()), ended: Vec::new(), held: 0 }
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// A request has come that asks `ask`; `lease` are the terms of its policy. Whether a lease pays for it.
    pub fn see(&mut self, ask: &Ask, lease: Lease, now_us: u64) -> bool {
        if let Some(key) = self.keys.get_mut(ask) {
            key.see(lease, now_us);
            while let Some(held) = key.take_over(ask.cost_tokens, now_us) {
                self.held = self.held.saturating_sub(1);
                self.ended.push(held.end(ask.clone()));
            }
            return !key.held.is_empty();
        }
        // What the least asked about holds is returned, not lost.
        if self.keys.len() >= MAX_KEYS
            && let Some((ask, key)) = self.keys.remove_lru()
        {
            self.held = self.held.saturating_sub(key.held.len());
            self.ended.extend(key.held.into_iter().map(|held| held.end(ask.clone())));
        }
        let mut key = Key { window_start_us: now_us, ..Key::default() };
        key.see(lease, now_us);
        self.keys.insert(ask.clone(), key);
        false
    }

    /// Pays for `ask` what [`Leases::see`] said, where `paid`: how its buckets stand then. And how many tokens a lease is
    /// to be asked for now, with `patience_us` until the next may be; 0 where none is needed, since the key is not
    /// hot or holds enough, or one is on the way.
    pub fn spend(
        &mut self,
        ask: &Ask,
        lease: Lease,
        paid: bool,
        now_us: u64,
        patience_us: u64,
    ) -> (Option<Vec<BucketVerdict>>, u64) {
        let Some(key) = self.keys.get_mut(ask) else { return (None, 0) };
        let known = if paid { key.spend(ask.cost_tokens, now_us) } else { None };
        let wanted = key.wanted(ask.cost_tokens, lease, now_us);
        if wanted > 0 {
            key.ask_again_at_us = now_us.saturating_add(patience_us);
        }
        (known, wanted)
    }

    /// A lease was granted that had been asked for at `asked_at_us`.
    pub fn granted(
        &mut self,
        ask: &Ask,
        lease: Lease,
        leased: Leased,
        buckets: Vec<BucketVerdict>,
        asked_at_us: u64,
        heard_at_us: u64,
    ) {
        let spend_us = ttl_us(lease).saturating_mul(3) >> 2;
        let spend_until_us = asked_at_us.saturating_add(spend_us);
        let held = Held { leased, unspent_tokens: leased.tokens, spend_until_us, heard_at_us, buckets };
        match self.keys.get_mut(ask) {
            Some(key) => {
                key.ask_again_at_us = heard_at_us;
                key.held.push_back(held);
                self.held = self.held.saturating_add(1);
            }
            None => self.ended.push(held.end(ask.clone())),
        }
    }

    /// There was no lease to have: it is not asked for one again too soon.
    pub fn refused(&mut self, ask: &Ask, lease: Lease, heard_at_us: u64) {
        if let Some(key) = self.keys.get_mut(ask) {
            key.ask_again_at_us = heard_at_us.saturating_add(ttl_us(lease) >> 2);
        }
    }

    /// Ends every lease whose time is over.
    pub fn end_all(&mut self, now_us: u64) {
        for (ask, key) in &mut self.keys {
            while let Some(held) = key.take_over(0, now_us) {
                self.held = self.held.saturating_sub(1);
                self.ended.push(held.end(ask.clone()));
            }
        }
    }

    /// Those that have ended since this was last asked.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }
}

impl Key {
    fn see(&mut self, lease: Lease, now_us: u64) {
        let ttl_us = ttl_us(lease);
        let elapsed_us = now_us.saturating_sub(self.window_start_us);
        if elapsed_us >= ttl_us {
            let just_over = elapsed_us < ttl_us.saturating_mul(2);
            self.requests_before = if just_over { self.requests } else { 0 };
            (self.window_start_us, self.requests) = (now_us, 0);
        }
        self.requests = self.requests.saturating_add(1);
    }

    /// The oldest lease, where its time is over or it holds less than a request costs.
    fn take_over(&mut self, cost_tokens: u64, now_us: u64) -> Option<Held> {
        let held = self.held.front()?;
        let over = held.spend_until_us <= now_us || held.unspent_tokens < cost_tokens.max(1);
        if over { self.held.pop_front() } else { None }
    }

    fn spend(&mut self, cost_tokens: u64, now_us: u64) -> Option<Vec<BucketVerdict>> {
        let held = self.held.front_mut()?;
        held.unspent_tokens = held.unspent_tokens.saturating_sub(cost_tokens);
        let unspent_tokens = self.unspent_tokens();
        let last = self.held.back()?;
        let elapsed_us = now_us.saturating_sub(last.heard_at_us);
        let buckets = last.buckets.iter().map(|bucket| {
            let bucket = aged(bucket, elapsed_us);
            BucketVerdict { remaining: bucket.remaining.saturating_add(unspent_tokens), ..bucket }
        });
        Some(buckets.collect())
    }

    fn wanted(&self, cost_tokens: u64, lease: Lease, now_us: u64) -> u64 {
        let requests = self.requests.max(self.requests_before);
        if now_us < self.ask_again_at_us || requests < HOT_REQUESTS || cost_tokens == 0 {
            return 0;
        }
        let lately = requests.saturating_mul(cost_tokens);
        let wanted = lately.min(lease.most_tokens.unwrap_or(u64::MAX)).min(MOST_TOKENS);
        // The next is asked for while half of it is left, so that nobody has to wait for it.
        if wanted < cost_tokens || self.unspent_tokens() > wanted >> 1 { 0 } else { wanted }
    }

    fn unspent_tokens(&self) -> u64 {
        self.held.iter().fold(0, |sum, held| sum.saturating_add(held.unspent_tokens))
    }
}

impl Held {
    fn end(self, ask: Ask) -> Ended {
        Ended { ask, leased: self.leased, unspent_tokens: self.unspent_tokens }
    }
}

fn ttl_us(lease: Lease) -> u64 {
    u64::try_from(lease.ttl.as_micros()).unwrap_or(u64::MAX)
}
