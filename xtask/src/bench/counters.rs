//! What Envoy and the filter count, which an answer's status does not tell.

use fleet::Envoy;

/// How often each came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Requests that Sluice could not decide, whatever its `on_error` made of them.
    pub failed: u64,
    /// Answers of 500 or above.
    pub server_errors: u64,
    /// Requests that a lease paid for.
    pub lease_hits: u64,
}

impl Counters {
    /// As they stand, since Envoy started; 0 for those of a filter that is not there.
    pub fn of(envoy: &Envoy) -> fleet::Result<Self> {
        let stats = envoy.stats("")?;
        let of = |name: &str| stats.get(name).copied().unwrap_or_default();
        Ok(Self {
            failed: ["failed_allowed", "failed_denied", "local_allowed", "local_denied"]
                .iter()
                .map(|name| of(&format!("wasmcustom.sluice.{name}")))
                .sum(),
            server_errors: of("http.ingress.downstream_rq_5xx"),
            lease_hits: of("wasmcustom.sluice.lease_hits"),
        })
    }

    /// What came since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            failed: self.failed.saturating_sub(earlier.failed),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            lease_hits: self.lease_hits.saturating_sub(earlier.lease_hits),
        }
    }
}
