//! The policies of one filter, and what they ask for one request.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::iter;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bucket::Limit;
use contract::MAX_BUCKETS;
use sha2::{Digest, Sha256};

use crate::Request;
use crate::answer::{Denied, Headers};
use crate::config::Rate;
use crate::cost::{Cost, Settle, Statuses};
use crate::index::Index;
use crate::key::Key;
use crate::known::Known;
use crate::matcher::Condition;
use crate::part::Part;
use crate::problem::Problem;
use crate::route::{Memo, Said};
use crate::share::Share;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Policies {
    pub(crate) sidecar: Sidecar,
    pub(crate) deny_cache: DenyCache,
    pub(crate) tracing: bool,
    pub(crate) local: Local,
    /// Whether its author said something of it.
    pub(crate) local_is_written: bool,
    pub(crate) domain: String,
    /// A request that meets one of these is exempt.
    pub(crate) skip: Vec<Condition>,
    pub(crate) headers: Headers,
    pub(crate) policies: Vec<Policy>,
    /// Which of them a request can meet, where looking that up costs less than asking each.
    pub(crate) index: Option<Index>,
    pub(crate) routes: Memo,
}

/// Where the decisions are made, and how long a request waits for one.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// The Envoy cluster of the sidecars.
    pub cluster: String,
    /// How long a callout may take; between 1 ms and 60 s.
    pub timeout: Duration,
    /// How many callouts of a worker are on the way before others wait; between 1 and 32.
    pub in_flight: usize,
}

/// What each worker remembers of denials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenyCache {
    /// How long at most; up to 60 s, and 0 remembers nothing.
    pub ceiling: Duration,
    /// Of how many questions; 0 remembers nothing.
    pub entries: usize,
}

/// The buckets of an Envoy's own, for [`OnError::Local`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// How many are kept at most; between 16 and 1,000,000.
    pub buckets: usize,
}

/// How a worker takes tokens in advance for a key that is asked about often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The most tokens of one lease; `None`: as many as were spent lately.
    pub most_tokens: Option<u64>,
    /// How long it may be held; between 10 ms and 60 s.
    pub ttl: Duration,
    /// The most that all leases of a bucket may hold together, in hundredths of its burst; between 1 and 100.
    pub share_percent: u64,
}

/// Limits on those requests that match, for each key apart.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its place in the configuration.
    pub(crate) place: usize,
    pub(crate) name: String,
    pub(crate) condition: Condition,
    pub(crate) key: Key,
    pub(crate) limits: Vec<NamedLimit>,
    pub(crate) cost: Cost,
    pub(crate) lease: Option<Lease>,
    pub(crate) settle: Option<Settle>,
    pub(crate) refund_on: Vec<Statuses>,
    pub(crate) mode: Mode,
    /// For so many of its keys it is enforced.
    pub(crate) enforced: Share,
    pub(crate) only_if_chosen: bool,
    pub(crate) on_error: OnError,
    /// Its limits at the share that one Envoy allows, where it is decided there; otherwise none.
    pub(crate) local: Vec<NamedLimit>,
    pub(crate) denied: Option<Arc<Denied>>,
}

/// One limit of a policy.
#[derive(Clone, Debug)]
pub struct NamedLimit {
    /// The name of its buckets, unique in the domain: the policy's, and of several limits what tells them apart.
    pub name: String,
    /// What each bucket is held to.
    pub limit: Limit,
    /// As people write it, such as `60 per minute`.
    pub text: String,
    /// As the header `RateLimit-Policy` lists it.
    pub(crate) item: String,
    /// As it was written, not in lowest terms.
    pub(crate) rate: Rate,
}

/// What becomes of a request that could not be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It passes.
    Allow,
    /// It is answered with 503.
    Deny,
    /// Buckets of this Envoy's own decide, at a share of the limits.
    Local,
}

/// Whether a policy denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It denies what is beyond its limits.
    Enforce,
    /// It is decided, counted and reported, and never denies.
    Shadow,
    /// It is not asked.
    Off,
}

/// What one policy asks for one request: so many tokens of this key's buckets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The policy's place in the configuration.
    pub policy: usize,
    /// Whose buckets of it.
    pub key: String,
    /// How many tokens of each; 0 only looks.
    pub cost_tokens: u64,
    /// Whether the answer is only reported.
    pub shadow: bool,
}

/// Why a policy asks nothing for a request: the first of these that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unasked {
    /// The request does not meet its conditions.
    Condition,
    /// The request is exempt from every policy.
    Exempt,
    /// The route is.
    RouteSkips,
    /// The route chooses others.
    NotChosen,
    /// It governs only routes that choose it, and this one does not.
    OnlyIfChosen,
    /// The route says so by its mode.
    RouteOff,
    /// Its own mode says so.
    Off,
    /// The request lacks a part of the key.
    LacksKey,
    /// It is in shadow, and all together have more buckets than may be asked for one request.
    MadeWay,
}

