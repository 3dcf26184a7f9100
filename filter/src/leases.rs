//! Tokens taken in advance for keys that are asked about often: who gets a lease, and what is left of it. There is no
//! clock and no Envoy here; times are those of the worker's clock.
//!
//! A lease is spent until three quarters of its time are over, counted from before it was asked for. The store ends it
//! no earlier than after all of it, counted from its decision: so nothing is spent that the store counts as gone, and
//! what is returned comes in time. What is not returned, the store counts as spent.

use std::collections::VecDeque;
use std::hash::RandomState;

use contract::{BucketVerdict, Leased, Outcome};
use denials::aged;
use hashlink::LruCache;
use policy::{Ask, Lease};

use crate::whose::{Owner, Whose};

/// The most keys of which is known how often they are asked about; of more, those that were not asked about for longest
/// are forgotten.
const MAX_KEYS: usize = 1_024;

/// So many requests within the time of a lease make a key hot.
const HOT_REQUESTS: u64 = 4;

/// Beyond any burst, and exact everywhere.
const MOST_TOKENS: u64 = 1 << 52;

/// The leases of one worker.
pub struct Leases {
    keys: LruCache<Owner, Key, RandomState>,
    ended: Vec<Ended>,
    /// How many are held.
    held: usize,
}

/// A lease that is not spent from any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose it was.
    pub ask: Ask,
    pub leased: Leased,
    pub unspent_tokens: u64,
}

/// What is known of one key.
#[derive(Default)]
struct Key {
    /// The time in which `seen` came, and before it as much time in which `seen_before` did.
    window_start_us: u64,
    seen: Seen,
    seen_before: Seen,
    /// Oldest first.
    held: VecDeque<Held>,
    /// How the buckets stood when they were last heard of, without what is leased.
    buckets: Vec<BucketVerdict>,
    heard_at_us: u64,
    /// Before this no lease is asked for: one is on the way, or there was none to have.
    ask_again_at_us: u64,
}

/// What was asked for within the time of a lease.
#[derive(Clone, Copy, Default)]
struct Seen {
    requests: u64,
    tokens: u64,
}

/// A lease that is spent from.
struct Held {
    leased: Leased,
    unspent_tokens: u64,
    spend_until_us: u64,
}

impl Leases {
    pub fn new() -> Self {
        Self { keys: LruCache::with_hasher(MAX_KEYS, RandomState::new()), ended: Vec::new(), held: 0 }
    }

    /// Whether none is held, nor waits for being returned.
    pub fn is_empty(&self) -> bool {
        self.held == 0 && self.ended.is_empty()
    }

    /// A request has come that asks `ask`; `lease` are the terms of its policy. Whether a lease pays for it.
    pub fn see(&mut self, ask: &Ask, lease: Lease, now_us: u64) -> bool {
        if let Some(key) = self.keys.get_mut(ask as &dyn Whose) {
            key.see(ask.cost_tokens, lease, now_us);
            while let Some(held) = key.take_over(ask.cost_tokens, now_us) {
                self.held = self.held.saturating_sub(1);
                self.ended.push(held.end(ask.into()));
            }
            return !key.held.is_empty();
        }
        // What the least asked about holds is returned, not lost.
        if self.keys.len() >= MAX_KEYS
            && let Some((owner, key)) = self.keys.remove_lru()
        {
            self.held = self.held.saturating_sub(key.held.len());
            self.ended.extend(key.held.into_iter().map(|held| held.end(owner.clone())));
        }
        let mut key = Key { window_start_us: now_us, ..Key::default() };
        key.see(ask.cost_tokens, lease, now_us);
        self.keys.insert(ask.into(), key);
        false
    }

    /// Pays for `ask`, where [`Leases::see`] said that a lease does: how its buckets stand then.
    pub fn spend(&mut self, ask: &Ask, now_us: u64) -> Option<Vec<BucketVerdict>> {
        self.keys.get_mut(ask as &dyn Whose)?.spend(ask.cost_tokens, now_us)
    }

    /// How a key stands: whether a lease is held, and how many tokens one is to be asked for, 0 where none is needed or
    /// to be had.
    pub fn stands(&self, ask: &Ask, lease: Lease, now_us: u64) -> (bool, u64) {
        let wanted = |key: &Key| (!key.held.is_empty(), key.wanted(ask.cost_tokens, lease, now_us));
        self.keys.peek(ask as &dyn Whose).map_or((false, 0), wanted)
    }

    /// A lease is asked for, and none is again until `again_at_us` unless it is answered before.
    pub fn asked(&mut self, ask: &Ask, again_at_us: u64) {
        if let Some(key) = self.keys.get_mut(ask as &dyn Whose) {
            key.ask_again_at_us = again_at_us;
        }
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
        let held = Held { leased, unspent_tokens: leased.tokens, spend_until_us };
        match self.keys.get_mut(ask as &dyn Whose) {
            // What pays for no request is of no use.
            Some(key) if leased.tokens < ask.cost_tokens => {
                key.ask_again_at_us = heard_at_us.saturating_add(ttl_us(lease) >> 2);
                self.ended.push(held.end(ask.into()));
            }
            Some(key) => {
                key.ask_again_at_us = heard_at_us;
                (key.buckets, key.heard_at_us) = (buckets, heard_at_us);
                key.held.push_back(held);
                self.held = self.held.saturating_add(1);
            }
            None => self.ended.push(held.end(ask.into())),
        }
    }

