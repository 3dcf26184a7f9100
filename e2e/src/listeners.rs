//! Several listeners in one Envoy, each with a filter of its own.

use std::net::{Ipv4Addr, SocketAddr};

use fleet::{Config, Result, free_port};
use serde_json::json;

type Change = Box<dyn Fn(&mut Config) -> Result<()> + Send + Sync>;

/// A further listener: the first one but for a change.
pub struct Listener {
    addr: SocketAddr,
    change: Change,
}

impl Listener {
    /// One on a free port; `change` is made to a configuration whose first listener it then is.
    ///
    /// # Panics
    /// Where no port is to be had.
    #[must_use]
    pub fn new(change: impl Fn(&mut Config) -> Result<()> + Send + Sync + 'static) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
        Self { addr, change: Box::new(change) }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Adds it to a configuration.
    ///
    /// # Errors
    /// Where the change cannot be made, or the configuration has no listener.
    pub fn add_to(&self, config: &mut Config) -> Result<()> {
        let mut copy = config.clone();
        (self.change)(&mut copy)?;
        copy.listen(self.addr)?;
        let mut listener = copy.tree()["static_resources"]["listeners"][0].take();
        listener["name"] = json!(format!("listener-{}", self.addr.port()));
        if let Some(listeners) = config.tree()["static_resources"]["listeners"].as_array_mut() {
            listeners.push(listener);
        }
        Ok(())
    }
}
