//! A sidecar as a child process.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Endpoint, Error, Process, Result, RunDir, free_port,
    http::{self, Answer},
    wait,
};

const START_BOUND: Duration = Duration::from_secs(20);
const STARTS: u32 = 3;

/// What a start waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// `/readyz`: it can decide takes.
    Readyz,
    /// `/healthz`: it is up, though its Redis may not be.
    Healthz,
}

/// How a [`Sidecar`] is to be started.
#[derive(Clone, Debug)]
pub struct SidecarBuilder {
    redis_url: Option<String>,
    unix: bool,
    args: Vec<String>,
    ready: Ready,
    port: Option<u16>,
}

/// A running sidecar, stopped when this is dropped.
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    program: PathBuf,
    builder: SidecarBuilder,
    addr: SocketAddr,
    admin: SocketAddr,
    socket: Option<PathBuf>,
    run: RunDir,
}

impl SidecarBuilder {
    /// The Redis to ask; it keeps its buckets in memory unless set.
    #[must_use]
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.redis_url = Some(url.into());
        self
    }

    /// Listens on a Unix socket of the run directory, too.
    #[must_use]
    pub fn unix_socket(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Further arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The port on 127.0.0.1; a free one unless set.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// What a start waits for; [`Ready::Readyz`] unless set.
    #[must_use]
    pub fn ready(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }

    /// Starts it and waits until it is ready. Should another program take its port in between, another is tried.
    pub fn start(&self, program: &Path, run: &RunDir) -> Result<Sidecar> {
        let name = run.name("sidecar");
        let mut start = 1;
        loop {
            let port = self.port.map_or_else(free_port, Ok)?;
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            let socket = self.unix.then(|| run.socket(&name));
            let process = self.spawn(program, &name, [addr, admin], socket.as_deref(), run)?;
            let (program, builder, run) = (program.to_owned(), self.clone(), run.clone());
            let sidecar = Sidecar { process, program, builder, addr, admin, socket, run };
            match sidecar.wait_until_ready(self.ready) {
                Err(error) if error.is_address_in_use() && self.port.is_none() && start < STARTS => {
                    start += 1
                }
                outcome => return outcome.map(|()| sidecar),
            }
        }
    }

    fn given(&self, flag: &str) -> bool {
        self.args.iter().any(|arg| arg.split('=').next() == Some(flag))
    }

    fn spawn(
        &self,
        program: &Path,
        name: &str,
        [addr, admin]: [SocketAddr; 2],
        socket: Option<&Path>,
        run: &RunDir,
    ) -> Result<Process> {
        let mut command = Command::new(program);
        // It would take its Redis and more from our environment.
        let ours = env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name == "REDIS_URL" || name.to_string_lossy().starts_with("SLUICE_")) {
            command.env_remove(name);
        }
        command.arg("--listen").arg(addr.to_string());
        if let Some(socket) = socket {
            command.arg("--listen").arg(format!("unix:{}", socket.display()));
        }
        let given = |flag| self.given(flag);
        // Two on one machine would want the same one.
        if !given("--admin-listen") {
            command.arg("--admin-listen").arg(admin.to_string());
        }
        // Nobody waits for what only a rolling restart needs.
        if !given("--shutdown-delay") {
            command.args(["--shutdown-delay", "0s"]);
        }
        if let Some(url) = &self.redis_url {
            command.arg("--redis-url").arg(url);
        }
        command.args(&self.args);
        Process::start(name, command, run.path())
    }
}

impl Sidecar {
    /// Prepares a sidecar that keeps its buckets in memory.
    #[must_use]
    pub fn builder() -> SidecarBuilder {
        SidecarBuilder { redis_url: None, unix: false, args: Vec::new(), ready: Ready::Readyz, port: None }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens for operators, unless its arguments say something else.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The Unix socket that it listens on, if it was built with one.
    #[must_use]
    pub fn unix_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Where Envoys should ask: the Unix socket if there is one.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.socket.clone().map_or(Endpoint::Tcp(self.addr), Endpoint::Unix)
    }

    /// The process, for its id, signals and logs.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it logged so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// A `GET` of one of its pages, such as `/readyz`: where operators ask, if Envoys do so by TLS.
    pub fn get(&self, path: &str) -> Result<Answer> {
        http::get(path).send(if self.builder.given("--tls-cert") { self.admin } else { self.addr })
    }

    /// Ends it if it still runs, starts it again with the same arguments on the same addresses, and waits until
    /// it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        let name = self.process.name().to_owned();
        let addrs = [self.addr, self.admin];
        self.process = self.builder.spawn(&self.program, &name, addrs, self.socket.as_deref(), &self.run)?;
        self.wait_until_ready(self.builder.ready)
    }

    /// Waits until it is ready in the sense of the argument.
    pub fn wait_until_ready(&self, ready: Ready) -> Result<()> {
        let path = match ready {
            Ready::Readyz => "/readyz",
            Ready::Healthz => "/healthz",
        };
        let mut last = "nothing yet".to_owned();
        let outcome = wait::try_eventually(START_BOUND, path, || {
            self.process.check_running()?;
            match self.get(path) {
                Ok(answer) if answer.status == 200 => return Ok(Some(())),
                Ok(answer) => last = answer.to_string(),
                Err(error) => last = error.to_string(),
            }
            Ok(None)
        });
        outcome.map_err(|error| match error {
            Error::Late { waited, .. } => {
                let name = self.process.name();
                Error::Late { what: format!("200 from {path} of {name}; the last was: {last}"), waited }
            }
            other => other,
        })
    }
}
