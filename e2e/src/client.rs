//! A client that keeps its connections open, as most do.

use std::net::SocketAddr;
use std::time::Duration;

use ureq::Agent;

/// A client of several proxies, with a connection to each.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    api_key: String,
}

impl Client {
    /// A client that sends `api_key` as `x-api-key`.
    #[must_use]
    pub fn new(api_key: &str) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20)));
        Self { agent: config.build().new_agent(), api_key: api_key.to_owned() }
    }

    /// The status of a `GET`.
    ///
    /// # Panics
    /// Where no answer comes.
    #[must_use]
    pub fn get(&self, addr: SocketAddr, path: &str) -> u16 {
        let request = self.agent.get(format!("http://{addr}{path}")).header("x-api-key", &self.api_key);
        let mut answer = request.call().expect("an answer");
        // Read to its end, so that the connection can be used again.
        let _body = answer.body_mut().read_to_string().expect("a whole answer");
        answer.status().as_u16()
    }
}
