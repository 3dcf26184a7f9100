//! What is said about a file, in the style of compilers: place, kind, message, and the line with a mark.

use std::fmt::{self, Display, Formatter, Write as _};
use std::io::{self, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use anstyle::{AnsiColor, Style};

use crate::document::{Mistake, Source, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Envoy or the filter refuses it.
    Error,
    /// It works, but hardly as it is meant.
    Warning,
}

/// One thing to say about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where; nowhere if it is about the file as a whole.
    pub at: Option<Span>,
    /// What was found, and what would be right.
    pub message: String,
    /// Another place that has to do with it, and what is there.
    pub note: Option<(Span, String)>,
}

impl Finding {
    /// Something that is wrong.
    pub fn error(at: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at: Some(at), message: message.into(), note: None }
    }

    /// Something that is hardly meant.
    pub fn warning(at: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, message) }
    }

    /// Something that is wrong with the file as a whole.
    pub fn of_file(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at: None, message: message.into(), note: None }
    }

    /// With another place that has to do with it.
    #[must_use]
    pub fn with_note(mut self, at: Span, words: impl Into<String>) -> Self {
        self.note = Some((at, words.into()));
        self
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Writes it about the file of this name.
    pub fn write(&self, name: &str, source: &Source, to: &mut impl Write) -> io::Result<()> {
        let (kind, level, color) = match self.severity {
            Severity::Error => ("error", Level::ERROR, AnsiColor::BrightRed),
            Severity::Warning => ("warning", Level::WARNING, AnsiColor::Yellow),
        };
        let place = self.at.map(|at| (source, at));
        write_one(to, name, place, (kind, level, color), &self.message)?;
        if let Some((at, words)) = &self.note {
            write_one(to, name, Some((source, *at)), ("note", Level::NOTE, AnsiColor::BrightGreen), words)?;
        }
        Ok(())
    }
}

impl From<Mistake> for Finding {
    fn from(mistake: Mistake) -> Self {
        let note = mistake.note.map(|(at, words)| (at, words.to_owned()));
        Self { note, ..Self::error(mistake.at, mistake.message) }
    }
}

/// The line with every sign that could steer a terminal replaced by one of as many bytes, so that places stay right.
fn harmless(line: &str) -> String {
    let replaced = |sign: char| match sign.len_utf8() {
        _ if sign == '\t' || !steers(sign) => sign,
        1 => '?',
        2 => '·',
        3 => '\u{fffd}',
        _ => '\u{1fbc4}',
    };
    line.chars().map(replaced).collect()
}

/// Whether a sign moves the cursor, changes colors, turns the direction of what follows around, or is there and cannot be seen.
pub(crate) fn steers(sign: char) -> bool {
    let turns_or_hides = matches!(
        sign,
        '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    );
    sign.is_control() || turns_or_hides
}

/// Text that is quoted from somewhere, with every sign escaped that could steer the terminal or break the line.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|sign| match steers(sign) {
            true => sign.escape_default().try_for_each(|sign| f.write_char(sign)),
            false => f.write_char(sign),
        })
    }
}

/// JSON with every sign escaped that could steer the terminal: such a sign is only within its texts, so that it means the same.
#[derive(Clone, Copy, Debug)]
pub struct ShownJson<'a>(pub &'a str);

impl Display for ShownJson<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|sign| match sign {
            '\n' | '\t' => f.write_char(sign),
            // Between its parts, and nowhere else.
            '\r' => Ok(()),
            sign if steers(sign) => {
                sign.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}"))
            }
            sign => f.write_char(sign),
        })
    }
}

/// Where the letter begins that `at` is within; at most the end.
fn before(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

/// Where the letter ends that `at` is within; at most the end.
fn after(text: &str, at: usize) -> usize {
    (at..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

fn write_one(
    to: &mut impl Write,
    name: &str,
    place: Option<(&Source, Span)>,
    (kind, level, color): (&str, Level<'static>, AnsiColor),
    message: &str,
) -> io::Result<()> {
    let bold = Style::new().bold();
    let colored = bold.fg_color(Some(color.into()));
    let position = place.map(|(source, at)| source.position(at.start));
    let position = position.map_or_else(String::new, |(line, column)| format!("{line}:{column}:"));
    let (name, message) = (Shown(name), Shown(message));
    writeln!(to, "{bold}{name}:{position}{bold:#} {colored}{kind}{colored:#}{bold}: {message}{bold:#}")?;
    let Some((source, at)) = place else { return Ok(()) };
    let (line, _) = source.position(at.start);
    let (start, text) = source.line(line);
    // What goes over several lines is marked on its first.
    let from = before(text, at.start - start);
    let mark = from..after(text, at.end.max(at.start) - start).max(from);
    let snippet =
        Snippet::source(harmless(text)).line_start(line).annotation(AnnotationKind::Primary.span(mark));
    writeln!(to, "{}", Renderer::styled().render(&[Group::with_level(level).element(snippet)]))
}

#[cfg(test)]
mod tests {
    use super::ShownJson;
    use crate::check::{File, write_all};

    fn told(name: &str, text: &str) -> String {
        let file = File::of_text(name, text.to_owned());
        let mut told = Vec::new();
        write_all(&file, &file.inspect().findings, &mut told).expect("written");
        String::from_utf8(told).expect("text")
    }

    #[test]
    fn a_wrong_letter_of_several_bytes_is_told() {
        for text in ["{\"a\": é}", "é", "{é: 1}", "[1, \u{fffd}]", "{\"a\": 1 é}"] {
            assert!(told("x.json", text).contains("the JSON cannot be read"), "{text}");
        }
        assert!(told("x.yaml", "a: 1\n--- é\n").contains("found a second document"));
    }

    #[test]
    fn nothing_that_is_quoted_steers_the_terminal() {
        for sign in ["\u{9b}31m", "\u{7f}", "\u{202e}"] {
            let told =
                told(&format!("{sign}.yaml"), &format!("policies: []\nsidecar: {{cluster{sign}: a}}\n"));
            assert!(told.contains("error"), "{told}");
            assert!(!told.contains(sign), "{told:?}");
        }
    }

    #[test]
    fn json_steers_nothing_and_means_the_same() {
        let value =
            serde_json::json!({"\u{9b}31m": ["\u{202e}\u{1b}[2J\r\n\u{7f}", "\u{e0041}", "ключ 🔑 \\u009b"]});
        let told = ShownJson(&format!("{value:#}\r\n")).to_string();
        assert!(told.contains(r#""\u009b31m""#) && told.contains(r"\udb40\udc41"), "{told}");
        assert!(!told.contains(|sign: char| super::steers(sign) && sign != '\n'), "{told:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&told).expect("JSON"), value);
    }
}
