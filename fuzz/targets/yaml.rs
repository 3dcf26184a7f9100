//! Any text as a file that `sluice check` is given.

#![no_main]

use hostile::holds;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for name in ["envoy.yaml", "envoy.json"] {
        holds::checking(name, &text);
    }
});
