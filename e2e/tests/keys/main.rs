//! Whose bucket a request takes from: each part of a key, on a real Envoy, and how Redis gets to see it.
//!
//! Each part has a policy of its own, governing the paths that begin with its name, which allows one request a day for
//! each key.

mod certificates;
mod missing;
mod parts;

use e2e::{PATIENT, tokens};
use fleet::http::{self, Request};
use fleet::{Config, Fleet, FleetBuilder, Result, Store};
use serde_json::{Value, json};

fn get(path: &str) -> Request {
    http::get(path)
}

fn bearer(path: &str, token: &str) -> Request {
    get(path).header("authorization", format!("Bearer {token}"))
}

/// The filters before Sluice that set what those parts read.
fn with_filters(config: &mut Config) -> Result<()> {
    let filter = |name: &str, kind: &str, mut fields: Value| {
        fields["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
        json!({"name": name, "typed_config": fields})
    };
    let before = [
        tokens::jwt_authn(),
        filter(
            "tenant",
            "header_to_metadata.v3.Config",
            json!({"request_rules": [{
                "header": "x-tenant",
                "on_header_present": {"metadata_namespace": "com.example", "key": "tenant", "type": "STRING"},
            }]}),
        ),
        filter(
            "fixed",
            "set_metadata.v3.Config",
            json!({"metadata": [
                {"metadata_namespace": "com.example.fixed", "value": {"is": {"deep": "down"}}},
            ]}),
        ),
        filter(
            "state",
            "set_filter_state.v3.Config",
            json!({"on_request_headers": [{
                "object_key": "com.example.state",
                "factory_key": "envoy.string",
                "format_string": {"text_format_source": {"inline_string": "%REQ(x-state)%"}, "omit_empty_values": true},
                "skip_if_empty": true,
            }]}),
        ),
    ];
    config.http_filters()?.splice(0..0, before);
    let route = |prefix: &str, name: &str, plan: &str| {
        json!({
            "name": name,
            "match": {"prefix": prefix},
            "route": {"cluster": "upstream"},
            "metadata": {"filter_metadata": {"com.example": {"plan": {"name": plan}}}},
        })
    };
    let mut routes = Vec::new();
    for path in ["/route", "/plan"] {
        routes.push(route(&format!("{path}/a"), "alpha", "gold"));
        routes.push(route(&format!("{path}/b"), "beta", "free"));
    }
    routes.push(json!({"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}));
    *config.routes()? = routes.into();
    // So that a test may say where a client is.
    config.connection_manager()?["xff_num_trusted_hops"] = json!(1);
    Ok(())
}

fn once_a_day(name: &str, key: &Value) -> Value {
    json!({"name": name, "match": {"path": {"prefix": format!("/{name}")}}, "key": key, "limit": "1 per day"})
}

fn builder(configuration: Value) -> FleetBuilder {
    Fleet::builder()
        .store(Store::Redis)
        .sidecar_args(PATIENT)
        .filter_configuration(configuration)
        .adjust(with_filters)
}

fn keys(fleet: &Fleet) -> String {
    fleet.redis().command(&["KEYS", "*"]).expect("Redis answers").to_string()
}
