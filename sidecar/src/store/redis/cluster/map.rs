//! Which node has which slot, as the nodes tell it.
//!
//! Nodes may disagree for a while, as during a failover. Each claim to a slot carries the epoch in which it was made,
//! and the latest wins: so do the nodes settle it among themselves.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use super::slot::{SLOTS, slot_of};
use crate::store::redis::address::Endpoint;

/// A node is known by where it is reached.
pub(in crate::store::redis) type Node = Endpoint;

/// Reads `host:port`, the host of an IPv6 address with or without brackets. An empty one, or `?`, is that of the node
/// that was `asked`.
pub(super) fn read_node(written: &str, asked: &str) -> Option<Node> {
    let (host, port) = written.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() || host == "?" { asked } else { host };
    Some(Node { host: host.to_owned(), port: port.parse().ok()? })
}

/// What one node says of the slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) node: Node,
    pub(super) slots: RangeInclusive<u16>,
    /// When the slots were assigned, as the nodes count it.
    pub(super) epoch: u64,
}

/// A node, by another host that it may be told as and by where it is reached.
pub(super) type Alias = (Node, Node);

/// What `CLUSTER NODES` answers: the claims of all nodes that have slots, and by what else each node is known. What is not
/// understood claims nothing.
///
/// `asked` is the host that was asked, which need not know its own. Where TLS is used a node is reached by its name, if
/// it has one, since that is what its certificate tells.
pub(super) fn read_nodes(text: &str, asked: &str, by_name: bool) -> (Vec<Claim>, Vec<Alias>) {
    let (mut claims, mut aliases) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((told, alias)) = read_line(line, asked, by_name) else { continue };
        claims.extend(told);
        aliases.extend(alias);
    }
    (claims, aliases)
}

/// `<id> <ip:port@bus[,name[,more]]> <flags> <primary> <ping> <pong> <epoch> <link> <slots>…`.
fn read_line(line: &str, asked: &str, by_name: bool) -> Option<(Vec<Claim>, Option<Alias>)> {
    let mut fields = line.split(' ').skip(1);
    let (address, flags) = (fields.next()?, fields.next()?);
    let mut address = address.split(',');
    let mut node = read_node(address.next()?.split('@').next()?, asked)?;
    // Behind the name others may follow as key=value.
    let name = address.next().filter(|name| !matches!(*name, "" | "?") && !name.contains('='));
    // By which of the two it is told in MOVED and ASK, its settings say.
    let alias = name.map(|name| {
        let named = Node { host: name.to_owned(), port: node.port };
        if by_name { (std::mem::replace(&mut node, named.clone()), named) } else { (named, node.clone()) }
    });
    if !flags.split(',').any(|flag| flag == "master") {
        return Some((Vec::new(), alias));
    }
    let epoch = fields.nth(3)?.parse().ok()?;
    let slots = fields.skip(1).filter_map(read_range);
    Some((slots.map(|slots| Claim { node: node.clone(), slots, epoch }).collect(), alias))
}

/// `7`, `7-9`; a slot on its way, `[7->-id]`, stays with whom it is until it has arrived.
fn read_range(written: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some(first..=last)
}

/// Who has each slot.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// Of each slot the place of its node, from 1; 0 where nobody has it.
    places: Vec<u16>,
    /// Of each slot when it was assigned.
    epochs: Vec<u64>,
    nodes: Vec<Node>,
}

impl SlotMap {
    /// Nobody has any.
    pub(super) fn empty() -> Self {
        let slots = usize::from(SLOTS);
        Self { places: vec![0; slots], epochs: vec![0; slots], nodes: Vec::new() }
    }

    /// Of each slot the latest claim.
    pub(super) fn of(claims: &[Claim]) -> Self {
        let mut map = Self::empty();
        for claim in claims {
            let place = map.place_of(&claim.node);
            for slot in claim.slots.clone().map(usize::from) {
                if map.places[slot] == 0 || claim.epoch > map.epochs[slot] {
                    map.places[slot] = place;
                    map.epochs[slot] = claim.epoch;
                }
            }
        }
        map
    }

    /// Keeps what `known` knows of later epochs.
    pub(super) fn keep_later(&mut self, known: &Self) {
        for slot in 0..SLOTS {
            let index = usize::from(slot);
            if known.epochs[index] > self.epochs[index]
                && let Some(node) = known.node_of(slot)
            {
                self.places[index] = self.place_of(node);
                self.epochs[index] = known.epochs[index];
            }
        }
    }

    fn place_of(&mut self, node: &Node) -> u16 {
        let place = self.nodes.iter().position(|known| known == node).unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        // A Cluster has fewer nodes than slots.
        u16::try_from(place + 1).unwrap_or(0)
    }

    pub(super) fn node_of(&self, slot: u16) -> Option<&Node> {
        let place = usize::from(*self.places.get(usize::from(slot))?);
        self.nodes.get(place.checked_sub(1)?)
    }

