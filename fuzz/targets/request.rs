//! Any request, under configurations that ask for everything.

#![no_main]

use arbitrary::Unstructured;
use hostile::{configurations, holds, sent::Sent};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(sent) = Unstructured::new(bytes).arbitrary::<Sent>() else { return Corpus::Reject };
    configurations::with_all(|all| {
        for policies in all {
            let _asks = holds::asking(policies, &sent);
        }
    });
    Corpus::Keep
});
