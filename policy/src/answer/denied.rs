//! The answer to a denied request, as the user wants it.

use std::fmt::Write as _;

use super::headers::Header;

/// What a denied request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The HTTP status.
    pub status: u16,
    /// Headers to add, their names in lower case.
    pub headers: Vec<(String, Template)>,
    /// `None`: a problem in JSON that names the policy.
    pub body: Option<Template>,
}

/// Text with places to be filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Word),
}

/// What can be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Policy,
    Limit,
    Remaining,
    RetryAfter,
}

/// The words of a template, as they are written.
pub const WORDS: [&str; 4] = ["POLICY", "LIMIT", "REMAINING", "RETRY_AFTER"];

/// What is filled in.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    pub policy: &'a str,
    pub limit: &'a str,
    pub remaining: u64,
    /// `None` where no wait will help.
    pub retry_after_seconds: Option<u64>,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTemplate {
    /// There is no such word.
    Unknown(String),
    /// A percent sign begins a word that does not end.
    Unfinished,
}

impl Template {
    /// Reads `%WORD%` and `%%`.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut pieces = Vec::new();
        // Between percent signs, text and words take turns; an empty word is a percent sign.
        for (index, part) in text.split('%').enumerate() {
            match (index % 2 == 1, part) {
                (false, "") => {}
                (false, text) => pieces.push(Piece::Text(text.to_owned())),
                (true, "") => pieces.push(Piece::Text("%".to_owned())),
                (true, word) => pieces.push(Piece::Place(Word::parse(word)?)),
            }
        }
        if text.matches('%').count() % 2 == 1 {
            return Err(BadTemplate::Unfinished);
        }
        Ok(Self(pieces))
    }

    /// The text with everything filled in.
    pub fn fill(&self, filling: &Filling<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            let _infallible = match piece {
                Piece::Text(piece) => write!(text, "{piece}"),
                Piece::Place(Word::Policy) => write!(text, "{}", filling.policy),
                Piece::Place(Word::Limit) => write!(text, "{}", filling.limit),
                Piece::Place(Word::Remaining) => write!(text, "{}", filling.remaining),
                Piece::Place(Word::RetryAfter) => match filling.retry_after_seconds {
                    Some(seconds) => write!(text, "{seconds}"),
                    None => write!(text, "null"),
                },
            };
        }
        text
    }
}

impl Word {
    fn parse(word: &str) -> Result<Self, BadTemplate> {
        match word {
            "POLICY" => Ok(Self::Policy),
            "LIMIT" => Ok(Self::Limit),
            "REMAINING" => Ok(Self::Remaining),
            "RETRY_AFTER" => Ok(Self::RetryAfter),
            // Most likely a lone percent sign, and the text up to the next.
            _ if word.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) => {
                Err(BadTemplate::Unfinished)
            }
            _ => Err(BadTemplate::Unknown(word.to_owned())),
        }
    }
}

impl Denied {
    /// The headers with everything filled in; the type of the body, if there is one, where none is written.
    pub fn headers(&self, filling: &Filling<'_>) -> Vec<Header> {
        let written = self.headers.iter().map(|(name, value)| (name.clone().into(), value.fill(filling)));
        let has_type = self.headers.iter().any(|(name, _)| name == "content-type");
        let default = match &self.body {
            Some(_) => "text/plain; charset=utf-8",
            None => "application/problem+json",
        };
        let content_type = (!has_type).then(|| ("content-type".into(), default.to_owned()));
        content_type.into_iter().chain(written).collect()
    }
}
