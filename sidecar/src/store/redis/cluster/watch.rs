//! Keeps the map of the slots true: it is read anew from all nodes whenever one of them is lost or says that a slot is
//! elsewhere, each second while something is wrong, sooner where a take has failed, and now and then.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    map::{Alias, Claim, SlotMap, read_nodes},
    nodes::Nodes,
};
use crate::store::redis::{RedisAddress, link::Link};

/// Between two readings while something is wrong.
const WHILE_WRONG: Duration = Duration::from_secs(1);

/// Between two readings while all is well: a node that was cut off from the others may not tell.
const WHILE_WELL: Duration = Duration::from_secs(10);

/// The least between two readings, however much reason there is: while nothing is known to be wrong, and while something
/// is, which may be for long.
const LEAST: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(250)];

/// How long the others are waited for once most nodes have answered: one that is frozen says nothing.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// Reads the map until it is aborted.
pub(super) async fn watch(nodes: Arc<Nodes>) {
    let mut told = None;
    loop {
        let wrong = nodes.health().unwrap_or_else(Some);
        tell(&mut told, wrong);
        let read = Instant::now();
        let pause = if told.is_some() { WHILE_WRONG } else { WHILE_WELL };
        let least = LEAST[usize::from(told.is_some())];
        tokio::select! {
            () = sleep_until(read + pause) => {}
            () = nodes.doubted() => sleep_until(read + least).await,
        }
        read_map(&nodes).await;
    }
}

/// Logs only what is news.
fn tell(told: &mut Option<String>, wrong: Option<String>) {
    match (&wrong, &told) {
        (Some(reason), None) => {
            warn!(%reason, "a part of the Redis Cluster cannot decide; takes from it fail until it can");
        }
        (Some(reason), Some(before)) if reason != before => {
            warn!(%reason, "a part of the Redis Cluster cannot decide, still");
        }
        (None, Some(_)) => info!("all slots of the Redis Cluster can be asked again"),
        _ => {}
    }
    *told = wrong;
}

/// What one node said.
struct Said {
    claims: Vec<Claim>,
    aliases: Vec<Alias>,
    /// Whether it thinks that the Cluster can serve.
    is_ok: bool,
}

/// Asks all nodes, and follows what the latest of their claims say. Where none answers all stays as it is.
pub(super) async fn read_map(nodes: &Nodes) {
    let timeouts = nodes.asking().timeouts;
    let mut asked = JoinSet::new();
    for address in nodes.known() {
        asked.spawn(async move {
            let answer = Link::ask_cluster(&address, timeouts).await;
            answer.map(|(info, text)| read(&address, &info, &text)).map_err(|error| (address, error))
        });
    }
    let most = asked.len() / 2 + 1;
    let mut said = Vec::new();
    let mut failed = None;
    let mut until = Instant::now() + timeouts.connect * 2;
    while let Ok(Some(answer)) = tokio::time::timeout_at(until, asked.join_next()).await {
        // No task panics, and none is aborted while it is waited for.
        match answer {
            Ok(Ok(one)) => said.push(one),
            Ok(Err((address, error))) => failed = Some(format!("{address}: {error}")),
            Err(_) => {}
        }
        if said.len() >= most {
            until = until.min(Instant::now() + STRAGGLERS);
        }
    }
    if said.is_empty() {
        // What is known stays as good as its connections.
        if nodes.is_unmapped() {
            let reason = failed.unwrap_or_else(|| "none answers in time".to_owned());
            nodes.set_trouble(Some(format!(
                "no node of the Redis Cluster tells who has which slots: {reason}"
            )));
        }
        return;
    }
    let down = said.iter().all(|one| !one.is_ok);
    nodes.set_trouble(down.then(|| "the Redis Cluster says that it is down (CLUSTERDOWN)".to_owned()));
    // A few may be those that have not heard of a failover yet, or belong to another Cluster by now.
    let by_most = said.len() >= most;
    let (mut claims, mut aliases) = (Vec::new(), Vec::new());
    for one in said {
        claims.extend(one.claims);
        aliases.extend(one.aliases);
    }
    nodes.follow(SlotMap::of(&claims), aliases, by_most);
}

fn read(address: &RedisAddress, info: &str, text: &str) -> Said {
    let is_ok = info.lines().any(|line| line.trim() == "cluster_state:ok");
    let (claims, aliases) = read_nodes(text, address.host(), address.has_tls());
    Said { claims, aliases, is_ok }
}
