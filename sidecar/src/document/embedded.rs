//! Texts that stand within a file as a scalar, such as JSON in a StringValue, and where their letters are in the file.

use super::{Documents, Mistake, Source, Span};

/// From places in an inner text to places in the file.
enum Letters {
    /// Every letter stands in the file as it is: so far in.
    Alike(usize),
    /// Every line does, behind its indentation: where it begins in the text, where in the file, and the indentation.
    ByLine(Vec<(usize, usize)>),
    /// Folded, or with escapes: all of it is where the scalar is.
    Somewhere(Span),
}

/// Reads `text`, the content of the scalar that stands at `at` of `source`, by `read`; places are those of `source`.
#[must_use]
pub fn read(source: &Source, at: Span, text: &str, read: impl Fn(&str) -> Documents) -> Documents {
    let letters = letters(source, at, text);
    let Documents { mut roots, mistakes } = read(text);
    let to = |span: Span| letters.place(span);
    roots.iter_mut().for_each(|root| root.move_places(&to));
    let moved = |mistake: Mistake| Mistake {
        at: to(mistake.at),
        note: mistake.note.map(|(at, words)| (to(at), words)),
        ..mistake
    };
    Documents { roots, mistakes: mistakes.into_iter().map(moved).collect() }
}

fn letters(source: &Source, at: Span, text: &str) -> Letters {
    let written = source.slice(at);
    let quoted = written.len() == text.len() + 2;
    let inner = if quoted { written.get(1..written.len() - 1).unwrap_or_default() } else { written };
    if inner == text {
        return Letters::Alike(at.start + usize::from(quoted));
    }
    by_line(source, at, text).map_or(Letters::Somewhere(at), Letters::ByLine)
}

/// The lines of a block scalar, if they are those of the file but for their indentation.
fn by_line(source: &Source, at: Span, text: &str) -> Option<Vec<(usize, usize)>> {
    // The scalar is said to begin with its first line that is not empty.
    let (begin, _) = source.position(at.start);
    let first = begin.checked_sub(text.chars().take_while(|&sign| sign == '\n').count())?;
    let mut lines = Vec::new();
    let mut inner = 0;
    for (number, line) in text.split('\n').enumerate() {
        let (start, outer) = source.line(first + number);
        // An empty line needs no indentation; and after the last line feed comes nothing, whatever the file has.
        if !line.is_empty() {
            let indentation = outer.len().checked_sub(line.len())?;
            let only_spaces = outer.get(..indentation)?.bytes().all(|byte| byte == b' ');
            if !only_spaces || outer.get(indentation..)? != line {
                return None;
            }
            lines.push((inner, start + indentation));
        } else {
            lines.push((inner, start));
        }
        inner += line.len() + 1;
    }
    Some(lines)
}

impl Letters {
    fn place(&self, span: Span) -> Span {
        match self {
            Self::Somewhere(at) => *at,
            _ => Span { start: self.letter(span.start), end: self.letter(span.end) },
        }
    }

    fn letter(&self, inner: usize) -> usize {
        match self {
            Self::Alike(start) => start + inner,
            Self::ByLine(lines) => {
                let line = lines.partition_point(|&(start, _)| start <= inner).saturating_sub(1);
                lines.get(line).map_or(0, |&(start, outer)| outer + (inner - start))
            }
            Self::Somewhere(at) => at.start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Node, json, yaml};

    /// The text in the file where the number in the inner JSON is.
    fn number(file: &str) -> String {
        let source = Source::new(file.to_owned());
        let outer = yaml::read(source.text());
        assert_eq!(outer.mistakes, [], "{file}");
        let scalar = outer.roots[0].get("value").expect("a value");
        let inner = read(&source, scalar.at, scalar.text().expect("text"), json::read);
        assert_eq!(inner.mistakes, [], "{file}");
        let found = inner.roots[0].get("a").map(Node::shown).expect("the number");
        source.slice(found).to_owned()
    }

    #[test]
    fn letters_of_a_block_and_of_a_plain_quote_are_found() {
        for file in [
            "value: |\n  {\n    \"b\": [],\n    \"a\": 17\n  }\n",
            "value: |-\n  {\"a\": 17}",
            "value: |\n\n\n    { \"b\": 1,\n\n  \"a\": 17}\n\n".replace("\n  \"a", "\n     \"a").as_str(),
            "value: |2\n    {\"a\": 17}\n",
            "value: |\r\n  {\r\n   \"a\": 17}\r\n",
            "x:\n- value: 1\nvalue: >\n  {\"a\": 17}\n",
            "value: '{\"a\": 17}'",
        ] {
            assert_eq!(number(file), "17", "{file}");
        }
    }

    #[test]
    fn what_is_escaped_or_folded_is_told_by_the_whole_scalar() {
        assert_eq!(number("value: \"{\\\"a\\\": 17}\""), "\"{\\\"a\\\": 17}\"");
        let folded = number("value: >-\n  {\n  \"a\": 17}\n");
        assert!(folded.starts_with('{') && folded.contains("17"), "{folded}");
    }
}
