//! The store of a Redis Cluster on six real nodes.

mod deciding;
mod failing;
mod holding;
mod moving;
mod support;
