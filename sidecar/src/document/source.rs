//! The text of a file, and places in it.

/// Places from `start` up to `end`, in bytes of the file's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// A text that knows its lines.
#[derive(Clone, Debug)]
pub struct Source {
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Span {
    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

impl Source {
    /// The text of a file.
    #[must_use]
    pub fn new(text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect();
        Self { text, lines }
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands at a place; empty where there is no such place.
    #[must_use]
    pub fn slice(&self, at: Span) -> &str {
        self.text.get(at.start..at.end).unwrap_or_default()
    }

    /// The line of a byte and the column in it, both counted from 1, the column in characters.
    #[must_use]
    pub fn position(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|&start| start <= at);
        let before = Span { start: self.line_start(line), end: at };
        (line, self.slice(before).chars().count() + 1)
    }

    /// A line without its end, by its number counted from 1, and where it begins.
    #[must_use]
    pub fn line(&self, number: usize) -> (usize, &str) {
        let start = self.line_start(number);
        let end = self.lines.get(number).copied().unwrap_or(self.text.len());
        (start, self.slice(Span { start, end }).trim_end_matches(['\n', '\r']))
    }

    /// Where a place given as a line and a column in bytes is, both counted from 1; at most the end of the text.
    #[must_use]
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let mut at = (self.line_start(line) + column.saturating_sub(1)).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn line_start(&self, number: usize) -> usize {
        let last = self.lines.last().copied().unwrap_or_default();
        self.lines.get(number.saturating_sub(1)).copied().unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_columns() {
        let source = Source::new("a: ü1\r\nb\n".to_owned());
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(5), (1, 5), "columns count characters");
        assert_eq!(source.position(8), (2, 1));
        assert_eq!(source.position(10), (3, 1));
        assert_eq!(source.line(1), (0, "a: ü1"));
        assert_eq!(source.line(2), (8, "b"));
        assert_eq!(source.line(3), (10, ""));
        assert_eq!(source.offset(1, 6), 5);
        assert_eq!(source.offset(1, 5), 3, "not within a letter");
        assert_eq!(source.offset(99, 99), 10);
    }
}
