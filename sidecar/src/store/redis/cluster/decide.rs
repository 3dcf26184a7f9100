//! Decides the takes of one request on a Cluster: what lives in one slot in one run, what does not part by part.
//!
//! A part that was taken is given back where a later one denies or fails. A take is certainly taken where its run was
//! answered, and only then given back; of a run without an answer nothing is known, so nothing of it is sent again
//! or given back: its tokens are lost at most, and never more is admitted than was promised.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bucket::Kind;
use contract::{FailureReason, Verdict};
use futures_util::future::join_all;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    map::Node,
    nodes::Nodes,
    parts::{Grain, Part, Told, look, looked, only_key, only_slot, parts, waves},
};
use crate::{
    batch::{Batch, Take},
    store::{
        Answer,
        redis::{
            lanes::Lane,
            queue::{Job, Outcome, Place},
            redirect::Redirect,
        },
    },
};

/// How often a run that was not executed is sent to another node before the slot counts as lost: each time the Cluster
/// has changed meanwhile.
const HOPS: usize = 8;

/// The pause before a node is asked again that decides nothing of a key for the moment.
const MOMENT: Duration = Duration::from_millis(2);

const FAILED: Verdict = Verdict::Failed(FailureReason::StoreUnavailable);

type Verdicts = Pin<Box<dyn Future<Output = Vec<Verdict>> + Send>>;

/// One request that is being decided.
#[derive(Debug)]
pub(super) struct Request {
    nodes: Arc<Nodes>,
    place: Place,
    /// Nothing is waited for any longer.
    deadline: Instant,
    /// The latest of the instants at which something of it was decided, by the clocks of its nodes; 0 where nothing was.
    now_us: AtomicU64,
}

/// What is done with takes of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Make,
    /// Each only looks, and none follows.
    Look,
}

impl Request {
    pub(super) fn new(nodes: Arc<Nodes>, place: Place) -> Arc<Self> {
        let deadline = Instant::now() + nodes.asking().timeouts.answer;
        Arc::new(Self { nodes, place, deadline, now_us: AtomicU64::new(0) })
    }

    /// When the latest of it was decided; nothing where nothing was.
    pub(super) fn now_us(&self) -> Option<u64> {
        Some(self.now_us.load(Ordering::Relaxed)).filter(|&now_us| now_us > 0)
    }

    /// Decides takes, of which the first follows none.
    ///
    /// Those of one slot keep their order among each other; slots, and takes over several, are decided side by side.
    pub(super) fn decide(self: Arc<Self>, takes: Vec<Take>) -> Verdicts {
        Box::pin(async move {
            if let Some(slot) = only_slot(&takes) {
                return self.by_owner(slot, Grain::Slot, takes, Purpose::Make).await;
            }
            let mut shares: Vec<Share> = Vec::new();
            let mut of_slot = HashMap::new();
            let count = takes.len();
            let mut place = 0;
            let mut takes = takes.into_iter().peekable();
            while let Some(leader) = takes.next() {
                let mut led = vec![leader];
                led.extend(std::iter::from_fn(|| takes.next_if(|take| take.follows)));
                let slot = only_slot(&led);
                let places = place..place + led.len();
                place = places.end;
                let known = slot.map(|slot| *of_slot.entry(slot).or_insert(shares.len()));
                match known.and_then(|known| shares.get_mut(known)) {
                    Some(share) => {
                        share.places.extend(places);
                        share.takes.append(&mut led);
                    }
                    None => shares.push(Share { slot, places: places.collect(), takes: led }),
                }
            }
            let mut verdicts = vec![FAILED; count];
            let decide = |slot, takes| {
                let request = Arc::clone(&self);
                async move {
                    match slot {
                        Some(slot) => request.by_owner(slot, Grain::Slot, takes, Purpose::Make).await,
                        None => request.spread(takes, Grain::Slot).await,
                    }
                }
            };
            side_by_side(shares, &mut verdicts, decide).await;
            verdicts
        })
    }

