//! The policy language: what a configuration means, and what its author is told where it is wrong.

mod answers;
mod conditions;
mod configuration;
mod costs;
mod found;
mod keys;
mod local;
mod modes;
mod routes;
mod sent;
mod shortcuts;
mod warnings;
