//! What is asked of Redis beside takes, over the connections that decide these: so wherever takes are decided, by TLS or
//! not, after a failover or a move of a slot, this is known and changed, too.

use std::{fmt, sync::Arc, time::Duration};

use redis::{Cmd, RedisError, Value, aio::MultiplexedConnection};
use tokio::{sync::watch, time::timeout};

use super::{
    Fault,
    cluster::{Nodes, slot::slot_of},
    lanes::Lane,
    redirect::Redirect,
};
use crate::store::denials::Remembered;

/// How often a question that nobody answered is asked of another node of a Cluster.
const HOPS: usize = 4;

/// A way to ask for what is no take.
#[derive(Clone, Debug)]
pub struct Control {
    way: Way,
    remembered: Arc<Remembered>,
    patience: Duration,
}

#[derive(Clone, Debug)]
pub(super) enum Way {
    One(watch::Receiver<Option<Handle>>),
    Cluster(Arc<Nodes>),
}

/// A connection that is kept by its worker.
#[derive(Clone)]
pub(super) struct Handle(pub(super) MultiplexedConnection);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Who has answered.
#[derive(Debug)]
pub(super) struct Place {
    handle: Handle,
    /// It is about to have what was asked for.
    asking: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing was asked.
    #[error("there is no connection to Redis")]
    Unlinked,
    /// A part of a Cluster that has what was asked for is nowhere.
    #[error("no node of the Redis Cluster has the slot of {0:?} now")]
    Nowhere(String),
    /// Redis answered that it will not.
    #[error("Redis: {0}")]
    Refused(String),
    /// What was asked may have been done.
    #[error("Redis did not answer within {0:?}; what was asked may have been done")]
    Late(Duration),
    /// What was asked may have been done.
    #[error("the connection to Redis was lost; what was asked may have been done")]
    Lost,
    /// It changes faster than it can be read.
    #[error("what Redis has changes faster than it can be read")]
    Restless,
    /// It is of another form.
    #[error("Redis answers in a form that is not known")]
    Strange,
}

impl Control {
    pub(super) fn new(way: Way, remembered: Arc<Remembered>, patience: Duration) -> Self {
        Self { way, remembered, patience }
    }

    /// Forgets which buckets are known to be denied.
    pub fn forget_denials(&self) {
        self.remembered.forget_all();
    }

    /// Waits until there is another connection, or none any more. Of a Cluster, which has many, it tells nothing.
    pub(crate) async fn relinked(&mut self) {
        let has_changed = match &mut self.way {
            Way::One(handle) => handle.changed().await.is_ok(),
            Way::Cluster(_) => false,
        };
        if !has_changed {
            std::future::pending().await
        }
    }

    /// How long an answer is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks in order, of whoever has `key`, which is the only key of all commands: a reply for each.
    pub(super) async fn ask(&self, key: &str, commands: &[Cmd]) -> Result<Vec<Value>, ControlError> {
        self.ask_somewhere(key, commands).await.map(|(replies, _)| replies)
    }

    /// The same, and where that was.
    pub(super) async fn ask_somewhere(
        &self,
        key: &str,
        commands: &[Cmd],
    ) -> Result<(Vec<Value>, Place), ControlError> {
        let asked = timeout(self.patience, self.ask_unbounded(key, commands)).await;
        asked.unwrap_or(Err(ControlError::Late(self.patience)))
    }

    /// Asks there, and nowhere else: what is read in pieces is read from one Redis.
    pub(super) async fn ask_there(
        &self,
        place: &Place,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, ControlError> {
        let asked = timeout(self.patience, send(&place.handle, commands, place.asking)).await;
        asked.map_or(Err(ControlError::Late(self.patience)), |replies| replies.map_err(refused))
    }

    async fn ask_unbounded(&self, key: &str, commands: &[Cmd]) -> Result<(Vec<Value>, Place), ControlError> {
        let nodes = match &self.way {
            Way::One(handle) => {
                let handle = handle.borrow().clone().ok_or(ControlError::Unlinked)?;
                let replies = send(&handle, commands, false).await.map_err(refused)?;
                return Ok((replies, Place { handle, asking: false }));
            }
            Way::Cluster(nodes) => nodes,
        };
        let slot = slot_of(key);
        let nowhere = || ControlError::Nowhere(key.to_owned());
        // Whoever has the key by now, though not the slot.
        let mut ahead = None;
        for _ in 0..HOPS {
            let node = ahead.clone().or_else(|| nodes.node_of(slot)).ok_or_else(nowhere)?;
            let handle = nodes.handle(&node).ok_or(ControlError::Unlinked)?;
            let asking = ahead.is_some();
            let error = match send(&handle, commands, asking).await {
                Ok(replies) => return Ok((replies, Place { handle, asking })),
                Err(error) => error,
            };
            ahead = None;
            match Redirect::of(&error, Lane::Alone { asking: false }) {
                Some(Redirect::Moved(to)) => {
                    nodes.moved(slot, &nodes.read_node(&to, &node).ok_or_else(nowhere)?);
                }
                Some(Redirect::Ask(to)) => {
                    ahead = Some(nodes.read_node(&to, &node).ok_or_else(nowhere)?);
                }
                Some(Redirect::TryAgain | Redirect::Down) => break,
                None => return Err(refused(error)),
            }
        }
        nodes.doubt();
        Err(nowhere())
    }
}

/// With `ASKING` before each, a node answers of what is about to be its own.
async fn send(handle: &Handle, commands: &[Cmd], asking: bool) -> Result<Vec<Value>, RedisError> {
    let Handle(mut connection) = handle.clone();
    let mut pipe = redis::pipe();
    for command in commands {
        if asking {
            pipe.cmd("ASKING");
        }
        pipe.add_command(command.clone());
    }
    let count = commands.len() * if asking { 2 } else { 1 };
    let replies = connection.send_packed_commands(&pipe, 0, count).await?;
    let step = if asking { 2 } else { 1 };
    replies.into_iter().skip(step - 1).step_by(step).map(Value::extract_error).collect()
}

fn refused(error: RedisError) -> ControlError {
    Fault::of(&error).map_or(ControlError::Lost, |fault| ControlError::Refused(fault.to_string()))
}
