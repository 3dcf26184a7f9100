//! A Redis Cluster of six nodes: three primaries, each with a replica.

use std::{collections::BTreeSet, ops::Range, path::Path, time::Duration};

use crate::{Error, Redis, Reply, Result, RunDir, ports::free_port_and, wait};

/// How many slots a Cluster has.
pub const SLOTS: u16 = 16_384;

const PRIMARIES: u16 = 3;
/// Nodes talk to each other on a port that lies so much above the one for clients.
const BUS: u16 = 10_000;
const BOUND: Duration = Duration::from_secs(60);

/// Six nodes that form a Cluster, stopped when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts it with further arguments for each node, and waits until all slots are served and each replica follows
    /// its primary. A node counts as lost after two seconds.
    pub fn start(program: &Path, run: &RunDir, args: &[&str]) -> Result<Self> {
        let usual = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        // Otherwise a replica that was away for long is not promoted, and one that is new waits for others.
        let prompt = ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
        let args = [&usual[..], &prompt, args].concat();
        let start = |_| Redis::start_at(program, run, &args, || free_port_and(&[BUS]));
        let cluster = Self { nodes: (0..2 * PRIMARIES).map(start).collect::<Result<_>>()? };
        cluster.join()?;
        Ok(cluster)
    }

    fn join(&self) -> Result<()> {
        let (primaries, replicas) = self.nodes.split_at(usize::from(PRIMARIES));
        for (place, primary) in (0..).zip(primaries) {
            let slots: Vec<String> = slots_of(place).map(|slot| slot.to_string()).collect();
            let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
            primary.command(&[&["CLUSTER", "ADDSLOTS"], &slots[..]].concat())?;
            primary.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()])?;
        }
        for node in &self.nodes[1..] {
            let (host, port) = (node.addr().ip().to_string(), node.addr().port().to_string());
            self.nodes[0].command(&["CLUSTER", "MEET", &host, &port])?;
        }
        self.until("all nodes to know each other", |node| Ok(self.known(node)?.len() == self.nodes.len()))?;
        for (primary, replica) in primaries.iter().zip(replicas) {
            replica.command(&["CLUSTER", "REPLICATE", &id(primary)?])?;
        }
        self.until_well()
    }

    /// Waits until all nodes say that all is well, each replica follows a primary, and all agree on who has what.
    pub fn until_well(&self) -> Result<()> {
        self.until("the Cluster to be well", |node| {
            let info = node.command(&["CLUSTER", "INFO"])?.to_string();
            let replication = node.command(&["INFO", "replication"])?.to_string();
            let follows =
                replication.contains("role:master") || replication.contains("master_link_status:up");
            let primaries = self.nodes.iter().filter(|node| is_primary(node)).count();
            let agreed = self.nodes.iter().map(shards).collect::<Result<BTreeSet<_>>>()?.len();
            Ok(info.contains("cluster_state:ok")
                && follows
                && agreed == 1
                && primaries == usize::from(PRIMARIES))
        })
    }

    fn until(&self, what: &str, is_so: impl Fn(&Redis) -> Result<bool>) -> Result<()> {
        wait::try_eventually(BOUND, what, || {
            for node in &self.nodes {
                node.process().check_running()?;
            }
            Ok(self.nodes.iter().all(|node| is_so(node).unwrap_or(false)).then_some(()))
        })
    }

    /// The ids of the nodes that a node knows.
    fn known(&self, node: &Redis) -> Result<BTreeSet<String>> {
        let text = node.command(&["CLUSTER", "NODES"])?.to_string();
        let usable = text.lines().filter(|line| !line.contains("handshake"));
        Ok(usable.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect())
    }

    /// Its URL, which names all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// All six, of which the first three were primaries at first; the fourth follows the first, and so on.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// A node to be restarted.
    pub fn node_mut(&mut self, place: usize) -> &mut Redis {
        &mut self.nodes[place]
    }

    /// The slot of a key, as a node tells it.
    pub fn slot_of(&self, key: &str) -> Result<u16> {
        match self.nodes[0].command(&["CLUSTER", "KEYSLOT", key])? {
            Reply::Integer(slot) => Ok(u16::try_from(slot).unwrap_or(SLOTS)),
            other => Err(strange(&self.nodes[0], &other)),
        }
    }

    /// The place of the primary that had a slot when the Cluster was started.
    #[must_use]
    pub fn first_owner(&self, slot: u16) -> usize {
        (0..PRIMARIES).find(|&place| slots_of(place).contains(&slot)).unwrap_or(PRIMARIES).into()
    }

    /// What a node calls itself.
    pub fn id(&self, place: usize) -> Result<String> {
        id(&self.nodes[place])
    }

    /// Waits until this node is a primary, as after the loss of the one that it followed.
    pub fn until_primary(&self, place: usize) -> Result<()> {
        let what = format!("node {place} to be promoted");
        wait::try_eventually(BOUND, &what, || Ok(is_primary(&self.nodes[place]).then_some(())))
    }
}

/// The slots that a primary is given.
fn slots_of(place: u16) -> Range<u16> {
    let begin = |place: u16| u32::from(SLOTS) * u32::from(place) / u32::from(PRIMARIES);
    let begin = |place| u16::try_from(begin(place)).unwrap_or(SLOTS);
    begin(place)..begin(place + 1)
}

/// A node that does not answer is none.
fn is_primary(node: &Redis) -> bool {
    node.command(&["ROLE"]).is_ok_and(|role| role.to_string().starts_with("master"))
}

fn id(node: &Redis) -> Result<String> {
    Ok(node.command(&["CLUSTER", "MYID"])?.to_string())
}

/// Who has which slots and who follows whom, as a node says.
fn shards(node: &Redis) -> Result<BTreeSet<String>> {
    let text = node.command(&["CLUSTER", "NODES"])?.to_string();
    let shard = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let flags = fields.get(2).unwrap_or(&"").replace("myself,", "");
        format!("{:?} {flags} {:?} {:?}", fields.first(), fields.get(3), fields.get(8..))
    };
    Ok(text.lines().map(shard).collect())
}

fn strange(node: &Redis, reply: &Reply) -> Error {
    Error::Answer { from: node.url(), detail: format!("{reply:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_serves_all_slots() {
        assert_eq!((slots_of(0).start, slots_of(2).end), (0, SLOTS));
        let run = RunDir::new().unwrap();
        let cluster = Cluster::start(crate::Programs::from_env().redis_server().unwrap(), &run, &[]).unwrap();
        let slot = cluster.slot_of("foo").unwrap();
        let owner = &cluster.nodes()[cluster.first_owner(slot)];
        owner.command(&["SET", "foo", "1"]).unwrap();
        let other = &cluster.nodes()[(cluster.first_owner(slot) + 1) % 3];
        assert!(other.command(&["GET", "foo"]).is_err(), "it has moved");
    }
}
