//! Writes configurations by the grammar, with slips: so that what is deep in them is reached, and not only the first
//! mistake.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};

use crate::language::{CONFIGURATION, HOSTILE, Need, Rule};

/// Beyond this depth nothing is written that need not be.
const DEEP: usize = 12;

/// How often a text or an item of a list is repeated at most.
const HUGE: usize = 10_000;

/// How much is written at most, in bytes, about. More would be more of the same, and slower.
const MOST_BYTES: usize = 256 << 10;

/// Someone who knows the language, and makes mistakes.
pub struct Author<'u, 'bytes> {
    bytes: &'u mut Unstructured<'bytes>,
    /// One in so many values is a slip; none is where it is 0.
    slips: u16,
    /// Whether some texts and lists are huge.
    verbose: bool,
    /// How many more bytes may be written.
    left: usize,
}

impl<'u, 'bytes> Author<'u, 'bytes> {
    /// Someone whose decisions are all taken from `bytes`, and how careful they are, too.
    ///
    /// # Errors
    /// Where there are too few bytes.
    pub fn new(bytes: &'u mut Unstructured<'bytes>) -> Result<Self> {
        let slips = *bytes.choose(&[0, 0, 0, 300, 100, 30, 8])?;
        Ok(Self { bytes, slips, verbose: false, left: MOST_BYTES })
    }

    /// The same, but that some texts and lists are huge, and some of them slips.
    #[must_use]
    pub fn verbose(self) -> Self {
        Self { verbose: true, slips: 20, ..self }
    }

    /// A value by `rule`.
    ///
    /// # Errors
    /// Where there are too few bytes.
    pub fn write(&mut self, rule: &Rule) -> Result<Value> {
        self.write_at(rule, 0)
    }

    fn write_at(&mut self, rule: &Rule, depth: usize) -> Result<Value> {
        let slips = self.slips()?;
        if slips && self.one_in(2)? {
            return self.anything(depth);
        }
        match rule {
            Rule::Word(right, wrong) => {
                let words = if slips && !wrong.is_empty() { wrong } else { right };
                Ok((*self.bytes.choose(words)?).into())
            }
            Rule::Number(right, wrong) => {
                let number = *self.bytes.choose(if slips { wrong } else { right })?;
                // On the way through Envoy large ones become text.
                let is_text = number > i32::MAX as u64 || self.one_in(4)?;
                Ok(if is_text { number.to_string().into() } else { number.into() })
            }
            Rule::Text(words) if self.one_in(2)? => Ok((*self.bytes.choose(words)?).into()),
            Rule::Text(_) => self.text().map(Value::String),
            Rule::Bool => Ok(Value::Bool(self.bytes.arbitrary()?)),
            Rule::OneOf(rules) => {
                let rule = *self.bytes.choose(rules)?;
                self.write_at(rule, depth)
            }
            Rule::List(item) => self.list(item, depth),
            Rule::Map(fields) => self.map(fields, depth),
            Rule::Named(right, wrong, value) => self.named(if slips { wrong } else { right }, value, depth),
            Rule::Both(first, second) => {
                let (first, second) = (self.write_at(first, depth)?, self.write_at(second, depth)?);
                Ok(match (first, second) {
                    (Value::Object(first), Value::Object(second)) => {
                        first.into_iter().chain(second).collect()
                    }
                    (_, second) => second,
                })
            }
            Rule::Nested(field, inner) => self.nested(field, inner, depth),
        }
    }

    fn list(&mut self, item: &Rule, depth: usize) -> Result<Value> {
        let most = if depth > DEEP { 1 } else { 4 };
        let least = usize::from(!self.slips()?);
        let mut items = Vec::new();
        for _ in 0..self.bytes.int_in_range(least..=most)? {
            items.push(self.write_at(item, depth + 1)?);
        }
        if let Some(last) = items.last().cloned()
            && self.is_huge()?
        {
            let bytes = size(&last);
            let times = self.bytes.int_in_range(0..=HUGE)?.min(self.left / bytes);
            self.left -= times * bytes;
            items.extend(std::iter::repeat_n(last, times));
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, fields: &[(&str, Need, &Rule)], depth: usize) -> Result<Value> {
        let mut map = Map::new();
        for &(name, need, rule) in fields {
            let written = match need {
                Need::Must => !self.slips()?,
                Need::May => depth <= DEEP && self.one_in(4)?,
            };
            if written {
                map.insert(name.to_owned(), self.write_at(rule, depth + 1)?);
            }
        }
        if self.slips()? {
            let name = self.text()?;
            map.insert(name, self.anything(depth + 1)?);
        }
        Ok(Value::Object(map))
    }

    fn named(&mut self, names: &[&str], value: &Rule, depth: usize) -> Result<Value> {
        let mut map = Map::new();
        for _ in 0..self.bytes.int_in_range(1..=3)? {
            let name = *self.bytes.choose(names)?;
            map.insert(name.to_owned(), self.write_at(value, depth + 1)?);
        }
        Ok(Value::Object(map))
    }

    /// A mapping in a mapping in a mapping.
    fn nested(&mut self, field: &str, inner: &Rule, depth: usize) -> Result<Value> {
        let mut value = self.write_at(inner, depth + 1)?;
        let times = if self.slips()? { self.bytes.int_in_range(1..=150)? } else { 1 };
        for _ in 0..times {
            value = json!({ field: value });
        }
        Ok(value)
    }

    /// What does not belong here.
    fn anything(&mut self, depth: usize) -> Result<Value> {
        let kinds = if depth > DEEP { 5 } else { 8 };
        Ok(match self.bytes.int_in_range(0..=kinds)? {
            0 => Value::Null,
            1 => self.bytes.arbitrary::<bool>()?.into(),
            2 => self.bytes.arbitrary::<i32>()?.into(),
            // Whole ones would be written otherwise in a Struct.
            3 => (*self.bytes.choose(&[0.5, -2.5, 1e300, 1e-300, 0.1])?).into(),
            4 | 5 => self.text()?.into(),
            6 => json!([self.anything(depth + 1)?]),
            7 => json!({ self.text()?: self.anything(depth + 1)? }),
            _ => self.write_at(&CONFIGURATION, depth + 1)?,
        })
    }

    fn text(&mut self) -> Result<String> {
        if self.one_in(3)? {
            return self.bytes.arbitrary();
        }
        let word = *self.bytes.choose(HOSTILE)?;
        let times = if self.is_huge()? { self.bytes.int_in_range(1..=HUGE)? } else { 1 };
        Ok(word.repeat(times))
    }

    fn is_huge(&mut self) -> Result<bool> {
        Ok(self.verbose && self.one_in(4)?)
    }

    fn slips(&mut self) -> Result<bool> {
        Ok(self.slips > 0 && self.one_in(self.slips)?)
    }

    /// Never where the bytes are used up.
    fn one_in(&mut self, many: u16) -> Result<bool> {
        Ok(self.bytes.int_in_range(1..=many)? == many)
    }
}

/// How long a value is when it is written, about; at least 1.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 2 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>()
        }
        Value::String(text) => 3 + text.len(),
        _ => 5,
    }
}
