//! Every Sluice filter of a file, wherever it stands, and the routes that speak to it.

use std::borrow::Cow;

use super::configuration;
use super::finding::Finding;
use crate::document::{Node, Source, Span, Value};

/// The names of Envoy's messages, as they end in a `@type`.
const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// What switches a filter off or on for a route.
const OF_ROUTE: &str = "envoy.config.route.v3.FilterConfig";

/// Where routes and virtual hosts have filters' configurations of their own.
const PER_ROUTE: [&str; 2] = ["typed_per_filter_config", "typedPerFilterConfig"];

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// The Sluice filters, in order.
    pub filters: Vec<Filter<'a>>,
    /// The routes that have a name, metadata, or filters' configurations.
    pub routes: Vec<Route<'a>>,
    /// Wasm filters that are somebody else's.
    pub others: usize,
    /// What is wrong with the way in which a filter is configured.
    pub findings: Vec<Finding>,
}

/// One Sluice filter.
#[derive(Debug)]
pub struct Filter<'a> {
    /// Where it begins.
    pub at: Span,
    /// What it is called, if it is.
    pub name: Option<&'a str>,
    /// What stands around it.
    pub home: Home<'a>,
    /// The HTTP filter that it is, as the connection manager lists it.
    pub http_filter: Option<&'a Node>,
    /// Its configuration, if it could be read.
    pub configuration: Option<Cow<'a, Node>>,
}

/// Where a filter's configuration stands.
#[derive(Clone, Copy, Debug)]
pub enum Home<'a> {
    /// In Envoy's own configuration.
    Envoy {
        /// The `PluginConfig`.
        plugin: &'a Node,
        /// The HTTP connection manager around it.
        manager: Option<&'a Node>,
        /// The whole document.
        root: &'a Node,
    },
    /// In a resource from which something else makes Envoy's configuration, or alone.
    Elsewhere,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// Where it begins.
    pub at: Span,
    /// What it is called, if it is.
    pub name: Option<&'a str>,
    /// What it says in its metadata, in the namespace `sluice`.
    pub metadata: Option<&'a Node>,
    /// All its metadata, by namespace.
    pub all_metadata: Option<&'a Node>,
    /// The HTTP connection manager around it.
    pub manager: Option<&'a Node>,
    /// The `typed_per_filter_config` of the route, of its virtual host and of all routes, the innermost first.
    per_filter: PerFilter<'a>,
}

type PerFilter<'a> = [Option<&'a Node>; 3];

impl Route<'_> {
    /// Whether the filter may get its requests: they stand in one connection manager, or it is not known in which.
    #[must_use]
    pub fn is_heard_by(&self, filter: &Filter<'_>) -> bool {
        match (filter.home, self.manager) {
            (Home::Envoy { manager: Some(own), .. }, Some(around)) => std::ptr::eq(own, around),
            _ => true,
        }
    }

    /// Whether the route switches the filter off, or on, and where; `None` where it says nothing of it.
    #[must_use]
    pub fn disables(&self, filter: &Filter<'_>) -> Option<(bool, Span)> {
        let name = filter.http_filter?.get("name")?.text()?;
        let said = { self.per_filter.iter() }.flatten().find_map(|per_filter| per_filter.field(name))?;
        // Whatever else is configured for the route switches the filter on.
        let of_route = message(&said.node).filter(|(kind, _)| *kind == OF_ROUTE);
        let disabled = of_route.and_then(|(_, message)| message.option("disabled"));
        let at = disabled.map_or(said.at, |field| field.at);
        Some((disabled.is_some_and(|field| field.node.value == Value::Bool(true)), at))
    }
}

impl Filter<'_> {
    /// Where it is disabled for all routes that do not say otherwise.
    #[must_use]
    pub fn disabled(&self) -> Option<Span> {
        let disabled = self.http_filter?.option("disabled")?;
        (disabled.node.value == Value::Bool(true)).then_some(disabled.at)
    }
}

/// Finds them in one document of a file.
pub fn find<'a>(source: &Source, root: &'a Node, found: &mut Found<'a>) {
    if is_bare(root) {
        let filter = Filter {
            at: root.shown(),
            name: None,
            home: Home::Elsewhere,
            http_filter: None,
            configuration: Some(Cow::Borrowed(root)),
        };
        found.filters.push(filter);
        return;
    }
    Walk { source, root, found }.visit(root, Around::default());
}

