//! What a node of a Redis Cluster says when it does not decide a run: nothing of it was executed, so it may be sent to
//! whom it names.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::lanes::Lane;

/// Who decides a run that was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// This node has the slot by now: `host:port`, the host empty where it is the one that was asked.
    Moved(String),
    /// This node is about to have the slot, and has the keys already.
    Ask(String),
    /// Some of the keys are here and some are where the slot moves to.
    TryAgain,
    /// Nobody for now: the Cluster has lost this slot, and not too much of itself to decide others.
    Down,
}

impl Redirect {
    /// Nothing where the error says something else, or was said to what no Cluster decides.
    pub(super) fn of(error: &RedisError, lane: Lane) -> Option<Self> {
        if lane == Lane::Any {
            return None;
        }
        let ErrorKind::Server(kind) = error.kind() else { return None };
        let node = || error.redirect_node().map(|(node, _)| node.to_owned());
        match kind {
            ServerErrorKind::Moved => node().map(Self::Moved),
            ServerErrorKind::Ask => node().map(Self::Ask),
            ServerErrorKind::TryAgain => Some(Self::TryAgain),
            ServerErrorKind::ClusterDown => {
                error.detail().is_some_and(|said| said.contains("not served")).then_some(Self::Down)
            }
            _ => None,
        }
    }
}
