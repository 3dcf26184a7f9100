//! What this process uses, as Linux tells it.

use std::fs;

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// What this process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// Seconds of processor time since it was started.
    pub cpu_s: f64,
    /// Bytes of memory that it has.
    pub resident_bytes: u64,
    /// Bytes of addresses that it has.
    pub virtual_bytes: u64,
    /// Files that it has open.
    pub open_files: u64,
    /// Files that it may have open.
    pub max_files: u64,
}

/// What it uses now; nothing where there is no `/proc` to tell.
#[must_use]
pub fn read() -> Option<Process> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_ascii_whitespace().map(str::parse::<u64>);
    let (all, resident) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let page_bytes = page_size() as u64;
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Some(Process {
        cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        resident_bytes: resident.saturating_mul(page_bytes),
        virtual_bytes: all.saturating_mul(page_bytes),
        // That of the directory is read with them.
        open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
        max_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_uses_something() {
        let process = read().expect("there is /proc");
        assert!(process.cpu_s > 0.0 && process.cpu_s < 1e6, "{process:?}");
        assert!(
            process.resident_bytes > 1 << 16 && process.resident_bytes < process.virtual_bytes,
            "{process:?}"
        );
        assert!(process.open_files >= 3 && process.open_files <= process.max_files, "{process:?}");
    }
}
