//! The directory of one run: configurations, logs and sockets, kept when the run failed.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{Error, Result, tools};

/// A Unix socket's path may have 107 bytes, whatever a file system allows.
const LONGEST_SOCKET_PATH: usize = 100;

/// Long enough to look into a failure, and far longer than any run.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

static RUNS: AtomicU32 = AtomicU32::new(0);

/// A directory that everything of one run writes to. Clones share it; when the last is dropped it is removed,
/// unless the thread is panicking or [`keep`](Self::keep) was called: then its name is printed instead.
#[derive(Clone, Debug)]
pub struct RunDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    files: AtomicU32,
    keep: AtomicBool,
}

impl RunDir {
    /// Makes `target/sluice/run-<pid>-<n>`.
    pub fn new() -> Result<Self> {
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            forget_old_runs();
        }
        let path = tools::state_dir().join(format!("run-{}-{number}", std::process::id()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove the old {}", path.display()))(error));
            }
            _ => {}
        }
        fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        Ok(Self(Arc::new(Inner { path, files: AtomicU32::new(0), keep: AtomicBool::new(false) })))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Keeps the directory when the run ends.
    pub fn keep(&self) {
        self.0.keep.store(true, Ordering::Relaxed);
    }

    /// A name that nothing else in the directory has, such as `envoy-3`.
    pub(crate) fn name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.0.files.fetch_add(1, Ordering::Relaxed))
    }

    /// The path of a Unix socket in the directory, or in the system's temporary one where that would be too long.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        let path = self.path().join(format!("{name}.sock"));
        if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
            return path;
        }
        let run = self.path().file_name().unwrap_or_default().to_string_lossy();
        env::temp_dir().join(format!("sluice-{run}-{name}.sock"))
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if thread::panicking() || self.keep.load(Ordering::Relaxed) {
            eprintln!("the logs and configurations of this run are kept in {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// Removes what runs that failed, or were killed, have left here more than a day ago.
fn forget_old_runs() {
    let entries = fs::read_dir(tools::state_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("run-")) {
        let changed = entry.metadata().and_then(|data| data.modified()).ok();
        if changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > KEPT_FOR) {
            // Another process may be doing the same; whoever comes later finds nothing.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The last lines of a log, or what kept it from being read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = read(path);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A log as far as it is written; a file that is not there yet is empty.
pub(crate) fn read(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => format!("(could not read {}: {error})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_removed_on_success_and_kept_when_asked() {
        let (gone, kept) = (RunDir::new().unwrap(), RunDir::new().unwrap());
        let (gone_path, kept_path) = (gone.path().to_owned(), kept.path().to_owned());
        assert_ne!(gone_path, kept_path);
        let log = gone.write("a.log", "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "two\nthree");
        kept.keep();
        drop((gone, kept));
        assert!(!gone_path.exists() && kept_path.exists());
        fs::remove_dir_all(kept_path).unwrap();
    }
}
