//! What the fuzz targets share: hostile configurations and requests, and what must hold whatever they say.
//!
//! [`language`] is the configuration's grammar as data and [`author`] writes by it; [`sent`] and [`answered`] make
//! up requests and answers; [`clients`] knows what tells two clients apart; [`holds`] says what must be true of what the policies make of them; [`memory`] counts.

pub mod answered;
pub mod author;
pub mod clients;
pub mod configurations;
pub mod encoded;
pub mod holds;
pub mod language;
pub mod memory;
pub mod sent;

/// What the sidecar demands of a request. Its modules are compiled here as they are there, for its crate would bring
/// a whole HTTP server.
#[path = "../../sidecar/src/batch.rs"]
pub mod batch;
/// What `sluice check` says about a file.
#[path = "../../sidecar/src/check/mod.rs"]
pub mod check;
/// The codes of refusals.
#[path = "../../sidecar/src/code.rs"]
pub mod code;
/// Files as trees.
#[path = "../../sidecar/src/document/mod.rs"]
pub mod document;