    /// Decides takes of one slot, or by [`Grain::Key`] of one key, in order, by whoever has it. Those of a slot that is on its
    /// way elsewhere are decided key by key.
    async fn by_owner(
        self: Arc<Self>,
        slot: u16,
        grain: Grain,
        takes: Vec<Take>,
        purpose: Purpose,
    ) -> Vec<Verdict> {
        let count = takes.len();
        let mut verdicts = Vec::with_capacity(count);
        let mut rest = takes;
        // Whoever has the key by now, though not the slot.
        let mut ahead = None;
        for _ in 0..HOPS {
            let Some(node) = ahead.clone().or_else(|| self.nodes.node_of(slot)) else { break };
            let lane = match (grain, purpose) {
                (Grain::Key, _) => Lane::Alone { asking: ahead.is_some() },
                (Grain::Slot, Purpose::Make) => Lane::Slot(slot),
                (Grain::Slot, Purpose::Look) => Lane::Looks(slot),
            };
            let asked = match purpose {
                Purpose::Make => rest,
                Purpose::Look => rest.into_iter().flat_map(look).collect(),
            };
            let outcome = self.send(&node, lane, asked).await;
            let (decided, redirect) = self.heard(purpose, outcome);
            verdicts.extend(decided);
            let Some((redirect, undecided)) = redirect else { break };
            rest = undecided;
            ahead = None;
            match (redirect, grain) {
                (Redirect::Moved(to), _) => match self.nodes.read_node(&to, &node) {
                    Some(to) => self.nodes.moved(slot, &to),
                    None => break,
                },
                (Redirect::Down, _) => break,
                (Redirect::Ask(_) | Redirect::TryAgain, Grain::Slot) => {
                    verdicts.extend(self.by_key(slot, rest, purpose).await);
                    break;
                }
                (Redirect::Ask(to), Grain::Key) => ahead = self.nodes.read_node(&to, &node),
                // The Cluster is between two states, which no event tells of.
                (Redirect::TryAgain, Grain::Key) => sleep(MOMENT).await,
            }
        }
        if verdicts.len() < count {
            self.nodes.doubt();
        }
        verdicts.resize(count, FAILED);
        verdicts
    }

    /// Decides takes of a slot that is on its way from one node to another: each key is where it is, or nowhere yet.
    ///
    /// Takes of one key, which may be everybody's, are sent together, and keys side by side.
    fn by_key(self: &Arc<Self>, slot: u16, takes: Vec<Take>, purpose: Purpose) -> Verdicts {
        let request = Arc::clone(self);
        Box::pin(async move {
            let mut verdicts = vec![FAILED; takes.len()];
            let decide = |_, takes: Vec<Take>| {
                let request = Arc::clone(&request);
                async move {
                    match purpose {
                        _ if only_key(&takes).is_some() => {
                            request.by_owner(slot, Grain::Key, takes, purpose).await
                        }
                        Purpose::Make => request.spread(takes, Grain::Key).await,
                        Purpose::Look => vec![request.look_at(&takes[0], Grain::Key).await],
                    }
                }
            };
            for wave in by_keys(takes) {
                side_by_side(wave, &mut verdicts, decide).await;
            }
            verdicts
        })
    }

    /// Decides a take over several slots or keys, and those that follow it, even where nobody waits any longer: what
    /// was taken in vain is given back.
    fn spread(self: &Arc<Self>, led: Vec<Take>, grain: Grain) -> Verdicts {
        let request = Arc::clone(self);
        Box::pin(async move {
            let count = led.len();
            let (answer, answered) = oneshot::channel();
            tokio::spawn(async move {
                let verdicts = request.lead(led, grain, &answer).await;
                // Whoever asked may have gone, and then needs no answer.
                let _ = answer.send(verdicts);
            });
            // The task ends with an answer, unless the runtime does before.
            answered.await.unwrap_or_else(|_| vec![FAILED; count])
        })
    }

    async fn lead(
        self: Arc<Self>,
        mut led: Vec<Take>,
        grain: Grain,
        answer: &oneshot::Sender<Vec<Verdict>>,
    ) -> Vec<Verdict> {
        let mut followers = led.split_off(1);
        let Some(leader) = led.pop() else { return Vec::new() };
        let verdict = match leader.kind {
            Kind::Take => self.all_or_none(&leader, grain, answer).await,
            Kind::Lease(terms) => self.lease_nothing(&leader, terms.ttl_us, grain).await,
            Kind::Refund | Kind::Charge | Kind::Return(_) => self.each(&leader, grain).await,
        };
        let followed = match verdict {
            Verdict::Failed(_) => vec![verdict.clone(); followers.len()],
            Verdict::Denied(_) => {
                let looks = followers.iter().map(|take| Arc::clone(&self).look_at(take, Grain::Slot));
                join_all(looks).await
            }
            Verdict::Allowed(_) | Verdict::Leased { .. } => {
                followers.iter_mut().for_each(|take| take.follows = false);
                let mut followed = Vec::with_capacity(followers.len());
                for wave in waves(followers) {
                    followed.extend(Arc::clone(&self).decide(wave).await);
                }
                followed
            }
        };
        let mut verdicts = vec![verdict];
        verdicts.extend(followed);
        verdicts
    }

