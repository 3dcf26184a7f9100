//! A whole fleet: Envoys, sidecars, a store and an upstream, wired as a user would.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde_json::Value;

use crate::{
    Config, EchoUpstream, Endpoint, Envoy, Error, Gate, Programs, Ready, Redis, Result, RunDir, Sidecar, Wire,
};

/// Where sidecars keep the buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In the memory of each sidecar, so that only those who ask the same one share limits.
    Memory,
    /// In a Redis that the fleet starts.
    Redis,
    /// In a Redis that is there already, at this URL.
    External(String),
}

/// How Envoys speak to sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 over loopback.
    Http1,
    /// Cleartext HTTP/2 over loopback.
    Http2,
    /// HTTP/1.1 over a Unix socket.
    Unix,
}

type Adjust = Arc<dyn Fn(&mut Config) -> Result<()> + Send + Sync>;

/// How a [`Fleet`] is to be started. Unless told otherwise: the shipped `envoy/envoy.yaml` in one Envoy with one
/// worker, one sidecar with its buckets in memory, the echo upstream, and free ports for all.
#[derive(Clone)]
pub struct FleetBuilder {
    programs: Programs,
    config: Option<Config>,
    filter: Option<Value>,
    policies: Option<Value>,
    adjust: Vec<Adjust>,
    envoys: usize,
    envoy_args: Vec<String>,
    concurrency: u32,
    first_port: Option<u16>,
    sidecars: usize,
    sidecar_args: Vec<String>,
    ready: Ready,
    gated: bool,
    wired: bool,
    store: Store,
    redis_args: Vec<String>,
    transport: Transport,
    upstream: Option<SocketAddr>,
    run: Option<RunDir>,
}

/// A running fleet. Its parts are stopped when it is dropped, Envoys first.
#[derive(Debug)]
pub struct Fleet {
    envoys: Vec<Envoy>,
    gate: Option<Gate>,
    /// Before each sidecar, and between each sidecar and Redis.
    wires: Vec<[Wire; 2]>,
    sidecars: Vec<Sidecar>,
    redis: Option<Redis>,
    upstream: Option<EchoUpstream>,
    run: RunDir,
}

impl FleetBuilder {
    /// The programs to run; those that the environment names unless set.
    #[must_use]
    pub fn programs(mut self, programs: &Programs) -> Self {
        self.programs = programs.clone();
        self
    }

    /// Another configuration of the Envoys than the shipped one. Its clusters `sluice` and `upstream`, and its
    /// Wasm filter, are pointed at the fleet where it has them.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// The filter's whole configuration: what stands under `configuration.value`.
    #[must_use]
    pub fn filter_configuration(mut self, value: Value) -> Self {
        self.filter = Some(value);
        self
    }

    /// The policies, a list; the rest of the filter's configuration stays.
    #[must_use]
    pub fn policies(mut self, policies: Value) -> Self {
        self.policies = Some(policies);
        self
    }

    /// A last change to the configuration of every Envoy, after all others but its own addresses.
    #[must_use]
    pub fn adjust(mut self, change: impl Fn(&mut Config) -> Result<()> + Send + Sync + 'static) -> Self {
        self.adjust.push(Arc::new(change));
        self
    }

    /// How many Envoys.
    #[must_use]
    pub fn envoys(mut self, count: usize) -> Self {
        self.envoys = count;
        self
    }

    /// Further arguments for each Envoy.
    #[must_use]
    pub fn envoy_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.envoy_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Worker threads of each Envoy.
    #[must_use]
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// The first Envoy's port; the others follow. Free ones unless set.
    #[must_use]
    pub fn first_port(mut self, port: u16) -> Self {
        self.first_port = Some(port);
        self
    }

    /// How many sidecars; every Envoy knows all. None leaves the cluster without endpoints.
    #[must_use]
    pub fn sidecars(mut self, count: usize) -> Self {
        self.sidecars = count;
        self
    }

    /// Further arguments for each sidecar.
    #[must_use]
    pub fn sidecar_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.sidecar_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// What the start of a sidecar waits for.
    #[must_use]
    pub fn sidecar_ready(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }

    /// Puts a [`Gate`] before the first sidecar, in its place for the Envoys. It needs a sidecar, on TCP.
    #[must_use]
    pub fn gated(mut self) -> Self {
        self.gated = true;
        self
    }

