//! The memory of every process over time, and whether it grows.

use std::time::Duration;

use fleet::{Fleet, rss_bytes};

use crate::Failure;

/// In the second half, when all pools are filled and all code is compiled, no process may grow by more: a tenth of what
/// it had, and what an allocator may take at once.
const GROWTH_BYTES: u64 = 16 << 20;
const GROWTH_PERCENT: u64 = 10;

const MARKS: [&str; 5] = ["start", "¼", "½", "¾", "end"];

/// What each process held, and when.
pub struct Memory {
    length: Duration,
    names: Vec<String>,
    looks: Vec<(Duration, Vec<u64>)>,
}

impl Memory {
    /// For a run that takes so long.
    pub fn new(length: Duration) -> Self {
        Self { length, names: Vec::new(), looks: Vec::new() }
    }

    /// Notes what each process holds.
    pub fn look(&mut self, at: Duration, fleet: &Fleet) -> Result<(), Failure> {
        let envoys = fleet.envoys().iter().map(|envoy| envoy.process());
        let sidecars = fleet.sidecars().iter().map(|sidecar| sidecar.process());
        let processes: Vec<_> = envoys.chain(sidecars).chain([fleet.redis().process()]).collect();
        self.names = processes.iter().map(|process| process.name().to_owned()).collect();
        let held = processes.iter().map(|process| rss_bytes(process.pid())).collect::<Result<_, _>>()?;
        self.looks.push((at, held));
        Ok(())
    }

    /// Prints a table; what must not be comes back.
    pub fn tell(&self) -> Vec<String> {
        println!("\nmemory, MiB   {}", MARKS.map(|mark| format!("{mark:>8}")).join(""));
        let mut wrong = Vec::new();
        for (place, name) in self.names.iter().enumerate() {
            let held: Vec<u64> =
                (0..5).filter_map(|quarter| self.at(quarter)).map(|held| held[place]).collect();
            let mib = |bytes: &u64| format!("{:>8.1}", *bytes as f64 / f64::from(1 << 20));
            println!("{name:<13} {}", held.iter().map(mib).collect::<String>());
            if let [_, _, half, _, end] = held[..]
                && end > most(half)
            {
                wrong.push(format!("{name} grew from {half} to {end} bytes in the second half"));
            }
        }
        wrong
    }

    /// The look that is nearest to a quarter of the time.
    fn at(&self, quarter: u32) -> Option<&[u64]> {
        let mark = self.length * quarter / 4;
        let nearest = self.looks.iter().min_by_key(|(at, _)| at.abs_diff(mark));
        nearest.map(|(_, held)| held.as_slice())
    }
}

fn most(half: u64) -> u64 {
    half + GROWTH_BYTES.max(half * GROWTH_PERCENT / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_in_the_second_half_is_told() {
        let mut memory = Memory::new(Duration::from_secs(100));
        memory.names = vec!["steady".into(), "growing".into()];
        for quarter in 0..5 {
            let held = vec![200 << 20, (100 + quarter * 20) << 20];
            memory.looks.push((Duration::from_secs(quarter * 25), held));
        }
        let wrong = memory.tell();
        assert!(wrong.len() == 1 && wrong[0].starts_with("growing grew"), "{wrong:?}");
    }
}
