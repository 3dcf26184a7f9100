//! The policies of one filter, and what they ask for one request.

use std::time::Duration;

use bucket::Limit;

use crate::Request;
use crate::key::Key;
use crate::matcher::Matcher;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Policies {
    pub(crate) sidecar: Sidecar,
    pub(crate) domain: String,
    pub(crate) policies: Vec<Policy>,
}

/// Where the decisions are made, and how long a request waits for one.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// The Envoy cluster of the sidecars.
    pub cluster: String,
    /// How long a callout may take; between 1 ms and 60 s.
    pub timeout: Duration,
}

/// A limit on those requests that match, for each key apart.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) name: String,
    pub(crate) matcher: Matcher,
    pub(crate) key: Key,
    pub(crate) limit: Limit,
    pub(crate) on_error: OnError,
}

/// What becomes of a request that could not be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It passes.
    Allow,
    /// It is answered with 503.
    Deny,
}

/// What one policy asks for one request: one token of this bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The policy's place in the configuration.
    pub policy: usize,
    /// Whose bucket of it.
    pub key: String,
}

impl Policies {
    /// Where the decisions are made.
    #[must_use]
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// The namespace of these policies; the same names in other domains are other buckets.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The policy that an [`Ask`] is about.
    #[must_use]
    pub fn get(&self, ask: &Ask) -> Option<&Policy> {
        self.policies.get(ask.policy)
    }

    /// What the policies ask for a request, in the order of the configuration; empty where none matches.
    #[must_use]
    pub fn asks(&self, request: &impl Request) -> Vec<Ask> {
        let matching = self.policies.iter().enumerate().filter(|(_, policy)| policy.matcher.matches(request));
        matching.map(|(index, policy)| Ask { policy: index, key: policy.key.of(request) }).collect()
    }
}

impl Policy {
    /// The policy's name, unique in its domain.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limit that each of its buckets is held to.
    #[must_use]
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// What one request takes from its bucket, in tokens.
    #[must_use]
    pub fn cost_tokens(&self) -> u64 {
        1
    }

    /// What becomes of a request that could not be decided.
    #[must_use]
    pub fn on_error(&self) -> OnError {
        self.on_error
    }
}
