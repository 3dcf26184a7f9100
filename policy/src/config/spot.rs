//! Where in a configuration one is, and what was found to be wrong on the way.

use std::cell::RefCell;
use std::cmp::Ordering;

use serde::Deserializer;
use serde::de::{DeserializeOwned, Visitor};
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::{Place, Problem, Step};

/// The most problems that are told at once.
const MAX_PROBLEMS: usize = 100;

/// The longest name of a field that a place shows, in characters.
const MAX_FIELD_CHARS: usize = 256;

/// The longest name for which another is proposed, in bytes: it takes the product of both lengths.
const MAX_MISSPELT_BYTES: usize = 64;

/// All that is wrong with a configuration, as far as it was read.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

/// A place, and the list to which its problems are added.
#[derive(Clone, Debug)]
pub struct Spot<'a> {
    problems: &'a Problems,
    place: Place,
}

impl Problems {
    /// The root of the configuration.
    pub fn root(&self) -> Spot<'_> {
        Spot { problems: self, place: Place::default() }
    }

    /// Everything that was found, in the order in which it was.
    pub fn into_found(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

impl<'a> Spot<'a> {
    /// How much is wrong so far, here and elsewhere.
    pub fn problems(&self) -> usize {
        self.problems.0.borrow().len()
    }

    /// The value of a field here.
    pub fn field(&self, name: &str) -> Self {
        // One that is longer than any of ours is told by its beginning.
        let shown = name.chars().take(MAX_FIELD_CHARS).collect();
        Self { problems: self.problems, place: self.place.then(Step::Field(shown)) }
    }

    /// An item of the list here.
    pub fn item(&self, index: usize) -> Self {
        Self { problems: self.problems, place: self.place.then(Step::Item(index)) }
    }

    /// Something is wrong here.
    pub fn problem(&self, message: impl Into<String>) {
        let mut found = self.problems.0.borrow_mut();
        match found.len().cmp(&MAX_PROBLEMS) {
            Ordering::Less => {
                found.push(Problem { place: self.place.clone(), message: shortened(message.into()) })
            }
            Ordering::Equal => {
                let message = "there is more that is wrong; mend this first".to_owned();
                found.push(Problem { place: Place::default(), message });
            }
            Ordering::Greater => {}
        }
    }

    /// Reads what stands here, or adds what is wrong with it.
    pub fn read<T: DeserializeOwned>(&self, value: Value) -> Option<T> {
        let lone_field = value.as_object().filter(|fields| fields.len() == 1);
        let lone_field = lone_field.and_then(|fields| fields.keys().next().cloned());
        serde_path_to_error::deserialize(Written(value))
            .map_err(|error| {
                let mut spot = self.clone();
                for segment in error.path().iter() {
                    match segment {
                        Segment::Seq { index } => spot = spot.item(*index),
                        Segment::Map { key } => spot = spot.field(key),
                        // Its name is a field, too, but the one that is known already.
                        Segment::Enum { .. } | Segment::Unknown => {}
                    }
                }
                let message = error.into_inner().to_string();
                // A choice that nobody knows is the place itself, unless it stands there as a word.
                let named = quoted(&message).next().filter(|name| {
                    message.starts_with("unknown variant") && lone_field.as_deref() == Some(*name)
                });
                let spot = named.map_or_else(|| spot.clone(), |name| spot.field(name));
                spot.problem(in_plain_words(&message));
            })
            .ok()
    }
}

/// A value in which fields have names: the library would take a list for a struct, too, by the order of its fields.
struct Written(Value);

impl<'de> Deserializer<'de> for Written {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_option(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

/// A message without the middle of what was found, where that is very long: the mend is at its end.
fn shortened(message: String) -> String {
    const KEPT_CHARS: usize = 600;
    let length = message.chars().count();
    if length <= 2 * KEPT_CHARS {
        return message;
    }
    let start: String = message.chars().take(KEPT_CHARS).collect();
    let end: String = message.chars().skip(length - KEPT_CHARS).collect();
    format!("{start} … {end}")
}

/// The words between backticks.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}

/// The library's message in the words of the rest, with what was probably meant.
fn in_plain_words(message: &str) -> String {
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("the field {name} is missing");
    }
    if message.starts_with("unknown") {
        let what = if message.starts_with("unknown variant") { "unknown variant" } else { "unknown field" };
        let rest = message.strip_prefix(what).unwrap_or(message).replacen(", expected", "; expected", 1);
        let (found, expected) = (quoted(message).next().unwrap_or_default(), quoted(message).skip(1));
        return format!("found{rest}{}", did_you_mean(found, expected));
    }
    let found = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = found.and_then(|found| found.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let found = match found.split_once(' ') {
        _ if found == "null" => "nothing; write a value, or leave the field out".to_owned(),
        _ if found == "map" => "a mapping".to_owned(),
        _ if found == "sequence" => "a list".to_owned(),
        _ if found.starts_with("floating point") => found.replacen("floating point ", "the number ", 1),
        Some(("string", text)) => text.to_owned(),
        Some(("integer", number)) => format!("the number {number}"),
        Some(("boolean", value)) => format!("the boolean {value}"),
        _ => found.to_owned(),
    };
    let expected = match expected {
        "a string" => "text",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a boolean" => "true or false",
        // How the library asks for one choice out of several.
        "map with a single key" => "a mapping with exactly one field",
        "string or map" => "a word, or a mapping with one field",
        "unit" => "the word alone",
        other => other,
    };
    // Bare words that YAML 1.1 takes for true or false.
    let quote = found.starts_with("the boolean") && expected == "text";
    let quote = if quote {
        ": put it in quotes, since YAML reads words such as yes, no, on, off, y and n as true or false"
    } else {
        ""
    };
    format!("found {found}; expected {expected}{quote}")
}

/// The end of a message about `found`, where one of `known` is near it.
pub fn did_you_mean<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> String {
    if found.len() > MAX_MISSPELT_BYTES {
        return String::new();
    }
    let near = known.map(|name| (strsim::damerau_levenshtein(found, name), name));
    let nearest = near.filter(|&(distance, name)| distance * 2 <= name.len()).min();
    nearest.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}
