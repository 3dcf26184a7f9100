//! A child process: its logs in files, its signals, and its certain end.

use std::{
    fs::{self, File},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, mpsc},
    thread,
    time::Duration,
};

use crate::{Error, Result, run, wait};

/// After a SIGTERM, how long a child may take before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// A child process, stopped when this is dropped. Its output goes to files.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a child with its output in `<dir>/<name>.out` and `<dir>/<name>.err`, appended to what is there.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let (stdout, stderr) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(append_to(&stdout)?).stderr(append_to(&stderr)?);
        let child = spawn(command).map_err(Error::io(format!("start {program} as {name}")))?;
        Ok(Self { name: name.to_owned(), pid: child.id(), child: Mutex::new(child), stdout, stderr })
    }

    /// The name that messages give it, and its log files bear.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, also after its end.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        run::read(&self.stdout)
    }

    /// Everything it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        run::read(&self.stderr)
    }

    /// How it ended, or nothing while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// An error with its log's last lines once it has ended.
    pub fn check_running(&self) -> Result<()> {
        let Some(status) = self.exit_status() else { return Ok(()) };
        let mut log = run::tail(&self.stderr, 30);
        if log.trim().is_empty() {
            log = run::tail(&self.stdout, 30);
        }
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => format!("with code {code}"),
            (_, Some(signal)) => format!("by signal {signal}"),
            _ => "somehow".to_owned(),
        };
        Err(Error::Exited { child: format!("{} (process {}) ended {end}", self.name, self.pid), log })
    }

    /// Asks it to end (SIGTERM) and waits; after 5 s it is killed.
    pub fn stop(&self) {
        self.signal(libc::SIGTERM);
        // A stopped process would not see the SIGTERM.
        self.signal(libc::SIGCONT);
        if wait::eventually(GRACE, "its end", || self.exit_status()).is_err() {
            self.kill();
        }
    }

    /// Ends it at once (SIGKILL), and returns when it has ended.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
        // It fails only where the child was already waited for.
        let _ = self.child().wait();
    }

    /// Stops it where it stands (SIGSTOP): its sockets stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on (SIGCONT) after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Sends a signal, such as `15` for SIGTERM, if the process still runs.
    pub fn signal(&self, signal: i32) {
        let mut child = self.child();
        // Until it is waited for, and that needs this lock, the id belongs to nobody else.
        if let (Ok(None), Ok(pid)) = (child.try_wait(), libc::pid_t::try_from(self.pid)) {
            // SAFETY: kill(2) takes two integers and touches no memory of ours.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Processor time spent so far, user and system, in microseconds.
    pub fn cpu_us(&self) -> Result<u64> {
        cpu_us(self.pid)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Processor time that a process has spent, user and system, in microseconds; the kernel counts in steps of
/// 10 ms.
pub fn cpu_us(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    let ticks = ticks(&text).ok_or_else(|| Error::Answer { from: path, detail: text.clone() })?;
    // SAFETY: sysconf(3) takes an integer and touches no memory of ours.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    Ok(ticks * 1_000_000 / per_second)
}

/// Memory that a process holds, in bytes.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::Answer { from: path, detail: text.clone() })
}

/// The sum of `utime` and `stime`, fields 14 and 15. The name in field 2 may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = after_name.next()?.parse().ok()?;
    let system: u64 = after_name.next()?.parse().ok()?;
    Some(user + system)
}

fn append_to(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.map_err(Error::io(format!("open {}", path.display())))
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns from one thread that lives as long as this process. The kernel ends a child when the *thread* that
/// spawned it ends, and tests that share a fleet outlive each other.
fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();

    bind_to_our_life(&mut command);
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Whoever ordered is waiting, so the answer is taken.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let gone = || io::Error::other("the thread that starts children is gone");
    let (answer, outcome) = mpsc::channel();
    let orders = spawner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    orders.send((command, answer)).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

/// The child gets a process group of its own, so that Ctrl-C reaches only us and we stop the children in order;
/// and on Linux it is killed when we die without having done so.
fn bind_to_our_life(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let us = std::process::id();
        let follow = move || {
            // SAFETY: both are plain system calls, allowed between fork and exec.
            let (outcome, parent) =
                unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
            if outcome != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have died before the child asked to hear of it.
            if u32::try_from(parent) != Ok(us) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        // SAFETY: the closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(follow) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunDir;

    #[test]
    fn a_child_outlives_the_thread_that_started_it_and_ends_with_its_value() {
        let dir = RunDir::new().unwrap();
        let path = dir.path().to_owned();
        let sleeper = thread::spawn(move || {
            let mut command = Command::new("sleep");
            command.arg("1000");
            Process::start("sleeper", command, &path).unwrap()
        });
        let sleeper = sleeper.join().unwrap();
        sleeper.check_running().unwrap();
        sleeper.freeze();
        sleeper.cpu_us().unwrap();
        assert!(rss_bytes(sleeper.pid()).unwrap() > 0);
        let pid = sleeper.pid();
        drop(sleeper);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn an_early_end_is_told_with_its_log() {
        let dir = RunDir::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 3"]);
        let child = Process::start("failing", command, dir.path()).unwrap();
        wait::eventually(GRACE, "the end", || child.exit_status()).unwrap();
        let error = child.check_running().unwrap_err().to_string();
        assert!(error.contains("code 3") && error.contains("the reason"), "{error}");
    }

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