    /// A request that asks `ask` was decided without a lease, and its buckets stood like this; whether one is held. Where
    /// an operator has overridden the limit none is, so that everybody is held to what is in its place.
    pub fn saw(&mut self, ask: &Ask, buckets: &[BucketVerdict], heard_at_us: u64) -> bool {
        if is_overridden(buckets) {
            self.end(ask);
            return false;
        }
        let Some(key) = self.keys.peek_mut(ask as &dyn Whose).filter(|key| !key.held.is_empty()) else {
            return false;
        };
        (key.buckets, key.heard_at_us) = (buckets.to_vec(), heard_at_us);
        true
    }

    /// A request that asks `ask` is decided without a lease, though some may be held: they end where the buckets may not
    /// have enough without them.
    pub fn make_way(&mut self, ask: &Ask) {
        let Some(key) = self.keys.peek(ask as &dyn Whose) else { return };
        let enough = key.unspent_tokens().max(ask.cost_tokens);
        if key.buckets.iter().any(|bucket| bucket.remaining <= enough) {
            self.end(ask);
        }
    }

    /// Ends every lease of a key.
    fn end(&mut self, ask: &Ask) {
        let Some(key) = self.keys.peek_mut(ask as &dyn Whose) else { return };
        self.held = self.held.saturating_sub(key.held.len());
        self.ended.extend(key.held.drain(..).map(|held| held.end(ask.into())));
    }

    /// There was no lease to have, and the buckets stood like this where that is known: it is not asked for one again too
    /// soon.
    pub fn refused(&mut self, ask: &Ask, lease: Lease, buckets: &[BucketVerdict], heard_at_us: u64) {
        if is_overridden(buckets) {
            self.end(ask);
        }
        if let Some(key) = self.keys.get_mut(ask as &dyn Whose) {
            key.ask_again_at_us = heard_at_us.saturating_add(ttl_us(lease) >> 2);
        }
    }

    /// Ends every lease whose time is over.
    pub fn end_all(&mut self, now_us: u64) {
        for (owner, key) in &mut self.keys {
            while let Some(held) = key.take_over(0, now_us) {
                self.held = self.held.saturating_sub(1);
                self.ended.push(held.end(owner.clone()));
            }
        }
    }

    /// One that has ended and is not returned yet.
    pub fn take_ended(&mut self) -> Option<Ended> {
        self.ended.pop()
    }
}

impl Key {
    fn see(&mut self, cost_tokens: u64, lease: Lease, now_us: u64) {
        let ttl_us = ttl_us(lease);
        let elapsed_us = now_us.saturating_sub(self.window_start_us);
        if elapsed_us >= ttl_us {
            let just_over = elapsed_us < ttl_us.saturating_mul(2);
            self.seen_before = if just_over { self.seen } else { Seen::default() };
            (self.window_start_us, self.seen) = (now_us, Seen::default());
        }
        self.seen.requests = self.seen.requests.saturating_add(1);
        self.seen.tokens = self.seen.tokens.saturating_add(cost_tokens);
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
        let elapsed_us = now_us.saturating_sub(self.heard_at_us);
        let buckets = self.buckets.iter().map(|bucket| {
            let bucket = aged(bucket, elapsed_us);
            let remaining = bucket.remaining.saturating_add(unspent_tokens);
            // What was heard last may have been a denial to one who was not paid for.
            BucketVerdict { outcome: Outcome::Allowed, remaining, retry_after_us: Some(0), ..bucket }
        });
        Some(buckets.collect())
    }

    fn wanted(&self, cost_tokens: u64, lease: Lease, now_us: u64) -> u64 {
        let lately = [self.seen, self.seen_before].into_iter().max_by_key(|seen| seen.requests);
        let Seen { requests, tokens } = lately.unwrap_or_default();
        if now_us < self.ask_again_at_us || requests < HOT_REQUESTS {
            return 0;
        }
        let wanted = tokens.min(lease.most_tokens.unwrap_or(u64::MAX)).min(MOST_TOKENS);
        // The next is asked for while half of it is left, so that nobody has to wait for it.
        if wanted < cost_tokens || self.unspent_tokens() > wanted >> 1 { 0 } else { wanted }
    }

    fn unspent_tokens(&self) -> u64 {
        self.held.iter().fold(0, |sum, held| sum.saturating_add(held.unspent_tokens))
    }
}

impl Held {
    fn end(self, owner: Owner) -> Ended {
        Ended { ask: owner.into(), leased: self.leased, unspent_tokens: self.unspent_tokens }
    }
}

fn is_overridden(buckets: &[BucketVerdict]) -> bool {
    buckets.iter().any(|bucket| bucket.overridden.is_some())
}

fn ttl_us(lease: Lease) -> u64 {
    u64::try_from(lease.ttl.as_micros()).unwrap_or(u64::MAX)
}
