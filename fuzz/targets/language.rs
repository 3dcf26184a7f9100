//! Configurations that are right but for a few slips, as JSON and as a protobuf Struct.

#![no_main]

use arbitrary::Unstructured;
use hostile::{author::Author, encoded, holds, language};
use libfuzzer_sys::{Corpus, fuzz_target};

/// Decisions of one configuration: enough for several policies, and few enough for many configurations.
const MOST_BYTES: usize = 640;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let mut bytes = Unstructured::new(&bytes[..bytes.len().min(MOST_BYTES)]);
    let verbose = bytes.ratio(1, 50).unwrap_or_default();
    let in_both_ways = bytes.ratio(1, 8).unwrap_or_default();
    let author = Author::new(&mut bytes).map(|author| if verbose { author.verbose() } else { author });
    let Ok(value) = author.and_then(|mut author| author.write(&language::CONFIGURATION)) else {
        return Corpus::Reject;
    };
    let outcome = holds::reading(value.to_string().as_bytes());
    holds::places(&outcome, &value);
    if let Some(as_struct) = encoded::configuration(&value).filter(|_| in_both_ways) {
        holds::alike(&outcome, &holds::reading(&as_struct));
    }
    // What is huge is tried, but not built on: that would soon be all that is.
    if verbose { Corpus::Reject } else { Corpus::Keep }
});