    /// Takes from all buckets, slot after slot, or from none: what was taken is given back where a later one denies.
    async fn all_or_none(
        self: &Arc<Self>,
        take: &Take,
        grain: Grain,
        answer: &oneshot::Sender<Vec<Verdict>>,
    ) -> Verdict {
        let asked_at_us = self.nodes.remembered().now_us();
        let parts = parts(take, grain);
        let mut told = Told::nothing(take);
        for (place, part) in parts.iter().enumerate() {
            let verdict = match answer.is_closed() {
                // What was not sent by then takes nothing.
                true => FAILED,
                false => self.decide_part(part, grain, part.take.clone()).await,
            };
            told.tell(part, &verdict);
            match verdict {
                Verdict::Allowed(_) | Verdict::Leased { .. } => {}
                Verdict::Failed(_) => {
                    parts[..place].iter().for_each(|taken| drop(self.give_back(taken, grain)));
                    return verdict;
                }
                Verdict::Denied(_) => {
                    let returned: Vec<_> =
                        parts[..place].iter().map(|taken| self.give_back(taken, grain)).collect();
                    let looks = parts[place + 1..].iter().map(|later| self.look_at_part(later, grain));
                    // Denied it is, but a denial tells how each bucket stands: where a node hangs, not for long.
                    let now = Instant::now();
                    let soon = now + self.deadline.saturating_duration_since(now) / 2;
                    let looks = looks.map(|look| timeout_at(soon, look));
                    for (later, verdict) in parts[place + 1..].iter().zip(join_all(looks).await) {
                        told.tell(later, &verdict.unwrap_or(FAILED));
                    }
                    for (taken, verdict) in parts.iter().zip(returned) {
                        if let Ok(Ok(verdict)) = timeout_at(soon, verdict).await {
                            told.tell(taken, &verdict);
                        }
                    }
                    let is_whole = told.is_whole();
                    let verdict = Verdict::Denied(told.denied());
                    if !is_whole {
                        return verdict;
                    }
                    let answer =
                        Answer { now_us: self.now_us().unwrap_or(0), verdicts: vec![verdict.clone()] };
                    self.nodes.remembered().learn(&[take], &answer, asked_at_us);
                    return verdict;
                }
            }
        }
        told.all().map_or(FAILED, Verdict::Allowed)
    }

    /// Returns what a part has taken, whoever waits; it is sent once, and lost where it fails.
    fn give_back(self: &Arc<Self>, part: &Part, grain: Grain) -> oneshot::Receiver<Verdict> {
        let (answer, answered) = oneshot::channel();
        // It has a time of its own: the request's may be over.
        let request = Self::new(Arc::clone(&self.nodes), Arc::clone(&self.place));
        let (part, whole) = (part.clone(), Arc::clone(self));
        tokio::spawn(async move {
            let refund = Take { kind: Kind::Refund, ..part.take.clone() };
            let verdict = request.decide_part(&part, grain, refund).await;
            whole.now_us.fetch_max(request.now_us().unwrap_or(0), Ordering::Relaxed);
            // Nobody may wait for it.
            let _ = answer.send(verdict);
        });
        answered
    }

    /// Returns to all buckets, or charges them: neither is ever denied, so no part depends on another.
    async fn each(self: &Arc<Self>, take: &Take, grain: Grain) -> Verdict {
        let mut told = Told::nothing(take);
        let parts = parts(take, grain);
        let made = parts.iter().map(|part| self.decide_part(part, grain, part.take.clone()));
        for (part, verdict) in parts.iter().zip(join_all(made).await) {
            told.tell(part, &verdict);
        }
        told.all().map_or(FAILED, Verdict::Allowed)
    }

    /// A lease grants the same number from each bucket, which no node knows of the others: so it grants none.
    async fn lease_nothing(self: &Arc<Self>, take: &Take, ttl_us: u64, grain: Grain) -> Verdict {
        let mut nothing = Take { kind: Kind::Take, ..take.clone() };
        nothing.buckets.iter_mut().for_each(|ask| ask.cost_tokens = 0);
        match self.each(&nothing, grain).await {
            Verdict::Allowed(buckets) => {
                let now_us = self.now_us().unwrap_or(0);
                let lapses_at_us = (now_us / ttl_us.max(1) + 2) * ttl_us;
                Verdict::Leased { tokens: 0, lapses_at_us, buckets }
            }
            _ => FAILED,
        }
    }

    /// How the buckets of a take stand, and whether each would allow it.
    async fn look_at(self: Arc<Self>, take: &Take, grain: Grain) -> Verdict {
        let parts = parts(take, grain);
        let looks = join_all(parts.iter().map(|part| self.look_at_part(part, grain))).await;
        let mut told = Told::nothing(take);
        let mut lapses_at = 0;
        for (part, verdict) in parts.iter().zip(&looks) {
            told.tell(part, verdict);
            if let Verdict::Leased { lapses_at_us, .. } = verdict {
                lapses_at = lapses_at.max(*lapses_at_us);
            }
        }
        told.all().map_or(FAILED, |buckets| looked(take.kind, buckets, lapses_at))
    }

