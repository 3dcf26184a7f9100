//! Envoys whose listener with the filter stands in a file that they watch.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Config, Fleet, FleetBuilder, RunDir, eventually, free_port};

/// Envoy compiles the filter anew for each worker where its machine has changed.
const BOUND: Duration = Duration::from_secs(20);

/// Where the filter's configuration stands in a listener.
const CONFIGURATION: &str =
    "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";

/// A fleet whose listener can be changed; beside it each Envoy has one without a filter. Where there are several Envoys,
/// all listen on the one port, and the kernel gives each connection to one of them.
#[derive(Debug)]
pub struct Watched {
    addr: SocketAddr,
    file: PathBuf,
    listener: Mutex<Value>,
    fleet: Fleet,
    _run: RunDir,
}

impl Watched {
    /// Starts a fleet whose first listener is watched, with a port of its own.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(fleet: FleetBuilder) -> Self {
        let run = RunDir::new().expect("a directory");
        let file = run.path().join("listeners.yaml");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
        let (directory, watched) = (run.path().to_owned(), file.clone());
        let move_away = move |config: &mut Config| {
            let mut listener = config.tree()["static_resources"]["listeners"][0].clone();
            listener["name"] = json!("watched");
            listener["address"]["socket_address"] =
                json!({"address": "127.0.0.1", "port_value": addr.port()});
            write(&watched, &listener);
            config.without_filters()?;
            config.tree()["node"] = json!({"id": "test", "cluster": "test"});
            config.tree()["dynamic_resources"] = json!({"lds_config": {"path_config_source": {
                "path": watched, "watched_directory": {"path": directory},
            }}});
            Ok(())
        };
        let fleet = fleet.adjust(move_away).start().expect("a fleet");
        let text = fs::read_to_string(&file).expect("written");
        let resources: Value = serde_json::from_str(&text).expect("JSON");
        let listener = Mutex::new(resources["resources"][0].clone());
        let watched = Self { addr, file, listener, fleet, _run: run };
        watched.await_updates(1);
        watched
    }

    /// Where the listener listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The fleet, to restart parts of it.
    pub fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// Gives the filter another configuration. Envoy sees to it by and by.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn update(&self, configuration: &Value) {
        let mut listener = self.listener.lock().expect("nobody panicked");
        *listener.pointer_mut(CONFIGURATION).expect("a filter") = configuration.clone();
        write(&self.file, &listener);
    }

    /// Waits until so many listeners of the file have come into force, the first included.
    ///
    /// # Panics
    /// Where they do not.
    pub fn await_updates(&self, count: u64) {
        for envoy in self.fleet.envoys() {
            let in_force = || {
                let stats = envoy.stats("listener_manager.").ok()?;
                let of =
                    |name: &str| stats.get(&format!("listener_manager.{name}")).copied().unwrap_or_default();
                (of("lds.update_success") >= count && of("total_listeners_warming") == 0).then_some(())
            };
            let outcome = eventually(BOUND, &format!("{count} updates are in force"), in_force);
            outcome.unwrap_or_else(|error| panic!("{error}\n{}", envoy.log()));
        }
    }
}

/// Writes the file that Envoy watches, as a whole: it looks when a file is moved into the directory.
fn write(file: &Path, listener: &Value) {
    let mut resource = listener.clone();
    resource["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    let draft = file.with_extension("draft");
    fs::write(&draft, json!({"resources": [resource]}).to_string()).expect("written");
    fs::rename(draft, file).expect("moved");
}
