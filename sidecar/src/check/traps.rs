//! What Envoy accepts around a filter, and hardly anybody means.

use std::collections::HashMap;

use super::find::{Filter, Home, message};
use super::finding::Finding;
use crate::document::{Node, Span, Value};

/// The longest name of a cluster for which another is proposed, in bytes.
const MAX_COMPARED_BYTES: usize = 128;

/// What is to be said about one filter and what stands around it.
pub fn around(filter: &Filter<'_>) -> Vec<Finding> {
    let (Home::Envoy { plugin, manager, root }, Some(configuration)) = (filter.home, &filter.configuration)
    else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    findings.extend(failure_policy(plugin));
    findings.extend(sidecar_cluster(root, configuration));
    if let Some(manager) = manager {
        findings.extend(client_address(manager, configuration));
        findings.extend(path(manager, configuration));
        findings.extend(claims(manager, filter, configuration));
    }
    findings
}

/// Filters that share one VM, though they are not the same: each but the first is told.
pub fn shared_vms(filters: &[Filter<'_>]) -> Vec<Finding> {
    let mut first_of_vm: HashMap<String, &Node> = HashMap::new();
    let mut findings = Vec::new();
    for filter in filters {
        let Home::Envoy { plugin, .. } = filter.home else { continue };
        let Some(vm) = plugin.option("vm_config") else { continue };
        let first = *first_of_vm.entry(vm.node.to_json().to_string()).or_insert(plugin);
        // The same filter in several places is one plugin to Envoy, and may share what it likes.
        if std::ptr::eq(first, plugin) || first.to_json() == plugin.to_json() {
            continue;
        }
        let at = vm.node.option("vm_id").map_or(vm.at, |id| id.node.shown());
        let message = "vm_config.vm_id: the filter shares its VM with another Sluice filter, so that a trap in one \
                       ends both; give each a vm_id of its own";
        let other = first.option("vm_config").map_or(first.shown(), |vm| vm.at);
        findings.push(Finding::warning(at, message).with_note(other, "the other filter with this vm_config"));
    }
    findings
}

fn failure_policy(plugin: &Node) -> Option<Finding> {
    let consequence = "should the filter ever trap, its worker does not recover; write FAIL_RELOAD";
    let Some(field) = plugin.option("failure_policy") else {
        let message = format!("failure_policy: left out, which is FAIL_CLOSED: {consequence}");
        return Some(Finding::warning(plugin.shown(), message));
    };
    let found = match &field.node.value {
        Value::Text(name) if name == "FAIL_RELOAD" => return None,
        Value::Number(number) if number.as_u64() == Some(1) => return None,
        other => Node { at: field.at, value: other.clone() }.to_json(),
    };
    let message = format!("failure_policy: found {found}: {consequence}");
    Some(Finding::warning(field.node.shown(), message))
}

/// A cluster may also come from a cluster discovery service: then nothing is known.
fn sidecar_cluster(root: &Node, configuration: &Node) -> Option<Finding> {
    let resources = root.option("static_resources")?;
    if root.options(&["dynamic_resources", "cds_config"]).is_some() {
        return None;
    }
    let clusters = resources.node.option("clusters").map(|field| field.node.items()).unwrap_or_default();
    let names: Vec<&str> = clusters.iter().filter_map(|cluster| cluster.get("name")?.text()).collect();
    let written = configuration.get("sidecar").and_then(|sidecar| sidecar.get("cluster"))?;
    let wanted = written.text().filter(|name| !name.is_empty())?;
    if names.contains(&wanted) {
        return None;
    }
    // To compare two names takes the product of their lengths.
    let short = |name: &&&str| wanted.len() <= MAX_COMPARED_BYTES && name.len() <= MAX_COMPARED_BYTES;
    let near = names.iter().filter(short).map(|name| (strsim::damerau_levenshtein(wanted, name), *name));
    let nearest = near.filter(|&(distance, name)| distance * 2 <= name.len()).min();
    let meant = nearest.map_or_else(
        || "without it every request gets `on_error`".to_owned(),
        |(_, name)| format!("did you mean {name:?}?"),
    );
    let message = format!(
        "sidecar.cluster: found {wanted:?}, but static_resources.clusters has none of that name; {meant}"
    );
    Some(Finding::warning(written.shown(), message))
}

fn client_address(manager: &Node, configuration: &Node) -> Option<Finding> {
    let used = mention(configuration, "client_address")?;
    let field = manager.option("use_remote_address");
    let trusts = |name: &str| manager.option(name).is_some_and(|field| !is_empty(&field.node));
    // These tell that somebody has thought of where the address comes from.
    if field.is_some_and(|field| field.node.value == Value::Bool(true))
        || trusts("original_ip_detection_extensions")
        || trusts("xff_num_trusted_hops")
    {
        return None;
    }
    let found = if field.is_some() { "it is not true" } else { "it is left out" };
    let message = format!(
        "use_remote_address: {found}, so the client's address is the last of X-Forwarded-For, which every client can \
         forge; write `use_remote_address: true`, and xff_num_trusted_hops behind a load balancer"
    );
    let at = field.map_or_else(|| begin(manager), |field| field.at);
    Some(Finding::warning(at, message).with_note(used, "the client's address is used here"))
}

fn path(manager: &Node, configuration: &Node) -> Option<Finding> {
    let used = mention(configuration, "path")?;
    let field = manager.option("normalize_path");
    if field.is_some_and(|field| field.node.value == Value::Bool(true)) {
        return None;
    }
    let found = if field.is_some() { "it is not true" } else { "it is left out" };
    let message = format!(
        "normalize_path: {found}, so one path has many spellings, such as /a/../b or /%62 for /b, and each is a way \
         around a limit; write `normalize_path: true` and `merge_slashes: true`"
    );
    let at = field.map_or_else(|| begin(manager), |field| field.at);
    Some(Finding::warning(at, message).with_note(used, "the path is used here"))
}

/// The claims of a token are known only behind the filter that verifies it.
fn claims(manager: &Node, filter: &Filter<'_>, configuration: &Node) -> Option<Finding> {
    let used = mention(configuration, "jwt_claim")?;
    let filters = manager.option("http_filters")?.node.items();
    // By the order of the list: what an alias stands for may stand anywhere in the file.
    let own =
        { filters.iter() }.position(|item| filter.http_filter.is_some_and(|own| std::ptr::eq(own, item)))?;
    let verifies = |http_filter: &&Node| {
        let kind = http_filter.option("typed_config").and_then(|typed| message(&typed.node));
        kind.is_some_and(|(kind, _)| kind.ends_with(".jwt_authn.v3.JwtAuthentication"))
    };
    let (before, behind) = filters.split_at(own);
    if before.iter().any(|http_filter| verifies(&http_filter)) {
        return None;
    }
    let late = behind.iter().find(verifies)?.shown();
    let message = "http_filters: found jwt_authn behind the Sluice filter, to which no claim is known then; put \
                   jwt_authn before it";
    Some(Finding::warning(late, message).with_note(used, "a claim is used here"))
}

fn begin(manager: &Node) -> Span {
    manager.field("@type").map_or(manager.shown(), |field| field.at)
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        _ => false,
    }
}

