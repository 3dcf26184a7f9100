//! YAML as Envoy reads it.
//!
//! Its parser knows anchors and aliases, and no merge keys: `<<` is a name like any other. That of Kubernetes does, and
//! what has an `apiVersion` is read by that. Where Envoy goes on
//! silently (a name that is written twice), or crashes (an alias within what it names), this is a mistake.

use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Tag, options};

use super::scalar::{self, Written};
use super::{
    Documents, Field, MAX_BYTES, MAX_DEPTH, Mistake, Names, Node, Span, Value, add_field, bytes_of_name,
    mistake, too_deep, too_large,
};

/// Reads all documents of a text; after what cannot be read, no more are.
#[must_use]
pub fn read(text: &str) -> Documents {
    let mut reader = Reader::default();
    if let Err(mistake) = reader.read(text) {
        reader.documents.mistakes.push(mistake);
    }
    reader.documents
}

#[derive(Default)]
struct Reader {
    documents: Documents,
    /// The lists and mappings that are open, the innermost last.
    open: Vec<Open>,
    /// What aliases may refer to.
    anchored: HashMap<usize, Node>,
    bytes: usize,
}

/// A list or a mapping that is not yet at its end.
struct Open {
    at: Span,
    anchor: usize,
    inner: Inner,
}

enum Inner {
    List(Vec<Node>),
    Mapping { fields: Vec<Field>, names: Names, next: Option<Name> },
}

/// The name of the value that comes next.
struct Name {
    text: String,
    at: Span,
    /// With the tag `!ignore` Envoy leaves it out.
    ignored: bool,
}

