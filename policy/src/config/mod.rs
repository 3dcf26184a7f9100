//! From what is written to what is known to be valid.
//!
//! [`source`] reads the bytes that Envoy hands over; [`written`] holds the configuration as its author wrote it;
//! [`validate`] turns it into [`Policies`], or says everything that is wrong with it at once.

mod error;
mod route;
mod scalar;
#[cfg(feature = "schema")]
mod schema;
mod source;
mod spot;
mod validate;
mod warnings;
mod written;

use serde_json::Value;

pub use error::ConfigError;
pub use scalar::Rate;
#[cfg(feature = "schema")]
pub use schema::schema;
pub use validate::limit_text;

use crate::{Policies, Problem};

impl Policies {
    /// Reads a filter's `configuration` as Envoy hands it over: JSON, or the encoding of a protobuf Struct.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names each place in the configuration that is wrong, what was found there, and
    /// what would be right.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::from_value(source::read(bytes)?).map_err(ConfigError::Invalid)
    }

    /// Reads a filter's `configuration` as a value.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_value(value: Value) -> Result<Self, Vec<Problem>> {
        validate::policies(value)
    }
}
