//! JSON with the places of its values.
//!
//! `serde_json` tells first whether the text is JSON at all, since it is what the filter reads it with; so the walk
//! through it meets nothing unexpected.

use serde_json::Number;

use super::{
    Documents, Field, MAX_BYTES, MAX_DEPTH, Mistake, Names, Node, Source, Span, Value, add_field,
    bytes_of_name, too_deep, too_large,
};

/// Reads a text that is one JSON value.
#[must_use]
pub fn read(text: &str) -> Documents {
    let mut documents = Documents::default();
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        documents.mistakes.push(not_json(text, &error));
        return documents;
    }
    let mut walk = Walk { text, at: 0, depth: 0, bytes: 0, mistakes: Vec::new() };
    match walk.value() {
        Ok(root) => documents.roots.push(root),
        Err(mistake) => walk.mistakes.push(mistake),
    }
    documents.mistakes = walk.mistakes;
    documents
}

fn not_json(text: &str, error: &serde_json::Error) -> Mistake {
    if text.starts_with('\u{feff}') {
        let message = "the JSON cannot be read: it begins with a byte order mark; save it without one";
        return Mistake { at: Span { start: 0, end: 0 }, message: message.to_owned(), note: None };
    }
    let start = Source::new(text.to_owned()).offset(error.line(), error.column());
    let told = error.to_string();
    let reason = told.split(" at line ").next().unwrap_or_default();
    let end = (start + 1).min(text.len());
    Mistake { at: Span { start, end }, message: format!("the JSON cannot be read: {reason}"), note: None }
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    bytes: usize,
    mistakes: Vec<Mistake>,
}

impl Walk<'_> {
    fn value(&mut self) -> Result<Node, Mistake> {
        let start = self.next_sign();
        self.spend(size_of::<Node>(), start)?;
        let value = match self.sign() {
            b'{' | b'[' => self.nested(start)?,
            b'"' => Value::Text(self.string()?),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => self.number()?,
        };
        let whole = !matches!(value, Value::List(_) | Value::Mapping(_));
        Ok(Node { at: Span { start, end: if whole { self.at } else { start + 1 } }, value })
    }

    fn nested(&mut self, start: usize) -> Result<Value, Mistake> {
        if self.depth == MAX_DEPTH {
            return Err(too_deep(Span { start, end: start + 1 }));
        }
        self.depth += 1;
        let value = if self.sign() == b'{' { self.mapping()? } else { self.list()? };
        self.depth -= 1;
        Ok(value)
    }

    fn mapping(&mut self) -> Result<Value, Mistake> {
        let (mut fields, mut names) = (Vec::new(), Names::new());
        self.at += 1;
        while self.next_sign() < self.text.len() && self.sign() != b'}' {
            let start = self.at;
            let name = self.string()?;
            let at = Span { start, end: self.at };
            self.spend(bytes_of_name(&name), start)?;
            self.skip(b':');
            let node = self.value()?;
            add_field(&mut fields, Field { name, at, node }, &mut names, &mut self.mistakes);
            self.skip(b',');
        }
        self.at += 1;
        fields.shrink_to_fit();
        Ok(Value::Mapping(fields))
    }

    fn list(&mut self) -> Result<Value, Mistake> {
        let mut items = Vec::new();
        self.at += 1;
        while self.next_sign() < self.text.len() && self.sign() != b']' {
            items.push(self.value()?);
            self.skip(b',');
        }
        self.at += 1;
        items.shrink_to_fit();
        Ok(Value::List(items))
    }

    fn string(&mut self) -> Result<String, Mistake> {
        let start = self.at;
        self.at += 1;
        while self.sign() != b'"' {
            self.at += if self.sign() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        let at = Span { start, end: self.at };
        let text: String = self.decoded(at)?;
        self.spend(text.len(), start)?;
        Ok(text)
    }

    fn number(&mut self) -> Result<Value, Mistake> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.find(|sign: char| !matches!(sign, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        let start = self.at;
        self.at += length.unwrap_or(rest.len()).max(1);
        self.decoded::<Number>(Span { start, end: self.at }).map(Value::Number)
    }

    /// What `serde_json` makes of a string or a number: an escape may stand for no letter.
    fn decoded<T: serde::de::DeserializeOwned>(&self, at: Span) -> Result<T, Mistake> {
        let written = self.text.get(at.start..at.end).unwrap_or_default();
        serde_json::from_str(written).map_err(|error| Mistake { at, ..not_json(written, &error) })
    }

    fn word(&mut self, word: &str, value: Value) -> Value {
        self.at += word.len();
        value
    }

    /// Goes to the next sign that is no white space.
    fn next_sign(&mut self) -> usize {
        while matches!(self.sign(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        self.at
    }

    /// Goes past a separator, if it is next.
    fn skip(&mut self, separator: u8) {
        self.next_sign();
        if self.sign() == separator {
            self.at += 1;
        }
        self.next_sign();
    }

    /// The byte here. At the end it is one that ends whatever is being read.
    fn sign(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(b'"')
    }

    fn spend(&mut self, bytes: usize, start: usize) -> Result<(), Mistake> {
        self.bytes += bytes;
        if self.bytes > MAX_BYTES { Err(too_large(Span { start, end: start })) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_where_they_stand() {
        let text = " {\"a\" : [1, -2.5e3 ,\"x\\\"ü\\u00e9\", true,null,{}], \"b\":[]} ";
        let documents = read(text);
        assert_eq!(documents.mistakes, []);
        let root = &documents.roots[0];
        let slice = |at: Span| &text[at.start..at.end];
        let places: Vec<_> = root.get("a").expect("a").items().iter().map(|item| slice(item.at)).collect();
        assert_eq!(places, ["1", "-2.5e3", "\"x\\\"ü\\u00e9\"", "true", "null", "{"]);
        assert_eq!(slice(root.field("b").expect("b").at), "\"b\"");
    }

    #[test]
    fn what_is_no_json_is_told_where() {
        for (text, at, words) in [
            ("{\"a\": 1,}", 8, "key must be a string"),
            ("{\n \"a\": tru }", 11, "expected ident"),
            ("", 0, "EOF"),
            ("\u{feff}{}", 0, "it begins with a byte order mark"),
            ("[1] 2", 4, "trailing characters"),
            ("[\"\\ud800\"]", 1, "hex escape"),
            ("[1e999]", 1, "number out of range"),
        ] {
            let documents = read(text);
            let [mistake] = documents.mistakes.as_slice() else { panic!("{text}: {documents:?}") };
            assert!(mistake.message.contains(words), "{text}: {mistake:?}");
            assert_eq!(mistake.at.start, at, "{text}: {mistake:?}");
        }
        for (depth, fine) in [(100, true), (101, false), (1_000_000, false)] {
            let documents = read(&("[".repeat(depth) + &"]".repeat(depth)));
            assert_eq!(documents.mistakes.is_empty(), fine, "{depth}");
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f32>().prop_map(|number| f64::from(number).into()),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_read_as_serde_json_reads_it(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let expected: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let documents = read(&text);
            prop_assert_eq!(&documents.mistakes, &[]);
            prop_assert_eq!(documents.roots[0].to_json(), expected);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[\\[\\]{}\",:0-9a-e\\\\u \\n.-]{0,40}") {
            let documents = read(&text);
            prop_assert_eq!(documents.roots.is_empty(), !documents.mistakes.is_empty());
        }
    }
}
