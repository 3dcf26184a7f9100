//! Faults on purpose, on real Envoys under steady load. During each no request waits beyond the bound, what is
//! admitted keeps the promise in every window, and afterwards all is well by itself.
//!
//! Each test has a row in docs/reliability.md; `cargo xtask reliability` measures the figures and writes them.

mod clients;
mod clock;
mod network;
mod promotion;
mod proxy;
mod redis;
mod sidecar;
mod survive;

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/reliability.md");
const MODULES: [&str; 7] = [
    include_str!("clients.rs"),
    include_str!("clock.rs"),
    include_str!("network.rs"),
    include_str!("promotion.rs"),
    include_str!("proxy.rs"),
    include_str!("redis.rs"),
    include_str!("sidecar.rs"),
];

#[test]
fn every_fault_has_its_row_and_every_row_its_fault() {
    let tests = MODULES.iter().flat_map(|text| text.split("#[test]\nfn ").skip(1));
    let tests: BTreeSet<&str> = tests.filter_map(|after| after.split('(').next()).collect();
    let table =
        PAGE.split("<!-- made: faults -->").nth(1).and_then(|after| after.split("<!-- end -->").next());
    let rows = table.expect("the table of faults").lines();
    let rows: BTreeSet<&str> = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert!(!tests.is_empty());
    assert_eq!(rows, tests, "`cargo xtask reliability` writes the table");
}
