//! The head of an HTTP/1.1 request, and its body, as the servers of tests read them.

use std::io::{self, BufRead, Read as _, Write};

/// A request's method, target and headers.
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    /// In order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// Reads one; nothing where the connection has ended.
    pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = line(input)?;
        let mut words = first.split(' ').map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let mut headers = Vec::new();
        loop {
            let line = line(input)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Self { method, target, headers }))
    }

    /// The first header of this name, which is in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Reads the body, without the chunks' framing, and returns its length.
    pub(crate) fn copy_body(&self, input: &mut impl BufRead, to: &mut impl Write) -> io::Result<u64> {
        if self.get("transfer-encoding").is_some() {
            let mut total = 0;
            loop {
                let size = line(input)?;
                let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                total += io::copy(&mut input.take(size), to)?;
                line(input)?;
                if size == 0 {
                    return Ok(total);
                }
            }
        }
        let length = self.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        io::copy(&mut input.take(length), to)
    }
}

/// A line without its end, lossily; empty at the end of the input.
fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.read_until(b'\n', &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}