/// What is asked for a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// In the order of the configuration; empty where no policy governs the request.
    pub asks: Vec<Ask>,
    /// What is wrong with the metadata of the request's route, which is then as if it were not there.
    pub mistakes: Rc<[Problem]>,
}

impl Policies {
    /// Where the decisions are made.
    #[must_use]
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// What each worker remembers of denials.
    #[must_use]
    pub fn deny_cache(&self) -> DenyCache {
        self.deny_cache
    }

    /// Whether sidecars are told of the traces that requests are part of, where these are sampled.
    #[must_use]
    pub fn tracing(&self) -> bool {
        self.tracing
    }

    /// The buckets of an Envoy's own.
    #[must_use]
    pub fn local(&self) -> Local {
        self.local
    }

    /// Whether chance has a say in what denied clients are told.
    #[must_use]
    pub fn has_jitter(&self) -> bool {
        self.headers.retry_after.is_some_and(|jitter_seconds| jitter_seconds > 0)
    }

    /// The namespace of these policies; the same names in other domains are other buckets.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The policies, in the order of the configuration.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.policies.iter()
    }

    /// The policy that an [`Ask`] is about.
    #[must_use]
    pub fn get(&self, ask: &Ask) -> Option<&Policy> {
        self.policies.get(ask.policy)
    }

    /// Whether a request is exempt from every policy, whatever its route says.
    #[must_use]
    pub fn skips(&self, request: &impl Request) -> bool {
        self.exempts(&Known::new(request))
    }

    fn exempts<'a>(&'a self, request: &Known<'a>) -> bool {
        self.skip.iter().any(|condition| condition.is_met(request))
    }

    /// What the policies ask for a request.
    #[must_use]
    pub fn asks(&self, request: &impl Request) -> Asked {
        let (known, context) = (Known::new(request), OnceCell::new());
        let ask = |place| self.ask(place, self.policies.get(place)?, &known, &context).ok();
        let mut all = 0..self.policies.len();
        let mut found = self.index.as_ref().map(|index| index.candidates(&known));
        let places = iter::from_fn(|| found.as_mut().map_or_else(|| all.next(), Iterator::next));
        let mut asks: Vec<Ask> = places.filter_map(ask).collect();
        self.drop_shadows(&mut asks);
        let said = context.into_inner().flatten();
        Asked { asks, mistakes: said.map(|said| Rc::clone(&said.mistakes)).unwrap_or_default() }
    }

    /// What those policies ask for a request that `counts` lets count, by their places in the configuration. It is asked
    /// right after the policy of that place has read all that it wants to know, each anew: so whoever lends the request can
    /// tell which of them read what.
    pub fn asks_of(&self, request: &impl Request, mut counts: impl FnMut(usize) -> bool) -> Vec<Ask> {
        let ask = |(place, policy)| {
            let asked = self.ask(place, policy, &Known::new(request), &OnceCell::new());
            let does_count = counts(place);
            asked.ok().filter(|_| does_count)
        };
        // Also of one that asks nothing it is to be told: what it could not read may be why.
        let mut asks: Vec<Ask> = self.policies.iter().enumerate().filter_map(ask).collect();
        self.drop_shadows(&mut asks);
        asks
    }

    /// What each policy asks for a request, in the order of the configuration, or why it asks nothing.
    #[must_use]
    pub fn answers(&self, request: &impl Request) -> Vec<Result<Ask, Unasked>> {
        let (known, context) = (Known::new(request), OnceCell::new());
        let all = self.policies.iter().enumerate();
        let mut answers: Vec<_> =
            all.map(|(index, policy)| self.ask(index, policy, &known, &context)).collect();
        let mut kept: Vec<Ask> = answers.iter().flatten().cloned().collect();
        self.drop_shadows(&mut kept);
        for answer in &mut answers {
            if answer.as_ref().is_ok_and(|ask| kept.iter().all(|kept| kept.policy != ask.policy)) {
                *answer = Err(Unasked::MadeWay);
            }
        }
        answers
    }

    /// What one policy asks; `context` is what the request's route says, or `None` for one that is exempt.
    fn ask<'a>(
        &'a self,
        index: usize,
        policy: &'a Policy,
        request: &Known<'a>,
        context: &OnceCell<Option<Rc<Said>>>,
    ) -> Result<Ask, Unasked> {
        if !policy.condition.is_met(request) {
            return Err(Unasked::Condition);
        }
        // Read only once a policy governs the request: most routes say nothing, and it costs a call into Envoy.
        let said = context.get_or_init(|| (!self.exempts(request)).then(|| self.route(request)));
        let route = &said.as_ref().ok_or(Unasked::Exempt)?.route;
        let is_chosen = match &route.policies {
            Some(chosen) => chosen.contains(&index),
            None => !policy.only_if_chosen,
        };
        if route.skip {
            return Err(Unasked::RouteSkips);
        }
        if !is_chosen {
            return Err(if policy.only_if_chosen { Unasked::OnlyIfChosen } else { Unasked::NotChosen });
        }
        let mode = route.mode.unwrap_or(policy.mode);
        if mode == Mode::Off {
            return Err(if route.mode.is_some() { Unasked::RouteOff } else { Unasked::Off });
        }
        let key = policy.key.of(request).ok_or(Unasked::LacksKey)?;
        let shadow = mode == Mode::Shadow || !policy.enforces(&key, request);
        let cost_tokens = route.cost_tokens.unwrap_or_else(|| policy.cost.of(request));
        Ok(Ask { policy: index, key, cost_tokens, shadow })
    }

    /// The mode in which a policy is applied to a request: what the route says, or else its own.
    #[must_use]
    pub fn mode(&self, policy: &Policy, request: &impl Request) -> Mode {
        self.route(&Known::new(request)).route.mode.unwrap_or(policy.mode)
    }

    /// The shares of a million requests that conditions choose at random, each once: whatever is drawn between two
    /// of them means the same.
    #[must_use]
    pub fn shares_ppm(&self) -> BTreeSet<u32> {
        let mut shares = BTreeSet::new();
        let own = self.policies.iter().map(|policy| &policy.condition);
        own.chain(&self.skip).for_each(|condition| condition.add_shares(&mut shares));
        shares.into_iter().map(Share::ppm).collect()
    }

    /// Whether the client's address decides anything.
    #[must_use]
    pub fn uses_client_address(&self) -> bool {
        self.skip.iter().any(is_about_address) || self.policies.iter().any(Policy::uses_client_address)
    }

    /// Leaves out the last of those in shadow where all together have more buckets than a take may have: what is only
    /// watched must not keep the others from being decided.
    fn drop_shadows(&self, asks: &mut Vec<Ask>) {
        let mut beyond = self.bucket_count(asks).saturating_sub(MAX_BUCKETS);
        if beyond == 0 {
            return;
        }
        let mut kept = Vec::with_capacity(asks.len());
        while let Some(ask) = asks.pop() {
            let buckets = self.bucket_count(std::slice::from_ref(&ask));
            if ask.shadow && beyond > 0 {
                beyond = beyond.saturating_sub(buckets);
            } else {
                kept.push(ask);
            }
        }
        kept.reverse();
        *asks = kept;
    }
}

