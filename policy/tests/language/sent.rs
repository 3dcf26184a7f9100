//! A request and a configuration, in few words.

use std::borrow::Cow;

use policy::{Ask, CLIENT_ADDRESS, Policies, Request};
use serde_json::{Value, json};

/// A request, by what policies may ask of it.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    headers: Vec<(String, Vec<u8>)>,
    attributes: Vec<(String, Vec<u8>)>,
    draw: u32,
}

impl Sent {
    /// A `GET` from 192.0.2.1.
    pub fn get(path: &str) -> Self {
        Self::default().header(":method", "GET").header(":path", path).from("192.0.2.1:4711")
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn method(mut self, method: &str) -> Self {
        self.headers.retain(|(name, _)| name != ":method");
        self.header(":method", method)
    }

    pub fn from(mut self, address: &str) -> Self {
        self.attributes.retain(|(name, _)| name != CLIENT_ADDRESS);
        self.attribute(CLIENT_ADDRESS, address)
    }

    /// `path` has its parts separated by `|`.
    pub fn attribute(mut self, path: &str, value: impl AsRef<[u8]>) -> Self {
        self.attributes.push((path.replace('|', "\0"), value.as_ref().to_vec()));
        self
    }

    pub fn drawing(mut self, draw: u32) -> Self {
        self.draw = draw;
        self
    }
}

fn first<'a>(of: &'a [(String, Vec<u8>)], name: &str) -> Option<Cow<'a, [u8]>> {
    of.iter().find(|(found, _)| found == name).map(|(_, value)| Cow::Borrowed(value.as_slice()))
}

impl Request for Sent {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        first(&self.headers, name)
    }

    fn cookies(&self) -> Vec<Cow<'_, [u8]>> {
        let lines = self.headers.iter().filter(|(name, _)| name == "cookie");
        lines.map(|(_, value)| Cow::Borrowed(value.as_slice())).collect()
    }

    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        first(&self.attributes, path)
    }

    fn draw(&self) -> u32 {
        self.draw
    }
}

pub fn read(config: &Value) -> Result<Policies, String> {
    Policies::from_bytes(config.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// A configuration of these policies.
pub fn policies(policies: Value) -> Policies {
    read(&json!({"sidecar": {"cluster": "sluice"}, "hash_secret": "0123456789abcdef", "policies": policies}))
        .expect("valid")
}

/// One policy `p` with one more field than it needs.
pub fn policy(field: &str, value: Value) -> Value {
    let mut policy = json!({"name": "p", "key": [], "limit": "60 per minute"});
    policy[field] = value;
    policy
}

pub fn one(field: &str, value: Value) -> Policies {
    policies(json!([policy(field, value)]))
}

/// The error that a policy with this field makes.
pub fn error(field: &str, value: Value) -> String {
    let config = json!({"sidecar": {"cluster": "sluice"}, "policies": [policy(field, value.clone())]});
    read(&config).expect_err(&format!("{field}: {value} was accepted"))
}

pub fn asks(policies: &Policies, sent: &Sent) -> Vec<Ask> {
    let asked = policies.asks(sent);
    assert_eq!(asked.mistakes.to_vec(), []);
    asked.asks
}

/// Whether a policy with this `match` governs a request.
pub fn governs(condition: &Value, sent: &Sent) -> bool {
    !asks(&one("match", condition.clone()), sent).is_empty()
}