impl Reader {
    fn read(&mut self, text: &str) -> Result<(), Mistake> {
        // The parser looks ahead; what is too deep is told at the place that is.
        let limit = MAX_DEPTH + 1;
        let options =
            options! { emit_comments: false, flow_nesting_limit: limit, block_nesting_limit: limit };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| {
                let start = error.marker().byte_offset().unwrap_or_default();
                // What comes too early is at the place of the error; the end of the text has no letter to point at.
                let end =
                    start + text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
                if *error.kind() == ErrorKind::RecursionLimitExceeded {
                    return too_deep(Span { start, end });
                }
                mistake(Span { start, end }, format!("the YAML cannot be read: {}", error.info()))
            })?;
            let range = span.byte_range().unwrap_or_default();
            self.event(event, Span { start: range.start, end: range.end })?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, at: Span) -> Result<(), Mistake> {
        match event {
            Event::DocumentStart(..) => self.anchored.clear(),
            Event::SequenceStart(_, anchor, _) => {
                self.open(Open { at, anchor, inner: Inner::List(Vec::new()) })?;
            }
            Event::MappingStart(_, anchor, _) => {
                let inner = Inner::Mapping { fields: Vec::new(), names: Names::new(), next: None };
                self.open(Open { at, anchor, inner })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node { at, value: scalar::read(&text, written(style, tag.as_deref())) };
                if self.awaits_name() {
                    let ignored = tag.is_some_and(|tag| tag.original() == "!ignore");
                    let text = if node.value == Value::Null { "null".to_owned() } else { text.into_owned() };
                    self.anchor(anchor, Node { at, value: Value::Text(text.clone()) })?;
                    self.name(Name { text, at, ignored });
                } else {
                    self.anchor(anchor, node.clone())?;
                    self.add(node)?;
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open) -> Result<(), Mistake> {
        if self.awaits_name() {
            return Err(mistake(open.at, "found a list or a mapping as a name; names are text"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(open.at));
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Mistake> {
        let Some(Open { at, anchor, inner }) = self.open.pop() else { return Ok(()) };
        let value = match inner {
            // What was set aside for more is not counted.
            Inner::List(mut items) => {
                items.shrink_to_fit();
                Value::List(items)
            }
            Inner::Mapping { mut fields, .. } => {
                fields.shrink_to_fit();
                Value::Mapping(fields)
            }
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.anchor(anchor, node.clone())?;
        }
        self.add(node)
    }

    /// Keeps what an alias may refer to.
    fn anchor(&mut self, anchor: usize, node: Node) -> Result<(), Mistake> {
        if anchor > 0 {
            self.spend(node.bytes(), node.at)?;
            self.anchored.insert(anchor, node);
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Span) -> Result<(), Mistake> {
        let Some(node) = self.anchored.get(&anchor) else {
            return Err(mistake(
                at,
                "found an alias within the value that it stands for; Envoy crashes on it",
            ));
        };
        if self.open.len() + node.depth() > MAX_DEPTH {
            return Err(too_deep(at));
        }
        // Before it is copied: aliases of aliases grow without bounds.
        let bytes = node.bytes();
        if self.bytes + bytes > MAX_BYTES {
            return Err(too_large(at));
        }
        let node = node.clone();
        if self.awaits_name() {
            let Value::Text(text) = node.value else {
                return Err(mistake(at, "found an alias of what is no text as a name; names are text"));
            };
            self.name(Name { text, at, ignored: false });
            return Ok(());
        }
        self.bytes += bytes;
        self.add(node)
    }

    fn awaits_name(&self) -> bool {
        matches!(self.open.last(), Some(Open { inner: Inner::Mapping { next: None, .. }, .. }))
    }

    fn name(&mut self, name: Name) {
        if let Some(Open { inner: Inner::Mapping { next, .. }, .. }) = self.open.last_mut() {
            *next = Some(name);
        }
    }

    fn add(&mut self, node: Node) -> Result<(), Mistake> {
        let inner = match &node.value {
            Value::Text(text) => text.len(),
            // What is in it was counted when it was added.
            _ => 0,
        };
        self.spend(size_of::<Node>() + inner, node.at)?;
        match self.open.last_mut().map(|open| &mut open.inner) {
            None => self.documents.roots.push(match node.get("apiVersion") {
                Some(_) => merged(node),
                None => node,
            }),
            Some(Inner::List(items)) => items.push(node),
            Some(Inner::Mapping { fields, names, next }) => {
                let Some(name) = next.take().filter(|name| !name.ignored) else { return Ok(()) };
                self.bytes += bytes_of_name(&name.text);
                let field = Field { name: name.text, at: name.at, node };
                add_field(fields, field, names, &mut self.documents.mistakes);
            }
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize, at: Span) -> Result<(), Mistake> {
        self.bytes += bytes;
        if self.bytes > MAX_BYTES { Err(too_large(at)) } else { Ok(()) }
    }
}

/// With the fields of every `<<` in the mapping that has it, but for those that are there already.
fn merged(node: Node) -> Node {
    let value = match node.value {
        Value::List(items) => Value::List(items.into_iter().map(merged).collect()),
        Value::Mapping(fields) => {
            let (merges, mut fields): (Vec<Field>, Vec<Field>) =
                fields.into_iter().partition(|field| field.name == "<<");
            let mut known: HashSet<String> = fields.iter().map(|field| field.name.clone()).collect();
            // Of several mappings in a list the first has the say.
            let sources = merges.into_iter().flat_map(|merge| match merge.node.value {
                Value::List(items) => items,
                _ => vec![merge.node],
            });
            for source in sources.map(merged) {
                let Value::Mapping(inner) = source.value else { continue };
                fields.extend(inner.into_iter().filter(|field| known.insert(field.name.clone())));
            }
            let whole = |field: Field| Field { node: merged(field.node), ..field };
            Value::Mapping(fields.into_iter().map(whole).collect())
        }
        other => other,
    };
    Node { value, ..node }
}

fn written(style: ScalarStyle, tag: Option<&Tag>) -> Written {
    match tag.map(Tag::original) {
        Some(tag) if tag == "!" => Written::AsText,
        Some(_) => Written::Tagged,
        None if style == ScalarStyle::Plain => Written::Plain,
        None => Written::AsText,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read_one(text: &str) -> serde_json::Value {
        let documents = read(text);
        assert_eq!(documents.mistakes, [], "{text}");
        documents.roots[0].to_json()
    }

    fn refused(text: &str) -> Mistake {
        let documents = read(text);
        documents.mistakes.into_iter().next().unwrap_or_else(|| panic!("it was read: {text}"))
    }

    /// Each was read by Envoy 1.40.
    #[test]
    fn structures_are_read_as_envoy_reads_them() {
        for (text, value) in [
            (
                "yes: a\n5: b\n0x10: c\n~: d\n\"q\": e\n!ignore i: f\n!foo g: h\n? j\n: k\nm:",
                json!({"yes": "a", "5": "b", "0x10": "c", "null": "d", "q": "e", "g": "h", "j": "k", "m": null}),
            ),
            (
                "a: |\n  5\nb: >\n  yes\nc: |-\n  5\nd: >-\n  true\ne: x\n  y",
                json!({"a": "5\n", "b": "yes\n", "c": "5", "d": "true", "e": "x y"}),
            ),
            ("a: &x 1\nb: &x 2\nc: *x", json!({"a": 1, "b": 2, "c": 2})),
            ("&k a: 1\nb: *k", json!({"a": 1, "b": "a"})),
            ("base: &b {p: 1}\nm: {<<: *b}", json!({"base": {"p": 1}, "m": {"<<": {"p": 1}}})),
            ("[a, b: c, {a:1}, {b, c: }]", json!(["a", {"b": "c"}, {"a:1": null}, {"b": null, "c": null}])),
            ("[! 5, !!str 5, !!int \"5\", !foo \"7\", !!str ~, ! ~]", json!(["5", 5, 5, 7, "~", "~"])),
            ("\u{feff}a:\t5", json!({"a": 5})),
        ] {
            assert_eq!(read_one(text), value, "{text}");
        }
    }

    #[test]
    fn kubernetes_merges_what_envoy_does_not() {
        let merges = "a: &a {p: 1, q: {<<: {r: 1}}}\nb: &b {p: 2, s: 2}\n";
        for (text, value) in [
            ("m: {<<: *a, p: 3}", json!({"p": 3, "q": {"r": 1}})),
            ("m: {x: 0, <<: [*a, *b]}", json!({"x": 0, "p": 1, "q": {"r": 1}, "s": 2})),
            ("m: {<<: {<<: *b, p: 5}}", json!({"p": 5, "s": 2})),
        ] {
            assert_eq!(read_one(&format!("apiVersion: v1\n{merges}{text}"))["m"], value, "{text}");
        }
        assert_eq!(read_one("m: {<<: {p: 1}}"), json!({"m": {"<<": {"p": 1}}}));
    }

    #[test]
    fn a_name_that_is_written_twice_is_told_with_both_places() {
        let text = "a: {x: 1}\nb: 2\na: 3\n";
        let documents = read(text);
        let [mistake] = documents.mistakes.as_slice() else { panic!("{documents:?}") };
        assert_eq!((mistake.at.start, mistake.note.map(|(at, _)| at.start)), (15, Some(0)));
        assert_eq!(documents.roots[0].to_json(), json!({"a": 3, "b": 2}), "and is read as Envoy reads it");
    }

    #[test]
    fn what_cannot_be_read_is_told_where() {
        for (text, at, words) in [
            ("a: *b", 3, "unknown anchor"),
            ("a: [1, 2", 3, "unclosed bracket"),
            ("a: b: c", 4, "mapping values are not allowed"),
            ("[a]: 1", 0, "as a name"),
            ("{a: 1}: 1", 0, "as a name"),
            ("a: &x {b: 1}\n*x : 2", 13, "as a name"),
            ("a: &x [1, *x]", 10, "Envoy crashes"),
        ] {
            let mistake = refused(text);
            assert!(mistake.message.contains(words), "{text}: {mistake:?}");
            assert_eq!(mistake.at.start, at, "{text}: {mistake:?}");
        }
    }

    #[test]
    fn documents_are_read_one_by_one() {
        let documents = read("a: 1\n---\nb: 2\n---\n...\n---\n[");
        let roots: Vec<_> = documents.roots.iter().map(Node::to_json).collect();
        assert_eq!(roots, [json!({"a": 1}), json!({"b": 2}), json!(null)]);
        assert_eq!(documents.mistakes.len(), 1);
    }

    #[test]
    fn nesting_is_bounded_as_in_envoy() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(MAX_DEPTH)).mistakes.is_empty());
        assert!(refused(&nested(MAX_DEPTH + 1)).message.contains("more than 100"));
        assert!(refused(&"- ".repeat(100_000)).message.contains("more than 100"));
        assert!(refused(&"{a: ".repeat(100_000)).message.contains("more than 100"));
        let by_alias = format!("- &a {}\n- {}", nested(60), nested(60).replace("[]", "[*a]"));
        assert!(refused(&by_alias).message.contains("more than 100"));
    }

    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", "));
        }
        assert!(refused(&text).message.contains("128 MiB"));
        let long = format!("- &a {}\n{}", "x".repeat(1 << 20), "- *a\n".repeat(200));
        assert!(refused(&long).message.contains("128 MiB"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[\\[\\]{}\"':,&*!|>%@`#?\\-a-c0 \\n\\t]{0,60}") {
            let documents = read(&text);
            for root in &documents.roots {
                let _ = (root.to_json(), root.shown());
            }
        }
    }
}
