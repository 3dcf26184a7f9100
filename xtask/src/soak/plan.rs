//! Which fault happens when, and for how long: made from a seed and nothing else.

use std::{fmt, time::Duration};

use fastrand::Rng;

use super::faults::{Doing, Link};

/// A fault, how long it lasts, and how calm it is before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub calm: Duration,
    pub doing: Doing,
    pub length: Duration,
}

/// Step after step, without end.
pub struct Plan {
    rng: Rng,
    sidecars: usize,
}

impl Plan {
    pub fn new(seed: u64, sidecars: usize) -> Self {
        Self { rng: Rng::with_seed(seed), sidecars }
    }

    pub fn next_step(&mut self) -> Step {
        let calm = self.between(500, 4_000);
        let length = self.between(50, 2_500);
        let sidecar = self.rng.usize(..self.sidecars);
        let late = self.between(20, 600);
        let links = [Link::Late(late), Link::Silent, Link::Lost, Link::Reset, Link::BrokenOff, Link::Narrow];
        let link = links[self.rng.usize(..links.len())];
        let doing = match self.rng.u8(..14) {
            0 => Doing::KillSidecar(sidecar),
            1 => Doing::StopSidecar(sidecar),
            2 => Doing::StopAllSidecars,
            3 => Doing::RestartSidecar(sidecar),
            4 => Doing::KillRedis,
            5 => Doing::StopRedis,
            6 => Doing::Flush,
            7 => Doing::FlushScripts,
            8 => Doing::FillRedis,
            9 => Doing::Reload,
            10 | 11 => Doing::WireToSidecar(sidecar, link),
            12 => Doing::WireToRedis(sidecar, link),
            _ => Doing::WiresToRedis(link),
        };
        Step { calm, doing, length }
    }

    fn between(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(self.rng.u64(least_ms..=most_ms))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {} ms", self.doing, self.length.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_makes_one_plan_and_the_plan_has_every_fault() {
        let steps = |seed| {
            let mut plan = Plan::new(seed, 2);
            (0..300).map(|_| plan.next_step()).collect::<Vec<_>>()
        };
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
        let kinds: BTreeSet<String> = steps(7).iter().map(|step| format!("{:?}", step.doing)).collect();
        let kinds: BTreeSet<&str> = kinds.iter().filter_map(|kind| kind.split('(').next()).collect();
        assert_eq!(kinds.len(), 13, "{kinds:?}");
    }
}
