//! What can happen to a fleet, and how it is mended.

use std::{thread, time::Duration};

use fleet::{Flow, Watched};

use super::{mix::Mix, plan::Step};
use crate::Failure;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Killed, and started again at the end.
    KillSidecar(usize),
    /// SIGSTOP, and SIGCONT at the end.
    StopSidecar(usize),
    StopAllSidecars,
    /// SIGTERM, and at once started again.
    RestartSidecar(usize),
    /// Killed, and started again at the end, empty.
    KillRedis,
    StopRedis,
    /// `FLUSHALL`.
    Flush,
    FlushScripts,
    /// No memory left.
    FillRedis,
    /// Another configuration for all Envoys, while the old one drains.
    Reload,
    WireToSidecar(usize, Link),
    WireToRedis(usize, Link),
    WiresToRedis(Link),
}

/// What becomes of the bytes on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Late(Duration),
    Narrow,
    Silent,
    Lost,
    Reset,
    BrokenOff,
}

impl Doing {
    /// Whether a store forgot all buckets.
    pub fn forgets(self) -> bool {
        matches!(self, Self::KillRedis | Self::Flush)
    }
}

impl Link {
    fn flow(self) -> Flow {
        match self {
            Self::Late(back) => Flow::Late { there: Duration::ZERO, back },
            Self::Narrow => Flow::Narrow { bytes_per_s: 20_000 },
            Self::Silent => Flow::Silent,
            Self::Lost => Flow::Lost,
            Self::Reset => Flow::Reset,
            Self::BrokenOff => Flow::BrokenOff { after_bytes: 700 },
        }
    }
}

/// Has faults happen.
pub struct Faults<'a> {
    mix: &'a Mix,
    reloads: u64,
}

impl<'a> Faults<'a> {
    pub fn new(mix: &'a Mix) -> Self {
        Self { mix, reloads: 0 }
    }

    /// From the beginning to the end of one.
    pub fn happen(&mut self, step: Step, watched: &mut Watched) -> Result<(), Failure> {
        // The length of a fault is a part of it: nothing is waited for.
        let lasting = || thread::sleep(step.length);
        let fleet = watched.fleet();
        match step.doing {
            Doing::KillSidecar(index) => {
                fleet.sidecar(index).process().kill();
                lasting();
                watched.fleet_mut().sidecars_mut()[index].restart()?;
            }
            Doing::StopSidecar(index) => {
                fleet.sidecar(index).process().freeze();
                lasting();
                fleet.sidecar(index).process().thaw();
            }
            Doing::StopAllSidecars => {
                fleet.sidecars().iter().for_each(|sidecar| sidecar.process().freeze());
                lasting();
                fleet.sidecars().iter().for_each(|sidecar| sidecar.process().thaw());
            }
            Doing::RestartSidecar(index) => watched.fleet_mut().sidecars_mut()[index].restart()?,
            Doing::KillRedis => {
                fleet.redis().process().kill();
                lasting();
                watched.fleet_mut().redis_mut().restart()?;
            }
            Doing::StopRedis => {
                fleet.redis().process().freeze();
                lasting();
                fleet.redis().process().thaw();
            }
            Doing::Flush => drop(fleet.redis().command(&["FLUSHALL"])?),
            Doing::FlushScripts => drop(fleet.redis().command(&["SCRIPT", "FLUSH"])?),
            Doing::FillRedis => {
                fleet.redis().command(&["CONFIG", "SET", "maxmemory", "1"])?;
                lasting();
                fleet.redis().command(&["CONFIG", "SET", "maxmemory", "0"])?;
            }
            Doing::Reload => {
                self.reloads += 1;
                watched.update(&self.mix.configuration(self.reloads));
                watched.await_updates(self.reloads + 1);
            }
            Doing::WireToSidecar(index, link) => {
                fleet.wire_to_sidecar(index).set(link.flow());
                lasting();
                fleet.wire_to_sidecar(index).set(Flow::Passed);
            }
            Doing::WireToRedis(index, link) => {
                fleet.wire_to_redis(index).set(link.flow());
                lasting();
                fleet.wire_to_redis(index).set(Flow::Passed);
            }
            Doing::WiresToRedis(link) => {
                let set =
                    |flow| (0..fleet.sidecars().len()).for_each(|index| fleet.wire_to_redis(index).set(flow));
                set(link.flow());
                lasting();
                set(Flow::Passed);
            }
        }
        Ok(())
    }
}
