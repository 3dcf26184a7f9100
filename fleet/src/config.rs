//! An Envoy's configuration, read from YAML and rewritten for this machine.
//!
//! What a user copies, `envoy/envoy.yaml`, is what the tests run: only addresses, file names and what a test is
//! about are replaced.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::{Error, Result, tools};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket, which Envoy calls a pipe.
    Unix(PathBuf),
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl Endpoint {
    fn address(&self) -> Value {
        match self {
            Self::Tcp(addr) => {
                json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}})
            }
            Self::Unix(path) => json!({"pipe": {"path": path}}),
        }
    }
}

/// A bootstrap configuration. The methods change it in place and can be chained with `?`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config(Value);

impl Config {
    /// `envoy/envoy.yaml`, as it is shipped.
    pub fn shipped() -> Result<Self> {
        Self::read(&tools::workspace().join("envoy/envoy.yaml"))
    }

    /// Reads a YAML or JSON file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
        Self::from_yaml(&text).map_err(|error| match error {
            Error::Config { at, expected } => Error::config(format!("{}, {at}", path.display()), expected),
            other => other,
        })
    }

    /// Parses YAML or JSON.
    pub fn from_yaml(text: &str) -> Result<Self> {
        let parsed = serde_saphyr::from_str(text);
        parsed.map(Self).map_err(|error| Error::config("its YAML", format!("readable form ({error})")))
    }

    /// The text for Envoy: JSON, which is YAML too. It is best written to a file named `.yaml`, because then
    /// Envoy reads its numbers as it reads a user's: `2.5` and 3000000000 reach a filter as strings.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:#}\n", self.0)
    }

    /// The whole tree, for changes that have no method here.
    pub fn tree(&mut self) -> &mut Value {
        &mut self.0
    }

    /// The first listener's address.
    pub fn listen(&mut self, addr: SocketAddr) -> Result<&mut Self> {
        let listener = at(&mut self.0, &["static_resources", "listeners", "0"])?;
        listener["address"] = Endpoint::Tcp(addr).address();
        Ok(self)
    }

    /// The admin interface's address.
    pub fn admin(&mut self, addr: SocketAddr) -> &mut Self {
        self.0["admin"] = json!({"address": Endpoint::Tcp(addr).address()});
        self
    }

    /// The HTTP connection manager of the first listener: its `typed_config`.
    pub fn connection_manager(&mut self) -> Result<&mut Value> {
        let path =
            ["static_resources", "listeners", "0", "filter_chains", "0", "filters", "0", "typed_config"];
        at(&mut self.0, &path)
    }

    /// The routes of the first virtual host.
    pub fn routes(&mut self) -> Result<&mut Value> {
        at(self.connection_manager()?, &["route_config", "virtual_hosts", "0", "routes"])
    }

    /// Lets Envoy answer every request itself, with 200 and a short body.
    pub fn answer_directly(&mut self) -> Result<&mut Self> {
        *self.routes()? = json!([{
            "match": {"prefix": "/"},
            "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
        }]);
        Ok(self)
    }

    /// The HTTP filters, the router last.
    pub fn http_filters(&mut self) -> Result<&mut Vec<Value>> {
        let filters = at(self.connection_manager()?, &["http_filters"])?;
        filters.as_array_mut().ok_or_else(|| Error::config("http_filters", "list"))
    }

    /// Takes every HTTP filter away but the router.
    pub fn without_filters(&mut self) -> Result<&mut Self> {
        self.http_filters()?.retain(|filter| filter["name"] == "envoy.filters.http.router");
        Ok(self)
    }

    /// Takes the access log away.
    pub fn without_access_log(&mut self) -> Result<&mut Self> {
        if let Some(manager) = self.connection_manager()?.as_object_mut() {
            manager.remove("access_log");
        }
        Ok(self)
    }

    /// The first Wasm filter: the `config` (a `PluginConfig`) that names its code and configuration.
    pub fn plugin(&mut self) -> Result<&mut Value> {
        let filters = self.http_filters()?.iter_mut();
        let is_wasm = |filter: &&mut Value| {
            filter["typed_config"]["@type"].as_str().is_some_and(|name| name.ends_with(".http.wasm.v3.Wasm"))
        };
        let filter = { filters }.find(is_wasm).ok_or_else(|| Error::config("http_filters", "Wasm filter"))?;
        at(filter, &["typed_config", "config"])
    }

    /// Whether a Wasm filter is among the HTTP filters.
    pub fn has_plugin(&mut self) -> bool {
        self.plugin().is_ok()
    }

    /// The file with the filter's code.
    pub fn wasm(&mut self, file: &Path) -> Result<&mut Self> {
        let code = at(self.plugin()?, &["vm_config", "code"])?;
        *code = json!({"local": {"filename": file}});
        Ok(self)
    }

    /// What the filter is configured with: everything under `configuration.value`.
    pub fn filter_configuration(&mut self) -> Result<&mut Value> {
        at(self.plugin()?, &["configuration", "value"])
    }

    /// The cluster of this name.
    pub fn cluster(&mut self, name: &str) -> Result<&mut Map<String, Value>> {
        let clusters = at(&mut self.0, &["static_resources", "clusters"])?.as_array_mut();
        let found = clusters.and_then(|clusters| clusters.iter_mut().find(|cluster| cluster["name"] == name));
        let cluster = found.and_then(Value::as_object_mut);
        cluster.ok_or_else(|| Error::config("static_resources.clusters", format!("cluster \"{name}\"")))
    }

    /// Where a cluster's hosts are. They are addresses and no names, so the cluster becomes `STATIC`; none at
    /// all makes a cluster without endpoints.
    pub fn endpoints(&mut self, cluster: &str, endpoints: &[Endpoint]) -> Result<&mut Self> {
        let hosts: Vec<Value> =
            endpoints.iter().map(|to| json!({"endpoint": {"address": to.address()}})).collect();
        let entry = self.cluster(cluster)?;
        entry.insert("type".to_owned(), json!("STATIC"));
        let assignment = json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": hosts}]});
        entry.insert("load_assignment".to_owned(), assignment);
        Ok(self)
    }

    /// Speaks cleartext HTTP/2 to a cluster. What else its options say, such as timeouts, stays.
    pub fn http2(&mut self, cluster: &str) -> Result<&mut Self> {
        let options = self.cluster(cluster)?.entry("typed_extension_protocol_options").or_insert(json!({}));
        let options = &mut options[HTTP_OPTIONS];
        options["@type"] = json!(format!("type.googleapis.com/{HTTP_OPTIONS}"));
        options["explicit_http_config"] = json!({"http2_protocol_options": {}});
        Ok(self)
    }
}

