//! Whose buckets an ask is about, whatever it asks of them: the key of what is known of buckets.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use policy::Ask;

/// Something about the buckets of a key of a policy.
pub trait Whose {
    /// The policy's place in the configuration, and the key.
    fn whose(&self) -> (usize, &str);
}

/// The key of a map, looked up by any [`Ask`] of the same buckets without copying that.
#[derive(Clone, Debug)]
pub struct Owner {
    policy: usize,
    key: String,
}

/// An ask of nothing.
impl From<Owner> for Ask {
    fn from(owner: Owner) -> Self {
        Self { policy: owner.policy, key: owner.key, cost_tokens: 0, shadow: false }
    }
}

impl From<&Ask> for Owner {
    fn from(ask: &Ask) -> Self {
        Self { policy: ask.policy, key: ask.key.clone() }
    }
}

impl Whose for Ask {
    fn whose(&self) -> (usize, &str) {
        (self.policy, &self.key)
    }
}

impl Whose for Owner {
    fn whose(&self) -> (usize, &str) {
        (self.policy, &self.key)
    }
}

impl<'a> Borrow<dyn Whose + 'a> for Owner {
    fn borrow(&self) -> &(dyn Whose + 'a) {
        self
    }
}

impl Hash for dyn Whose + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.whose().hash(state);
    }
}

impl PartialEq for dyn Whose + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.whose() == other.whose()
    }
}

impl Eq for dyn Whose + '_ {}

impl Hash for Owner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.whose().hash(state);
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.whose() == other.whose()
    }
}

impl Eq for Owner {}