/// Where a key or a condition speaks of `word` first.
pub fn mention(configuration: &Node, word: &str) -> Option<Span> {
    let skip = configuration.get("skip").map(Node::items).unwrap_or_default();
    let policies = configuration.get("policies").map(Node::items).unwrap_or_default();
    let keys = policies.iter().filter_map(|policy| policy.get("key")).flat_map(Node::items);
    let conditions = policies.iter().filter_map(|policy| policy.get("match")).chain(skip);
    let in_keys = { keys }.find_map(|part| in_part(part, word));
    in_keys.or_else(|| { conditions }.find_map(|condition| in_condition(condition, word)))
}

fn in_part(part: &Node, word: &str) -> Option<Span> {
    if part.text() == Some(word) {
        return Some(part.at);
    }
    let choices = part.get("first_of").map(Node::items).unwrap_or_default();
    part.field(word).map(|field| field.at).or_else(|| choices.iter().find_map(|choice| in_part(choice, word)))
}

fn in_condition(condition: &Node, word: &str) -> Option<Span> {
    if let Some(field) = condition.field(word) {
        return Some(field.at);
    }
    let inner = ["not", "any", "all"].iter().filter_map(|name| condition.get(name));
    { inner }.find_map(|inner| match &inner.value {
        Value::List(items) => items.iter().find_map(|item| in_condition(item, word)),
        _ => in_condition(inner, word),
    })
}