/// Descends by member names and list positions.
fn at<'a>(from: &'a mut Value, path: &[&str]) -> Result<&'a mut Value> {
    let mut here = from;
    for (depth, step) in path.iter().enumerate() {
        let next = match here {
            Value::Array(items) => step.parse().ok().and_then(|index: usize| items.get_mut(index)),
            other => other.get_mut(*step),
        };
        here = next.ok_or_else(|| Error::config(path[..=depth].join("."), format!("\"{step}\"")))?;
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Config {
        Config::shipped().unwrap()
    }

    #[test]
    fn the_shipped_configuration_is_rewritten_for_this_machine() {
        let mut config = shipped();
        config.listen("127.0.0.1:1234".parse().unwrap()).unwrap();
        config.admin("127.0.0.1:1235".parse().unwrap());
        config.wasm(Path::new("/built/filter.wasm")).unwrap();
        config.endpoints("sluice", &[Endpoint::Unix("/run/a.sock".into())]).unwrap();
        let two: Vec<SocketAddr> = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        let two: Vec<Endpoint> = two.into_iter().map(Endpoint::from).collect();
        config.endpoints("upstream", &two).unwrap();

        let tree = config.tree();
        let listener = &tree["static_resources"]["listeners"][0];
        assert_eq!(listener["address"]["socket_address"]["port_value"], 1234);
        assert_eq!(tree["admin"]["address"]["socket_address"]["port_value"], 1235);
        let plugin = config.plugin().unwrap();
        assert_eq!(plugin["vm_config"]["code"]["local"]["filename"], "/built/filter.wasm");
        let sluice = config.cluster("sluice").unwrap();
        assert_eq!(sluice["type"], "STATIC");
        let hosts = &sluice["load_assignment"]["endpoints"][0]["lb_endpoints"];
        assert_eq!(hosts[0]["endpoint"]["address"]["pipe"]["path"], "/run/a.sock");
        let upstream = config.cluster("upstream").unwrap();
        let hosts = upstream["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().unwrap();
        assert_eq!(hosts[1]["endpoint"]["address"]["socket_address"]["address"], "::1");
        assert_eq!(hosts.len(), 2);
    }

    #[test]
    fn values_survive_the_way_through_yaml_and_json() {
        let mut config = shipped();
        let before = config.filter_configuration().unwrap().clone();
        assert_eq!(before["sidecar"]["timeout"], "50ms");
        assert_eq!(before["policies"][0]["limit"], "10 per minute");
        assert_eq!(before["policies"][0]["burst"], 10);

        let value = json!({"n": 3_000_000_000_u64, "f": 2.5, "s": "10", "t": "1s", "no": "no", "uml": "ü\n\u{1F980}"});
        *config.filter_configuration().unwrap() = value.clone();
        let mut again = Config::from_yaml(&config.text()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.filter_configuration().unwrap(), &value);
    }

    #[test]
    fn http2_keeps_the_other_options() {
        let mut config = shipped();
        config.http2("sluice").unwrap();
        let options =
            config.cluster("sluice").unwrap()["typed_extension_protocol_options"][HTTP_OPTIONS].clone();
        assert_eq!(options["common_http_protocol_options"]["idle_timeout"], "30s");
        assert_eq!(options["explicit_http_config"], json!({"http2_protocol_options": {}}));

        config.http2("upstream").unwrap();
        assert!(config.cluster("upstream").unwrap().contains_key("typed_extension_protocol_options"));
    }

    #[test]
    fn filters_routes_and_logs_can_be_taken_away() {
        let mut config = shipped();
        config.without_filters().unwrap().without_access_log().unwrap().answer_directly().unwrap();
        assert_eq!(config.http_filters().unwrap().len(), 1);
        assert!(!config.has_plugin());
        assert!(config.connection_manager().unwrap().get("access_log").is_none());
        assert_eq!(config.routes().unwrap()[0]["direct_response"]["status"], 200);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = shipped().cluster("nowhere").unwrap_err().to_string();
        assert!(missing.contains("cluster \"nowhere\""), "{missing}");
        let empty = Config::from_yaml("{}").unwrap().routes().unwrap_err().to_string();
        assert!(empty.contains("static_resources"), "{empty}");
    }
}
