//! Any bytes in the place of a configuration.

#![no_main]

use hostile::holds;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _outcome = holds::reading(bytes);
});
