//! What a log tells, each thing in a column: found once by its name, and then by its place.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::args::Field;

/// What is told by names of its own in JSON, and the names that Envoy's operators give it.
const ALIASES: [(&str, &[&str]); 12] = [
    (TIME, &["start-time", "timestamp", "time", "@timestamp", "ts"]),
    (":method", &["method", "request-method", "req-method"]),
    (":path", &["path", "request-path", "uri", "request-uri", "url"]),
    (":authority", &["authority", "request-authority", "host", "request-host"]),
    (":scheme", &["scheme"]),
    (":status", &["response-code", "status", "response-status", "code"]),
    (CLIENT, &["downstream-remote-address", "downstream-remote-address-without-port"]),
    (ROUTE, &["route-name", "route"]),
    (BYTES_SENT, &["bytes-sent"]),
    (GRPC_STATUS, &["grpc-status", "grpc-status-number"]),
    ("x-request-id", &["request-id"]),
    (FORWARDED_FOR, &["xff"]),
];

/// When the request began.
pub const TIME: &str = "time";
/// Who sent it.
pub const CLIENT: &str = "client_address";
/// The name of the route that it took.
pub const ROUTE: &str = "route_name";
/// The header that tells the addresses that it came from.
pub const FORWARDED_FOR: &str = "x-forwarded-for";
/// The path before the route changed it.
pub const ORIGINAL_PATH: &str = "x-envoy-original-path";
/// How much of the response's body was sent.
pub const BYTES_SENT: &str = "bytes_sent";
/// The status of a gRPC response.
pub const GRPC_STATUS: &str = "response:grpc-status";

/// The most names that are kept: what a log has beyond them is as if it were not there.
const MAX_COLUMNS: usize = 1_000;

/// The columns of all that was read so far.
#[derive(Debug)]
pub struct Columns {
    /// By what it tells.
    places: HashMap<String, usize, RandomState>,
    /// By the keys of JSON objects, as they are written; `None` for those of no column.
    keys: HashMap<String, Option<usize>, RandomState>,
    /// What `--field` says, by the key.
    fields: Vec<Field>,
}

/// What one line tells, by column; what it does not is `None`, and what it says is not there is a `-`, `None` within.
pub type Values<'a> = Vec<Option<Option<Cow<'a, [u8]>>>>;

impl Columns {
    /// None but those that `fields` name: these are told from the first line on.
    #[must_use]
    pub fn new(fields: &[Field]) -> Self {
        let mut columns =
            Self { places: HashMap::default(), keys: HashMap::default(), fields: fields.to_vec() };
        for field in fields {
            let place = columns.place_of(&field.name);
            columns.keys.insert(field.key.clone(), place);
        }
        columns
    }

    /// The column of what goes by `name`, where anything has told it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The column of what goes by `name`, which something tells.
    pub fn place_of(&mut self, name: &str) -> Option<usize> {
        if let Some(&place) = self.places.get(name) {
            return Some(place);
        }
        let place = self.places.len();
        (place < MAX_COLUMNS).then(|| *self.places.entry(name.to_owned()).or_insert(place))
    }

    /// The column that a key of a JSON object fills.
    pub fn of_key(&mut self, key: &str) -> Option<usize> {
        if let Some(&place) = self.keys.get(key) {
            return place;
        }
        if self.keys.len() >= MAX_COLUMNS {
            return None;
        }
        let name = told_by(key);
        // What is said on the command line counts alone.
        let is_said = self.fields.iter().any(|field| field.name == name);
        let place = if is_said { None } else { self.place_of(&name) };
        self.keys.insert(key.to_owned(), place);
        place
    }
}

/// What a key tells that nothing was said of: `X_Api_Key` is the header `x-api-key`.
fn told_by(key: &str) -> String {
    let name = key.to_ascii_lowercase().replace('_', "-");
    let alias = ALIASES.iter().find(|(_, names)| names.contains(&name.as_str()));
    alias.map_or(name, |(told, _)| (*told).to_owned())
}

/// Fills a column of a line, unless another key of it has done so before.
pub fn fill<'a>(values: &mut Values<'a>, place: usize, value: Option<Cow<'a, [u8]>>) {
    if values.len() <= place {
        values.resize_with(place + 1, || None);
    }
    if let Some(column) = values.get_mut(place)
        && column.as_ref().is_none_or(Option::is_none)
    {
        *column = Some(value.filter(|value| **value != *b"-"));
    }
}
