//! An Envoy as a child process.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Config, Error, Process, Result, RunDir, free_port,
    http::{self, Answer},
    ports, wait,
};

/// Envoy compiles the filter for each worker before it is ready, on machines that may have two slow cores.
const START_BOUND: Duration = Duration::from_secs(60);
const STARTS: u32 = 3;

/// How an [`Envoy`] is to be started.
#[derive(Clone, Debug)]
pub struct EnvoyBuilder {
    config: Config,
    concurrency: u32,
    port: Option<u16>,
    args: Vec<String>,
}

/// A running Envoy, stopped when this is dropped.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    config: Config,
    addr: SocketAddr,
    admin: SocketAddr,
    run: RunDir,
}

/// What `envoy --mode validate` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// The exit code: 0 where the configuration is right.
    pub code: Option<i32>,
    /// Everything it printed.
    pub output: String,
}

impl EnvoyBuilder {
    /// Worker threads; 1 unless set.
    #[must_use]
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// The port of the first listener, on 127.0.0.1; a free one unless set.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Further arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Starts it and waits until it is live and its listener accepts. Should another program take a port in
    /// between, other ports are tried.
    pub fn start(&self, envoy: &Path, run: &RunDir) -> Result<Envoy> {
        if let Some(port) = self.port.filter(|port| !ports::is_free(*port)) {
            let mend = format!("something listens on port {port} already: end it, or choose another port");
            return Err(Error::Step { step: format!("starting an Envoy on port {port}"), detail: mend });
        }
        let mut start = 1;
        loop {
            match self.start_once(envoy, run) {
                Err(error) if error.is_address_in_use() && start < STARTS => start += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_once(&self, program: &Path, run: &RunDir) -> Result<Envoy> {
        let port = self.port.map_or_else(free_port, Ok)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut config = self.config.clone();
        config.listen(addr)?.admin(admin);
        let name = run.name("envoy");
        let file = run.write(&format!("{name}.yaml"), &config.text())?;

        let mut command = base_command(program, &file);
        // The access log is written for tests to read, so it is flushed soon and not every 10 s.
        command.args(["--concurrency", &self.concurrency.to_string(), "--file-flush-interval-msec", "20"]);
        command.args(&self.args);
        let process = Process::start(&name, command, run.path())?;
        let envoy = Envoy { process, config, addr, admin, run: run.clone() };
        envoy.wait_until_ready()?;
        Ok(envoy)
    }
}

impl Envoy {
    /// Prepares an Envoy with this configuration; its first listener and admin addresses will be replaced.
    #[must_use]
    pub fn builder(config: Config) -> EnvoyBuilder {
        EnvoyBuilder { config, concurrency: 1, port: None, args: Vec::new() }
    }

    /// Runs `envoy --mode validate`, which loads the filter and configures it too.
    pub fn validate(config: &Config, envoy: &Path, run: &RunDir) -> Result<Validation> {
        let file = run.write(&format!("{}.yaml", run.name("config")), &config.text())?;
        Self::validate_file(&file, envoy, run)
    }

    /// The same of a file as it is, so that Envoy reads its YAML as it reads a user's.
    pub fn validate_file(file: &Path, envoy: &Path, run: &RunDir) -> Result<Validation> {
        let name = run.name("validate");
        let mut command = base_command(envoy, file);
        command.args(["--mode", "validate"]);
        let process = Process::start(&name, command, run.path())?;
        let status = wait::eventually(START_BOUND, "envoy --mode validate", || process.exit_status())?;
        Ok(Validation { code: status.code(), output: process.stdout() + &process.stderr() })
    }

    /// What `envoy --version` says, such as `1.40.0`.
    pub fn version(envoy: &Path) -> Result<String> {
        let output = Command::new(envoy).arg("--version").output();
        let output = output.map_err(Error::io(format!("run {}", envoy.display())))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`, where the first word is its whole path.
        let build = text.split_once("version: ").and_then(|(_, build)| build.split('/').nth(1));
        let number = build.map(str::to_owned);
        number.ok_or_else(|| Error::Answer { from: envoy.display().to_string(), detail: text })
    }

    /// The first listener's address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The first listener's URL, such as `http://127.0.0.1:10000`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The admin interface's address.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The process, for its id, signals and end.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The file it was started with.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.run.path().join(format!("{}.yaml", self.process.name()))
    }

    /// Asks the admin interface, such as for `/stats?filter=wasm`.
    pub fn admin(&self, path: &str) -> Result<Answer> {
        http::get(path).send(self.admin)
    }

    /// One counter or gauge by its full name; 0 while Envoy does not know it.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let text = self.admin("/stats")?.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
    }

    /// All counters and gauges whose names begin with `prefix`.
    pub fn stats(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.admin("/stats")?.text();
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        let pairs = lines.filter_map(|line| line.rsplit_once(": "));
        Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect())
    }

    /// What it wrote to its access log so far; a line comes up to 20 ms after its answer.
    #[must_use]
    pub fn access_log(&self) -> String {
        self.process.stdout()
    }

    /// What it logged so far, the filter's lines included.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let what = format!("{} to be live (its log: {})", self.process.name(), self.run.path().display());
        wait::try_eventually(START_BOUND, &what, || {
            self.process.check_running()?;
            // Refusals are what waiting is for; a child that ended is told by the line above.
            let live = self.admin("/ready").is_ok_and(|answer| answer.text().trim() == "LIVE");
            Ok((live && TcpStream::connect(self.addr).is_ok()).then_some(()))
        })
    }
}

fn base_command(envoy: &Path, config: &Path) -> Command {
    let mut command = Command::new(envoy);
    command.arg("-c").arg(config).args(["--disable-hot-restart", "--log-level", "warning"]);
    command.args(["--component-log-level", "wasm:info"]);
    command
}
