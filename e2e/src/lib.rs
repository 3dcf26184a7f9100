//! Tests on real Envoys, a real Redis and real failures; run by `cargo xtask test`.
