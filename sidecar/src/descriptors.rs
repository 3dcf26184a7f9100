//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For what is no connection of an Envoy: those of operators, to Redis, Sentinels or the nodes of a Cluster, certificates that
/// are read anew, names that are looked up.
const RESERVED: u64 = 200;

/// There is none left for Envoys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may have {limit} files open, and needs {} for 1,000 connections: allow more by `ulimit -n`, LimitNOFILE of \
     systemd or --ulimit of Docker",
    1_000 + RESERVED
)]
pub struct TooFew {
    limit: u64,
}

/// Raises the limit to the highest that this process may give itself, since the usual one is made for programs that wait by
/// `select`; how many connections fit in.
///
/// # Errors
/// [`TooFew`] where not one does.
pub fn for_connections() -> Result<usize, TooFew> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Where it is not granted, it stays as it is.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    connections(if raised { maximum } else { current })
}

/// No limit is given as none.
fn connections(limit: Option<u64>) -> Result<usize, TooFew> {
    let limit = limit.unwrap_or(u64::MAX);
    let left = limit.saturating_sub(RESERVED);
    if left == 0 {
        return Err(TooFew { limit });
    }
    Ok(usize::try_from(left).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_what_is_reserved_is_for_connections() {
        assert_eq!(connections(Some(1_024)), Ok(824));
        assert_eq!(connections(Some(201)), Ok(1));
        assert_eq!(connections(Some(200)), Err(TooFew { limit: 200 }));
        assert!(connections(None).is_ok_and(|left| left > 1_000_000));
    }
}
