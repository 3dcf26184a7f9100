//! Configurations that are right but for a few slips, as JSON and as a protobuf Struct.

#![no_main]

use arbitrary::Unstructured;
use hostile::{author::Author, encoded, holds, language};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let mut bytes = Unstructured::new(bytes);
    let Ok(value) = Author::new(&mut bytes).and_then(|mut author| author.write(&language::CONFIGURATION))
    else {
        return Corpus::Reject;
    };
    let outcome = holds::reading(value.to_string().as_bytes());
    holds::places(&outcome, &value);
    if let Some(as_struct) = encoded::configuration(&value) {
        holds::alike(&outcome, &holds::reading(&as_struct));
    }
    Corpus::Keep
});
