//! Keys as a shell reads them: what is shown of one can be given back, whatever a client has sent.

use std::fmt::{self, Display, Formatter, Write};

use crate::check::finding::steers;

/// A key as one word of a command line. Most are words as they are; one with a sign that means something to a shell is in
/// quotes, and one with a sign that steers a terminal in `$'…'`, as bash, zsh, ksh and busybox read it. No two keys are the
/// same word.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let key = self.0;
        if key.contains('\0') {
            // No argument has it, and a shell would cut the word there: this is none, so that it refuses it.
            f.write_str("(by the API only) ")?;
        }
        if key.chars().any(steers) {
            f.write_str("$'")?;
            key.chars().try_for_each(|sign| escaped(sign, f))?;
            f.write_char('\'')
        } else if key.is_empty() || key.starts_with(['=', '~']) || !key.chars().all(is_plain) {
            write!(f, "'{}'", key.replace('\'', r"'\''"))
        } else {
            f.write_str(key)
        }
    }
}

/// Within `$'…'`; bytes in octal, which are the same to all shells and in all languages.
fn escaped(sign: char, f: &mut Formatter<'_>) -> fmt::Result {
    match sign {
        '\'' | '\\' => write!(f, "\\{sign}"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        sign if steers(sign) => {
            sign.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\{byte:03o}"))
        }
        sign => f.write_char(sign),
    }
}

/// Whether it means nothing to any shell.
fn is_plain(sign: char) -> bool {
    sign.is_alphanumeric() || "-_./:=@,+%~".contains(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_keys_are_words_as_they_are() {
        for key in ["alice", "header:x-api-key=a%20b,client_address=192.0.2.1", "ключ", "path=/api/~a+b@c"]
        {
            assert_eq!(Quoted(key).to_string(), key);
        }
        for (key, shown) in [
            ("", "''"),
            ("(one for all)", "'(one for all)'"),
            ("it's", r"'it'\''s'"),
            (r"\u{1b}", r"'\u{1b}'"),
            ("~a", "'~a'"),
            ("a\u{1b}[2J\r\n'\\", r"$'a\033[2J\r\n\'\\'"),
            ("\u{9b}\u{202e}", r"$'\302\233\342\200\256'"),
            ("a\0", r"(by the API only) $'a\000'"),
        ] {
            assert_eq!(Quoted(key).to_string(), shown);
        }
    }
}
