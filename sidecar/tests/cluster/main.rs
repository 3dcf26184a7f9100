//! The store of a Redis Cluster on six real nodes.

mod deciding;
mod failing;
mod moving;
mod support;
