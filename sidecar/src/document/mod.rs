//! Configuration files as trees that remember where everything in them stands.
//!
//! [`yaml`] and [`json`] read a text, `scalar` tells what Envoy makes of an unquoted word, and [`source`] keeps the
//! text to which the places belong. Files may be large and may be hostile: whatever is read is bounded.

pub mod embedded;
pub mod json;
mod scalar;
pub mod source;
pub mod yaml;

use serde_json::Number;

pub use source::{Source, Span};

/// The deepest nesting that Envoy reads: more is an error to it, too.
const MAX_DEPTH: usize = 100;

/// The most mistakes of one file that are kept. Nobody reads more.
const MAX_MISTAKES: usize = 1_000;

/// The most memory of one file's values, with all aliases followed.
const MAX_BYTES: usize = 128 << 20;

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins and ends; of a list or a mapping only where it begins.
    pub at: Span,
    /// What it is.
    pub value: Value,
}

/// A value as Envoy reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number; in YAML only whole ones that fit in 32 bits.
    Number(Number),
    /// Text, and whatever else is no number to Envoy.
    Text(String),
    /// Values in order.
    List(Vec<Node>),
    /// Values by name, in the order in which they are written.
    Mapping(Vec<Field>),
}

/// A named value of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub at: Span,
    /// Its value.
    pub node: Node,
}

/// Something that is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub at: Span,
    /// What was found, and what would be right.
    pub message: String,
    /// Another place that has to do with it, and what is there.
    pub note: Option<(Span, &'static str)>,
}

/// The documents of one text.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// As far as they could be read.
    pub roots: Vec<Node>,
    /// What is wrong with them.
    pub mistakes: Vec<Mistake>,
}

impl Node {
    /// The fields of a mapping; none of anything else.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        if let Value::Mapping(fields) = &self.value { fields } else { &[] }
    }

    /// The items of a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The text of a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// A field by its name. Of several the last counts, as for Envoy.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields().iter().rfind(|field| field.name == name)
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.field(name).map(|field| &field.node)
    }

    /// A field of one of Envoy's own messages, where `use_remote_address` may also be written `useRemoteAddress`.
    /// Null is as good as left out there.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&Field> {
        let field = self.field(name).or_else(|| self.field(&camel_case(name)));
        field.filter(|field| field.node.value != Value::Null)
    }

    /// The value at the end of a path of such fields.
    #[must_use]
    pub fn options(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.option(name).map(|field| &field.node))
    }

    /// Where to point at: what begins a mapping or a list has no length of its own.
    #[must_use]
    pub fn shown(&self) -> Span {
        match &self.value {
            Value::Mapping(fields) if self.at.is_empty() => fields.first().map_or(self.at, |field| field.at),
            Value::List(_) if self.at.is_empty() => Span { end: self.at.start + 1, ..self.at },
            _ => self.at,
        }
    }

    /// The value alone.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(fields) => {
                fields.iter().map(|field| (field.name.clone(), field.node.to_json())).collect()
            }
        }
    }

    /// Changes every place in it.
    pub fn move_places(&mut self, to: &impl Fn(Span) -> Span) {
        self.at = to(self.at);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_places(to)),
            Value::Mapping(fields) => fields.iter_mut().for_each(|field| {
                field.at = to(field.at);
                field.node.move_places(to);
            }),
            _ => {}
        }
    }

    /// How much memory it takes, about.
    fn bytes(&self) -> usize {
        let inner: usize = match &self.value {
            Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(Self::bytes).sum(),
            Value::Mapping(fields) => {
                fields.iter().map(|field| bytes_of_name(&field.name) + field.node.bytes()).sum()
            }
            _ => 0,
        };
        size_of::<Self>() + inner
    }

    /// How many mappings and lists are within each other.
    fn depth(&self) -> usize {
        match &self.value {
            Value::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            Value::Mapping(fields) => {
                1 + fields.iter().map(|field| field.node.depth()).max().unwrap_or_default()
            }
            _ => 0,
        }
    }
}

fn bytes_of_name(name: &str) -> usize {
    size_of::<Field>() - size_of::<Node>() + name.len()
}

fn mistake(at: Span, message: impl Into<String>) -> Mistake {
    Mistake { at, message: message.into(), note: None }
}

fn too_deep(at: Span) -> Mistake {
    mistake(
        at,
        format!("found more than {MAX_DEPTH} lists and mappings within each other; Envoy reads no more"),
    )
}

fn too_large(at: Span) -> Mistake {
    let mib = MAX_BYTES >> 20;
    mistake(
        at,
        format!(
            "the values up to here, with all aliases followed, take more than {mib} MiB: it is not read on"
        ),
    )
}

/// Adds a field; a name that is there already is a mistake, since Envoy takes the last without a word.
fn add_field(fields: &mut Vec<Field>, field: Field, seen: &mut Names, mistakes: &mut Vec<Mistake>) {
    let first = seen.insert(field.name.clone(), field.at);
    if let Some(first) = first.filter(|_| mistakes.len() < MAX_MISTAKES) {
        let message = format!(
            "found {:?} twice in one mapping; Envoy takes the last without a word: keep one",
            field.name
        );
        mistakes.push(Mistake { at: field.at, message, note: Some((first, "it is also here")) });
    }
    fields.push(field);
}

type Names = std::collections::HashMap<String, Span>;

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