    /// Puts a [`Wire`] before each sidecar, and one between each sidecar and the Redis that the fleet starts. It
    /// needs TCP.
    #[must_use]
    pub fn wired(mut self) -> Self {
        self.wired = true;
        self
    }

    /// Where the buckets are.
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// Further arguments for the Redis that the fleet starts.
    #[must_use]
    pub fn redis_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.redis_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// How Envoys speak to sidecars.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// An upstream that is there already, instead of the echo upstream.
    #[must_use]
    pub fn upstream(mut self, addr: SocketAddr) -> Self {
        self.upstream = Some(addr);
        self
    }

    /// A run directory that is there already, instead of one of its own.
    #[must_use]
    pub fn run_dir(mut self, run: &RunDir) -> Self {
        self.run = Some(run.clone());
        self
    }

    /// Starts everything and waits until it is ready; on failure what was started is stopped, and the run
    /// directory kept.
    pub fn start(&self) -> Result<Fleet> {
        let run = self.run.clone().map_or_else(RunDir::new, Ok)?;
        let outcome = self.start_in(&run);
        if outcome.is_err() {
            run.keep();
        }
        outcome
    }

    fn start_in(&self, run: &RunDir) -> Result<Fleet> {
        let redis = match &self.store {
            Store::Redis => {
                let args: Vec<&str> = self.redis_args.iter().map(String::as_str).collect();
                Some(Redis::start(self.programs.redis_server()?, run, &args)?)
            }
            Store::Memory | Store::External(_) => None,
        };
        let upstream = if self.upstream.is_none() { Some(EchoUpstream::start()?) } else { None };
        let (envoys, sidecars) = (Vec::new(), Vec::new());
        let mut fleet =
            Fleet { envoys, gate: None, wires: Vec::new(), sidecars, redis, upstream, run: run.clone() };
        for _ in 0..self.sidecars {
            let redis = fleet.redis.as_ref().filter(|_| self.wired);
            let behind = redis.map(|redis| Wire::start(redis.addr())).transpose()?;
            let sidecar = self.start_sidecar(&fleet, behind.as_ref())?;
            if let Some(behind) = behind {
                fleet.wires.push([Wire::start(sidecar.addr())?, behind]);
            }
            fleet.sidecars.push(sidecar);
        }
        if self.gated {
            fleet.gate = Some(Gate::start(fleet.sidecar(0).addr())?);
        }
        let config = self.config_for(&fleet)?;
        for index in 0..self.envoys {
            let mut envoy =
                Envoy::builder(config.clone()).concurrency(self.concurrency).args(&self.envoy_args);
            if let Some(first) = self.first_port {
                let port = usize::from(first) + index;
                let port = u16::try_from(port).map_err(|_| Error::config("ports", format!("port {port}")))?;
                envoy = envoy.port(port);
            }
            fleet.envoys.push(envoy.start(self.programs.envoy()?, run)?);
        }
        Ok(fleet)
    }

    fn start_sidecar(&self, fleet: &Fleet, wire: Option<&Wire>) -> Result<Sidecar> {
        let mut sidecar = Sidecar::builder().args(&self.sidecar_args).ready(self.ready);
        if self.transport == Transport::Unix {
            sidecar = sidecar.unix_socket();
        }
        match (&self.store, &fleet.redis, wire) {
            (_, _, Some(wire)) => sidecar = sidecar.redis_url(format!("redis://{}", wire.addr())),
            (Store::External(url), ..) => sidecar = sidecar.redis_url(url),
            (_, Some(redis), _) => sidecar = sidecar.redis_url(redis.url()),
            (_, None, _) => {}
        }
        sidecar.start(self.programs.sluice()?, &fleet.run)
    }

    fn config_for(&self, fleet: &Fleet) -> Result<Config> {
        let mut config = self.config.clone().map_or_else(Config::shipped, Ok)?;
        let mut sidecars: Vec<Endpoint> = fleet.sidecars.iter().map(Sidecar::endpoint).collect();
        for (place, [before, _]) in sidecars.iter_mut().zip(&fleet.wires) {
            *place = Endpoint::Tcp(before.addr());
        }
        if let (Some(gate), Some(first)) = (&fleet.gate, sidecars.first_mut()) {
            *first = Endpoint::Tcp(gate.addr());
        }
        if config.cluster("sluice").is_ok() {
            config.endpoints("sluice", &sidecars)?;
            if self.transport == Transport::Http2 {
                config.http2("sluice")?;
            }
        }
        let upstream = fleet.upstream.as_ref().map(EchoUpstream::addr).or(self.upstream);
        if let (Some(addr), Ok(_)) = (upstream, config.cluster("upstream")) {
            config.endpoints("upstream", &[Endpoint::Tcp(addr)])?;
        }
        if let (Some(_), true) = (&self.programs.wasm, config.has_plugin()) {
            config.wasm(self.programs.wasm()?)?;
        }
        if let Some(value) = &self.filter {
            *config.filter_configuration()? = value.clone();
        }
        if let Some(policies) = &self.policies {
            config.filter_configuration()?["policies"] = policies.clone();
        }
        self.adjust.iter().try_for_each(|change| change(&mut config))?;
        if config.has_plugin() {
            // A fleet without the filter needs none; any other is told what to do.
            self.programs.wasm()?;
        }
        Ok(config)
    }
}

