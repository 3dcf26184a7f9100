//! From what is written to what is known to be valid.
//!
//! [`source`] reads the bytes that Envoy hands over; [`written`] holds the configuration as its author wrote it;
//! [`validate`] turns it into [`Policies`], or says everything that is wrong with it at once.

mod error;
mod scalar;
mod source;
mod validate;
mod written;

pub use error::{ConfigError, Problem};

use crate::Policies;

impl Policies {
    /// Reads a filter's `configuration` as Envoy hands it over: JSON, or the encoding of a protobuf Struct.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names each place in the configuration that is wrong, what was found there, and
    /// what would be right.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        let value = source::read(bytes)?;
        validate::policies(&value).map_err(ConfigError::Invalid)
    }
}