impl Policy {
    /// The policy's name, unique in its domain.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limits that its buckets are held to, all at once. At least one.
    #[must_use]
    pub fn limits(&self) -> &[NamedLimit] {
        &self.limits
    }

    /// How it takes tokens in advance, if it does.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// Whether it denies, where the route says nothing else.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a request meets its conditions.
    #[must_use]
    pub fn matches(&self, request: &impl Request) -> bool {
        self.condition.is_met(&Known::new(request))
    }

    /// Whether it governs only routes whose metadata names it.
    #[must_use]
    pub fn only_if_chosen(&self) -> bool {
        self.only_if_chosen
    }

    /// What becomes of a request that could not be decided.
    #[must_use]
    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// Its limits at the share that one Envoy allows by itself, one for each of [`Policy::limits`]; none where
    /// [`Policy::on_error`] is not [`OnError::Local`].
    #[must_use]
    pub fn local_limits(&self) -> &[NamedLimit] {
        &self.local
    }

    /// Whether the client's address decides whom it governs or whose bucket it takes from.
    #[must_use]
    pub fn uses_client_address(&self) -> bool {
        self.key.parts().any(|part| matches!(part.part(), Part::ClientAddress { .. }))
            || is_about_address(&self.condition)
    }

    /// For how many of a million keys it is enforced, or of requests where all share one key.
    #[must_use]
    pub fn enforce_ppm(&self) -> u32 {
        self.enforced.ppm()
    }

    /// Whether it is enforced for a key: always the same answer, on every Envoy, and for ever more keys as the share
    /// grows. Where all share one key, so many of the requests are meant.
    fn enforces(&self, key: &str, request: &Known<'_>) -> bool {
        if self.enforced == Share::WHOLE {
            return true;
        }
        let drawn = request.draw().to_be_bytes();
        let of = if key.is_empty() { &drawn[..] } else { key.as_bytes() };
        // Hashed with the name, so that neither `percent` nor another policy chooses the same ones.
        let digest = Sha256::new().chain_update(&self.name).chain_update("/").chain_update(of).finalize();
        let draw = digest.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        self.enforced.has(draw)
    }
}

fn is_about_address(condition: &Condition) -> bool {
    condition.has(&|condition| matches!(condition, Condition::ClientAddress(_)))
}
