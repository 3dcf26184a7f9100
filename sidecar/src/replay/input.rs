//! Logs as lines: from files and the standard input, unpacked where they are packed, with a progress bar for who watches.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};

use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

/// The longest line, without its end: more than Envoy's headers may have together.
pub const MAX_LINE_BYTES: usize = 1 << 20;

const BUFFER_BYTES: usize = 256 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How much of the logs was read, for a person at a terminal; nothing is shown where there is none.
pub fn progress(logs: &[String]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sizes = logs.iter().map(|log| std::fs::metadata(log).map(|about| about.len()));
    // Of the standard input the length is not known.
    match sizes.sum::<io::Result<u64>>() {
        Ok(bytes) => ProgressBar::new(bytes)
            .with_style(style("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")),
        Err(_) => ProgressBar::no_length().with_style(style("{spinner} {bytes} {bytes_per_sec}")),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Opens a log; `-` is the standard input.
///
/// # Errors
///
/// Where it cannot be opened, or its beginning not be read.
pub fn open(log: &str, progress: &ProgressBar) -> io::Result<Lines<Box<dyn BufRead>>> {
    let raw: Box<dyn Read> = if log == "-" { Box::new(io::stdin()) } else { Box::new(File::open(log)?) };
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, progress.wrap_read(raw));
    let is_packed = raw.fill_buf()?.starts_with(&GZIP);
    let text: Box<dyn BufRead> = if is_packed {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw)))
    } else {
        Box::new(raw)
    };
    Ok(Lines { text, line: Vec::new() })
}

/// Lines, each of which replaces the one before.
pub struct Lines<R> {
    text: R,
    line: Vec<u8>,
}

/// One line, without its end.
pub enum Next<'a> {
    /// As it is.
    Line(&'a [u8]),
    /// It was longer than [`MAX_LINE_BYTES`], and is left out.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    /// The next line; `None` at the end.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Next<'_>>> {
        self.line.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        if self.text.by_ref().take(most).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') && self.line.len() > MAX_LINE_BYTES {
            self.skip_line()?;
            return Ok(Some(Next::TooLong));
        }
        Ok(Some(Next::Line(self.line.trim_ascii())))
    }

    /// Leaves out what is left of a line.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let (bytes, ends) = match self.text.fill_buf()? {
                [] => return Ok(()),
                buffer => match buffer.iter().position(|byte| *byte == b'\n') {
                    Some(at) => (at + 1, true),
                    None => (buffer.len(), false),
                },
            };
            self.text.consume(bytes);
            if ends {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, MAX_LINE_BYTES, Next};

    #[test]
    fn a_line_without_an_end_takes_no_memory_without_end() {
        let long = "x".repeat(MAX_LINE_BYTES * 3);
        let text = format!("first\n{long}\nthird\r\n\nlast");
        let mut lines = Lines { text: text.as_bytes(), line: Vec::new() };
        let mut found = Vec::new();
        while let Some(next) = lines.next().expect("memory can be read") {
            found.push(match next {
                Next::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Next::TooLong => "too long".to_owned(),
            });
        }
        assert_eq!(found, ["first", "too long", "third", "", "last"]);
        assert!(lines.line.capacity() <= MAX_LINE_BYTES * 2 + 2);
    }
}
