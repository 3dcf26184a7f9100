//! The nodes of a Cluster, each with a connection of its own, and which of them has which slot.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, mpsc, watch};

use super::{
    address::ClusterAddress,
    map::{Alias, Node, SlotMap, read_node},
};
use crate::store::{
    denials::Remembered,
    redis::{Asking, Handle, LinkState, RedisAddress, RunsTold, queue::Job, runs::Runs, worker::Worker},
};

/// What is known of a Cluster.
#[derive(Debug)]
pub(in crate::store::redis) struct Nodes {
    address: ClusterAddress,
    asking: Asking,
    remembered: Arc<Remembered>,
    runs: Arc<Runs>,
    map: Mutex<SlotMap>,
    /// Where nodes are reached that are told by another host, such as an address beside a name.
    aliases: Mutex<HashMap<Node, Node>>,
    connected: Mutex<HashMap<Node, Connected>>,
    /// What is wrong with all of it, as its nodes say.
    trouble: Mutex<Option<String>>,
    /// Something was heard that the map does not say.
    doubt: Arc<Notify>,
}

/// A node that has a connection, or is to have one. Its worker ends when this is dropped, after what is under way.
#[derive(Debug)]
struct Connected {
    jobs: mpsc::UnboundedSender<Job>,
    link: watch::Receiver<LinkState>,
    handle: watch::Receiver<Option<Handle>>,
    /// By which it is probed.
    key: watch::Sender<String>,
}

impl Nodes {
    pub(super) fn new(address: ClusterAddress, asking: Asking, remembered: Arc<Remembered>) -> Self {
        Self {
            address,
            asking,
            remembered,
            runs: Arc::default(),
            map: Mutex::new(SlotMap::empty()),
            aliases: Mutex::default(),
            connected: Mutex::default(),
            trouble: Mutex::default(),
            doubt: Arc::new(Notify::new()),
        }
    }

    pub(super) fn asking(&self) -> Asking {
        self.asking
    }

    pub(super) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    pub(super) fn runs(&self) -> RunsTold {
        self.runs.told()
    }

    pub(in crate::store::redis) fn node_of(&self, slot: u16) -> Option<Node> {
        lock(&self.map).node_of(slot).cloned()
    }

    /// Reads whom a node names, as it is known here: by TLS perhaps by its name, which is all that its certificate has.
    pub(in crate::store::redis) fn read_node(&self, written: &str, asked: &Node) -> Option<Node> {
        let node = read_node(written, &asked.host)?;
        Some(lock(&self.aliases).get(&node).cloned().unwrap_or(node))
    }

    /// Notes where a slot has moved to, and that the map is to be read anew.
    pub(in crate::store::redis) fn moved(&self, slot: u16, node: &Node) {
        lock(&self.map).moved(slot, node);
        self.doubt();
    }

    /// Has the map read anew, soon.
    pub(in crate::store::redis) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until there is reason to read the map anew.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Gives a node something to decide. What is given back by dropping it has failed.
    pub(super) fn send(&self, node: &Node, job: Job) {
        // A worker ends with its sender, so it is there.
        let _ = self.with(node, |known| known.jobs.send(job).is_ok());
    }

    /// The connection to a node, where there is one.
    pub(in crate::store::redis) fn handle(&self, node: &Node) -> Option<Handle> {
        self.with(node, |known| known.handle.borrow().clone())
    }

    fn with<T>(&self, node: &Node, does: impl FnOnce(&Connected) -> T) -> T {
        let mut connected = lock(&self.connected);
        let known = match connected.get(node) {
            Some(known) => known,
            None => {
                let key = lock(&self.map).key_of(node);
                connected.entry(node.clone()).or_insert_with(|| self.connect(node, key))
            }
        };
        does(known)
    }

    /// `key` is one that the node has.
    fn connect(&self, node: &Node, key: String) -> Connected {
        let (jobs, arrivals) = mpsc::unbounded_channel();
        let (state, link) = watch::channel(LinkState::Starting);
        let (key, known_key) = watch::channel(key);
        let address = self.address.common.with_node(node.clone(), known_key);
        let worker =
            Worker::new(address, self.asking, arrivals, state, Arc::clone(&self.remembered), &self.runs);
        let handle = worker.handle();
        tokio::spawn(worker.work());
        let (mut heard, doubt) = (link.clone(), Arc::clone(&self.doubt));
        tokio::spawn(async move {
            // A node that is lost, or back, may have another part in the Cluster by now.
            while heard.changed().await.is_ok() {
                doubt.notify_one();
            }
        });
        Connected { jobs, link, handle, key }
    }

    /// Whom to ask for the map: the seeds, and whoever was known to have slots.
    pub(super) fn known(&self) -> Vec<RedisAddress> {
        let mut known = self.address.addresses();
        let map = lock(&self.map);
        for node in map.count().0.into_keys().filter(|node| !self.address.seeds.contains(node)) {
            known.push(self.address.common.at(node.clone()));
        }
        known
    }

    /// Follows another map: connects to whom it names, and leaves whom it does not. What is known of later epochs stays, but
    /// where most nodes tell otherwise.
    pub(super) fn follow(&self, mut map: SlotMap, aliases: Vec<Alias>, by_most: bool) {
        *lock(&self.aliases) = aliases.into_iter().collect();
        let mut connected = lock(&self.connected);
        if !by_most {
            map.keep_later(&lock(&self.map));
        }
        let (counts, _) = map.count();
        connected.retain(|node, _| counts.contains_key(node));
        for node in counts.into_keys() {
            match connected.get(node) {
                // It has the slot no more by which it was probed.
                Some(known) if !map.has_key(node, &known.key.borrow()) => {
                    known.key.send_replace(map.key_of(node));
                }
                Some(_) => {}
                None => {
                    connected.insert(node.clone(), self.connect(node, map.key_of(node)));
                }
            }
        }
        *lock(&self.map) = map;
    }

    /// Waits until each node has been tried once.
    pub(super) async fn tried(&self) {
        let links: Vec<_> = lock(&self.connected).values().map(|node| node.link.clone()).collect();
        for mut link in links {
            // An error means that the node was left meanwhile.
            let _ = link.wait_for(|state| *state != LinkState::Starting).await;
        }
    }

    /// Whether nobody is known to have any slot.
    pub(super) fn is_unmapped(&self) -> bool {
        lock(&self.map).count().0.is_empty()
    }

    /// Notes what is wrong with the whole Cluster.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// Whether some slots can be decided, and what is wrong with others; an error where none can.
    pub(super) fn health(&self) -> Result<Option<String>, String> {
        if let Some(trouble) = lock(&self.trouble).clone() {
            return Err(trouble);
        }
        let connected = lock(&self.connected);
        let map = lock(&self.map);
        let (counts, mut unserved) = map.count();
        let mut served = 0;
        let mut why = Vec::new();
        for (node, slots) in counts {
            let link = connected.get(node).map(|known| known.link.borrow().clone());
            if link == Some(LinkState::Up) {
                served += slots;
                continue;
            }
            unserved += slots;
            why.push(match link {
                Some(LinkState::Down { reason }) => format!("{node} cannot be used: {reason}"),
                _ => format!("{node} is being connected to"),
            });
        }
        if unserved == 0 {
            return Ok(None);
        }
        if why.is_empty() {
            why.push("no node has them".to_owned());
        }
        let text = format!("{unserved} of {} slots cannot be asked: {}", served + unserved, why.join("; "));
        if served > 0 { Ok(Some(text)) } else { Err(text) }
    }
}

/// Nothing that holds one can panic halfway, so what a panic left is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