    /// Notes that a slot has moved.
    pub(super) fn moved(&mut self, slot: u16, node: &Node) {
        let place = self.place_of(node);
        if let Some(known) = self.places.get_mut(usize::from(slot)) {
            *known = place;
        }
    }

    /// A key of nobody's in a slot of this node's; any where it has none.
    pub(super) fn key_of(&self, node: &Node) -> String {
        let keys = (0..SLOTS).map(|key| format!("sluice:1:/probe/{{{key}}}"));
        let mut of_node = keys.filter(|key| self.node_of(slot_of(key)) == Some(node));
        of_node.next().unwrap_or_else(|| "sluice:1:/probe".to_owned())
    }

    /// Whether a node has this key.
    pub(super) fn has_key(&self, node: &Node, key: &str) -> bool {
        self.node_of(slot_of(key)) == Some(node)
    }

    /// How many slots each node has, and how many nobody has.
    pub(super) fn count(&self) -> (BTreeMap<&Node, usize>, usize) {
        // By places first: it is asked for each look at the readiness, and there are many more slots than nodes.
        let (mut of_place, mut unserved) = (vec![0; self.nodes.len()], 0);
        for &place in &self.places {
            match usize::from(place).checked_sub(1).and_then(|place| of_place.get_mut(place)) {
                Some(count) => *count += 1,
                None => unserved += 1,
            }
        }
        (self.nodes.iter().zip(of_place).filter(|(_, count)| *count > 0).collect(), unserved)
    }
}

impl fmt::Debug for SlotMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotMap").field(&self.count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Node {
        Node { host: host.to_owned(), port }
    }

    #[test]
    fn what_the_nodes_say_is_read() {
        let text = "\
07c3 127.0.0.1:30004@31004,host-4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,host-2,shard-id=6 master - 0 1426238316232 2 connected 5461-5463 5470 [5471->-07c3]
e7d1 :30001@31001 myself,master - 0 0 1 connected 0-2 [9-<-67ed]
8d2f fd00::7:30003@31003 master,fail - 0 0 3 disconnected 16383
9999 10.0.0.9:30009@31009 master - 0 0 9 connected
cut
";
        let (claims, aliases) = read_nodes(text, "seed", false);
        let [named, ip] = ["host-4", "127.0.0.1"].map(|host| node(host, 30_004));
        assert_eq!(aliases[0], (named.clone(), ip.clone()), "a replica that may be promoted");
        assert_eq!(read_nodes(text, "seed", true).1[0], (ip, named));
        assert_eq!(aliases.len(), 2);
        let claim = |host, port, slots, epoch| Claim { node: node(host, port), slots, epoch };
        let expected = [
            claim("127.0.0.1", 30_002, 5461..=5463, 2),
            claim("127.0.0.1", 30_002, 5470..=5470, 2),
            claim("seed", 30_001, 0..=2, 1),
            claim("fd00::7", 30_003, 16_383..=16_383, 3),
        ];
        assert_eq!(claims, expected);
        assert_eq!(read_nodes(text, "seed", true).0[0].node, node("host-2", 30_002));
        assert_eq!(node("fd00::7", 1).to_string(), "[fd00::7]:1");
    }

    #[test]
    fn the_latest_claim_wins_in_whichever_order_it_is_heard() {
        let (old, new) = (node("old", 1), node("new", 2));
        let mut claims = [
            Claim { node: old.clone(), slots: 0..=9, epoch: 3 },
            Claim { node: new.clone(), slots: 5..=9, epoch: 4 },
        ];
        for _ in 0..2 {
            let map = SlotMap::of(&claims);
            assert_eq!((map.node_of(4), map.node_of(5), map.node_of(10)), (Some(&old), Some(&new), None));
            assert_eq!(map.count().1, usize::from(SLOTS) - 10);
            claims.reverse();
        }
        let mut map = SlotMap::of(&claims);
        map.moved(4, &new);
        assert_eq!((map.node_of(4), map.node_of(3)), (Some(&new), Some(&old)));
        assert_eq!(map.node_of(SLOTS), None);
        assert_eq!(map.node_of(slot_of(&map.key_of(&old))), Some(&old));
        // The one that was replaced tells it otherwise, and so does who has not heard of it.
        let mut stale = SlotMap::of(&[Claim { node: old.clone(), slots: 0..=9, epoch: 3 }]);
        stale.keep_later(&SlotMap::of(&claims));
        assert_eq!((stale.node_of(4), stale.node_of(5)), (Some(&old), Some(&new)));
        let mut later = SlotMap::of(&[Claim { node: old.clone(), slots: 0..=9, epoch: 5 }]);
        later.keep_later(&stale);
        assert_eq!(later.node_of(5), Some(&old));
    }
}
