//! A part of the configuration that is read for itself, so that a mistake in it hides none elsewhere. It is handed
//! on, never copied: a configuration takes no more memory the deeper it nests.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::spot::Spot;

/// Something that is written as a `T` is, or left out. Null is something that is written.
#[derive(Debug)]
pub struct Later<T> {
    value: Option<Value>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self { value: None, kind: PhantomData }
    }
}

impl<'de, T> Deserialize<'de> for Later<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self { value: Some(value), kind: PhantomData })
    }
}

impl<T> Later<T> {
    /// Whether it is left out.
    pub fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// What is written, if it is, and is right; what is wrong with it is added to `spot`.
    pub fn read(self, spot: &Spot<'_>) -> Option<T>
    where
        T: DeserializeOwned,
    {
        self.value.and_then(|value| spot.read(value))
    }
}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for Later<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}