/// A file of policies, without an Envoy around them.
fn is_bare(root: &Node) -> bool {
    let is_part_of_something = ["@type", "apiVersion", "static_resources", "staticResources", "resources"];
    (root.get("policies").is_some() || root.get("sidecar").is_some())
        && !is_part_of_something.iter().any(|name| root.get(name).is_some())
}

/// What is known about the place of a node.
#[derive(Clone, Copy, Default)]
struct Around<'a> {
    manager: Option<&'a Node>,
    /// The name in the mapping around it, such as that of an HTTP filter.
    name: Option<&'a str>,
    /// Whether it is the list of a connection manager's HTTP filters.
    is_list_of_filters: bool,
    /// The one of them that it is in.
    http_filter: Option<&'a Node>,
    per_filter: PerFilter<'a>,
    /// What Istio merges into a route, and the name of that.
    patch: Option<(&'a Node, Option<&'a str>)>,
    /// Whether it is said for a route or a virtual host.
    is_per_route: bool,
}

struct Walk<'s, 'f, 'a> {
    source: &'s Source,
    root: &'a Node,
    found: &'f mut Found<'a>,
}

impl<'a> Walk<'_, '_, 'a> {
    fn visit(&mut self, node: &'a Node, mut around: Around<'a>) {
        if let Some((kind, message)) = message(node) {
            match kind {
                WASM => return self.wasm(message, around),
                MANAGER => around.manager = Some(message),
                _ => {}
            }
        }
        match node.get("kind").and_then(Node::text) {
            Some("WasmPlugin") => return self.wasm_plugin(node),
            Some("EnvoyExtensionPolicy") => return self.extension_policy(node),
            _ => {}
        }
        let name = node.get("name").and_then(Node::text);
        if let Some(own) = PER_ROUTE.iter().find_map(|name| node.get(name)) {
            let [first, second, _] = around.per_filter;
            around.per_filter = [Some(own), first, second];
        }
        self.route(node, name, around);
        if node.get("applyTo").and_then(Node::text) == Some("HTTP_ROUTE") {
            let path = ["match", "route_configuration", "vhost", "route", "name"];
            let matched = node.options(&path).and_then(Node::text);
            around.patch = node.options(&["patch", "value"]).map(|patch| (patch, matched));
        }
        for field in node.fields() {
            let is_per_route = around.is_per_route || PER_ROUTE.contains(&field.name.as_str());
            let is_list_of_filters = matches!(field.name.as_str(), "http_filters" | "httpFilters");
            self.visit(&field.node, Around { name, is_per_route, is_list_of_filters, ..around });
        }
        for item in node.items() {
            let http_filter = if around.is_list_of_filters { Some(item) } else { around.http_filter };
            self.visit(item, Around { http_filter, is_list_of_filters: false, ..around });
        }
    }

    /// Envoy's own Wasm filter.
    fn wasm(&mut self, wasm: &'a Node, around: Around<'a>) {
        let Some(plugin) = wasm.option("config") else { return };
        let read = configuration::of_plugin(self.source, plugin);
        let has_fields = match &read {
            Ok(configuration) => is_ours(configuration),
            Err(_) => configuration::speaks_of_policies(plugin),
        };
        if !has_fields && !is_named_sluice(&plugin.node, around.name) {
            self.found.others += 1;
            return;
        }
        if around.is_per_route {
            let message = "found a Sluice filter in typed_per_filter_config; Envoy has no Wasm filters of routes: write \
                           what is special about the route in its metadata, namespace `sluice`";
            self.found.findings.push(Finding::error(plugin.at, message));
        }
        let home = Home::Envoy { plugin: &plugin.node, manager: around.manager, root: self.root };
        let name = plugin.node.get("name").and_then(Node::text).or(around.name);
        self.add(plugin.node.shown(), name, home, read);
        if let Some(filter) = self.found.filters.last_mut() {
            filter.http_filter = around.http_filter;
        }
    }

    /// Istio's resource.
    fn wasm_plugin(&mut self, resource: &'a Node) {
        let Some(spec) = resource.get("spec") else { return };
        let name = resource.options(&["metadata", "name"]).and_then(Node::text);
        let names = [name, spec.get("url").and_then(Node::text), spec.get("pluginName").and_then(Node::text)];
        self.resource(spec, "pluginConfig", name, &names);
    }