    async fn look_at_part(self: &Arc<Self>, part: &Part, grain: Grain) -> Verdict {
        self.part_by(part, grain, part.take.clone(), Purpose::Look).await
    }

    async fn decide_part(self: &Arc<Self>, part: &Part, grain: Grain, take: Take) -> Verdict {
        self.part_by(part, grain, take, Purpose::Make).await
    }

    async fn part_by(self: &Arc<Self>, part: &Part, grain: Grain, take: Take, purpose: Purpose) -> Verdict {
        let verdicts = Arc::clone(self).by_owner(part.slot, grain, vec![take], purpose).await;
        verdicts.into_iter().next().unwrap_or(FAILED)
    }

    /// Has a node decide takes; nothing where it does not in time.
    async fn send(&self, node: &Node, lane: Lane, takes: Vec<Take>) -> Option<Outcome> {
        let (answer, answered) = oneshot::channel();
        self.nodes.send(node, Job::new(lane, Batch { takes }, answer, Arc::clone(&self.place)));
        timeout_at(self.deadline, answered).await.ok()?.ok()
    }

    /// What was decided, and what is to be sent elsewhere.
    fn heard(
        &self,
        purpose: Purpose,
        outcome: Option<Outcome>,
    ) -> (Vec<Verdict>, Option<(Redirect, Vec<Take>)>) {
        let Some(Outcome { now_us, mut verdicts, mut redirect }) = outcome else { return (Vec::new(), None) };
        self.now_us.fetch_max(now_us.unwrap_or(0), Ordering::Relaxed);
        if purpose == Purpose::Look {
            // Of each two the first is only there to be denied.
            verdicts = verdicts.into_iter().skip(1).step_by(2).collect();
            if let Some((_, undecided)) = &mut redirect {
                *undecided = std::mem::take(undecided).into_iter().skip(1).step_by(2).collect();
                undecided.iter_mut().for_each(|take| take.follows = false);
            }
        }
        (verdicts, redirect)
    }
}

/// Has all shares decided, and puts what came of each into its places.
async fn side_by_side<F: Future<Output = Vec<Verdict>>>(
    shares: Vec<Share>,
    verdicts: &mut [Verdict],
    decide: impl Fn(Option<u16>, Vec<Take>) -> F,
) {
    let decided = shares.into_iter().map(|Share { slot, places, takes }| {
        let decided = decide(slot, takes);
        async move { (places, decided.await) }
    });
    for (places, decided) in join_all(decided).await {
        for (place, verdict) in places.into_iter().zip(decided) {
            verdicts[place] = verdict;
        }
    }
}

/// Takes of one slot cut into waves: within one no two shares have a key in common, and each key's takes keep their order.
/// Takes of one key only, of which none is denied for another's sake, are one share.
fn by_keys(takes: Vec<Take>) -> Vec<Vec<Share>> {
    let mut waves: Vec<Vec<Share>> = Vec::new();
    // Of each key the last wave that has it, and the place of its share there where that has no other key.
    let mut last: HashMap<String, (usize, Option<usize>)> = HashMap::new();
    let mut takes = takes.into_iter().enumerate().peekable();
    while let Some((place, leader)) = takes.next() {
        let (mut places, mut led) = (vec![place], vec![leader]);
        while let Some((place, take)) = takes.next_if(|(_, take)| take.follows) {
            places.push(place);
            led.push(take);
        }
        let single = only_key(&led).map(str::to_owned);
        if let Some(&(wave, Some(share))) = single.as_ref().and_then(|key| last.get(key)) {
            let share = &mut waves[wave][share];
            share.places.append(&mut places);
            share.takes.append(&mut led);
            continue;
        }
        let keys = || led.iter().flat_map(|take| &take.buckets).map(|ask| &ask.bucket_key);
        let wave = keys().filter_map(|key| last.get(key)).map(|(wave, _)| wave + 1).max().unwrap_or(0);
        if wave == waves.len() {
            waves.push(Vec::new());
        }
        let share = single.is_some().then_some(waves[wave].len());
        last.extend(keys().map(|key| (key.clone(), (wave, share))));
        waves[wave].push(Share { slot: None, places, takes: led });
    }
    waves
}

/// What of a request is decided together: takes of one slot, or one that is over several and those that follow it.
struct Share {
    slot: Option<u16>,
    places: Vec<usize>,
    takes: Vec<Take>,
}