impl fmt::Debug for FleetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (envoys, sidecars, store) = (&self.envoys, &self.sidecars, &self.store);
        f.debug_struct("FleetBuilder")
            .field("envoys", envoys)
            .field("sidecars", sidecars)
            .field("store", store)
            .finish_non_exhaustive()
    }
}

impl Fleet {
    /// Prepares a fleet of the shipped configuration.
    #[must_use]
    pub fn builder() -> FleetBuilder {
        FleetBuilder {
            programs: Programs::from_env(),
            config: None,
            filter: None,
            policies: None,
            adjust: Vec::new(),
            envoys: 1,
            envoy_args: Vec::new(),
            concurrency: 1,
            first_port: None,
            sidecars: 1,
            sidecar_args: Vec::new(),
            ready: Ready::Readyz,
            gated: false,
            wired: false,
            store: Store::Memory,
            redis_args: Vec::new(),
            transport: Transport::Http1,
            upstream: None,
            run: None,
        }
    }

    /// The Envoy at this place, from 0.
    ///
    /// # Panics
    /// Where there are fewer.
    #[must_use]
    pub fn envoy(&self, index: usize) -> &Envoy {
        &self.envoys[index]
    }

    /// All Envoys.
    #[must_use]
    pub fn envoys(&self) -> &[Envoy] {
        &self.envoys
    }

    /// The sidecar at this place, from 0.
    ///
    /// # Panics
    /// Where there are fewer.
    #[must_use]
    pub fn sidecar(&self, index: usize) -> &Sidecar {
        &self.sidecars[index]
    }

    /// The gate before the first sidecar.
    ///
    /// # Panics
    /// Where it was built without.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("this fleet was built without a gate")
    }

    /// The wire from the Envoys to the sidecar at this place.
    ///
    /// # Panics
    /// Where it was built without.
    #[must_use]
    pub fn wire_to_sidecar(&self, index: usize) -> &Wire {
        &self.wires.get(index).expect("this fleet was built without wires")[0]
    }

    /// The wire from the sidecar at this place to Redis.
    ///
    /// # Panics
    /// Where it was built without.
    #[must_use]
    pub fn wire_to_redis(&self, index: usize) -> &Wire {
        &self.wires.get(index).expect("this fleet was built without wires")[1]
    }

    /// All sidecars.
    #[must_use]
    pub fn sidecars(&self) -> &[Sidecar] {
        &self.sidecars
    }

    /// All sidecars, to restart them.
    pub fn sidecars_mut(&mut self) -> &mut [Sidecar] {
        &mut self.sidecars
    }

    /// The Redis that the fleet started.
    ///
    /// # Panics
    /// Where its store is another.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("this fleet was built without Store::Redis")
    }

    /// The Redis that the fleet started, to restart it.
    ///
    /// # Panics
    /// Where its store is another.
    pub fn redis_mut(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("this fleet was built without Store::Redis")
    }

    /// The echo upstream.
    ///
    /// # Panics
    /// Where another upstream was given.
    #[must_use]
    pub fn upstream(&self) -> &EchoUpstream {
        self.upstream.as_ref().expect("this fleet was built with an upstream of its own")
    }

    /// The directory with its configurations and logs.
    #[must_use]
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// An error with the log of the first part that has ended by itself.
    pub fn check_running(&self) -> Result<()> {
        let envoys = self.envoys.iter().map(Envoy::process);
        let sidecars = self.sidecars.iter().map(Sidecar::process);
        let redis = self.redis.iter().map(Redis::process);
        envoys.chain(sidecars).chain(redis).try_for_each(crate::Process::check_running)
    }
}