    /// Envoy Gateway's resource, which may have several.
    fn extension_policy(&mut self, resource: &'a Node) {
        for wasm in resource.options(&["spec", "wasm"]).map(Node::items).unwrap_or_default() {
            let name = wasm.get("name").and_then(Node::text);
            let root_id = wasm.get("rootID").and_then(Node::text);
            let code =
                ["http", "image"].map(|kind| wasm.options(&["code", kind, "url"]).and_then(Node::text));
            self.resource(wasm, "config", name, &[name, root_id, code[0], code[1]]);
        }
    }

    fn resource(&mut self, spec: &'a Node, field: &str, name: Option<&'a str>, names: &[Option<&str>]) {
        let configuration = spec.field(field).filter(|field| field.node.value != Value::Null);
        let ours = configuration.is_some_and(|field| is_ours(&field.node));
        if !ours && !names.iter().flatten().any(|name| says_sluice(name)) {
            self.found.others += 1;
            return;
        }
        let read = configuration.map(|field| Cow::Borrowed(&field.node)).ok_or_else(|| {
            let message = format!("{field}: left out; write there what has `sidecar` and `policies`");
            Finding::error(spec.shown(), message)
        });
        self.add(spec.shown(), name, Home::Elsewhere, read);
    }

    fn add(&mut self, at: Span, name: Option<&'a str>, home: Home<'a>, read: Result<Cow<'a, Node>, Finding>) {
        let configuration = read.map_err(|finding| self.found.findings.push(finding)).ok();
        self.found.filters.push(Filter { at, name, home, http_filter: None, configuration });
    }

    /// A route, or what is no route and yet speaks as one.
    fn route(&mut self, node: &'a Node, name: Option<&'a str>, around: Around<'a>) {
        let all_metadata = node.options(&["metadata", "filter_metadata"]);
        let ours = all_metadata.and_then(|metadata| metadata.field("sluice"));
        let patch = around.patch.filter(|(patch, _)| std::ptr::eq(*patch, node));
        let name = name.or(patch.and_then(|(_, name)| name));
        if patch.is_some() || node.get("match").is_some() {
            let says = all_metadata.is_some() || PER_ROUTE.iter().any(|name| node.get(name).is_some());
            if name.is_some() || says {
                self.found.routes.push(Route {
                    at: node.shown(),
                    name,
                    metadata: ours.map(|field| &field.node),
                    all_metadata,
                    manager: around.manager,
                    per_filter: around.per_filter,
                });
            }
        } else if let Some(ours) = ours {
            let message = "metadata.filter_metadata.sluice: found it on what is no route; the filter reads only the \
                           metadata of routes: write it there, beside `match`";
            self.found.findings.push(Finding::warning(ours.at, message));
        }
    }
}

/// The name of a message and the message itself, packed as an `Any` or as a `TypedStruct`.
pub fn message(node: &Node) -> Option<(&str, &Node)> {
    let kind = node.get("@type").and_then(Node::text).map(last_of_url);
    let may_be_packed = matches!(kind, None | Some("udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct"));
    match node.option("type_url").filter(|_| may_be_packed) {
        Some(url) => Some((last_of_url(url.node.text()?), node.get("value")?)),
        None => Some((kind?, node)),
    }
}

/// `type.googleapis.com/a.b.C` names `a.b.C`.
pub fn last_of_url(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn is_ours(configuration: &Node) -> bool {
    configuration.get("policies").is_some() || configuration.get("sidecar").is_some()
}

/// Whether anything that names the plugin names Sluice.
fn is_named_sluice(plugin: &Node, name: Option<&str>) -> bool {
    let named: [&[&str]; 5] = [
        &["name"],
        &["root_id"],
        &["vm_config", "vm_id"],
        &["vm_config", "code", "local", "filename"],
        &["vm_config", "code", "remote", "http_uri", "uri"],
    ];
    let names = named.iter().filter_map(|path| plugin.options(path).and_then(Node::text));
    names.chain(name).any(says_sluice)
}

fn says_sluice(name: &str) -> bool {
    name.to_ascii_lowercase().contains("sluice")
}
