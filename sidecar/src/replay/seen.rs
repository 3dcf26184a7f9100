//! A request as its line in the log tells of it, and what the line does not tell.

use std::borrow::Cow;
use std::cell::RefCell;

use policy::{CLIENT_ADDRESS, ROUTE_METADATA, ROUTE_NAME};

use super::columns::{CLIENT, Columns, FORWARDED_FOR, GRPC_STATUS, ORIGINAL_PATH, ROUTE};
use super::line::Line;
use super::routes::Routes;

/// A request, and its response.
pub struct Seen<'a> {
    line: &'a Line<'a>,
    columns: &'a Columns,
    routes: &'a Routes,
    /// How many addresses at the end of `x-forwarded-for` are those of proxies before this one.
    trusted_hops: usize,
    /// What was asked for and is not told, as people call it.
    untold: RefCell<Vec<String>>,
    drawn: u32,
}

/// Whether a line tells something.
enum Told<'a> {
    Value(&'a [u8]),
    /// It says that there was no such thing.
    Absent,
    /// It says nothing of it.
    Not,
}

impl<'a> Seen<'a> {
    /// The request of line `number`.
    pub fn new(
        line: &'a Line<'a>,
        columns: &'a Columns,
        routes: &'a Routes,
        trusted_hops: usize,
        number: u64,
    ) -> Self {
        Self { line, columns, routes, trusted_hops, untold: RefCell::default(), drawn: draw(number) }
    }

    /// Whether anything was asked for since this was last taken that the log does not tell.
    pub fn lacks(&self) -> bool {
        !self.untold.borrow().is_empty()
    }

    /// What was asked for since this was last asked, and is not told.
    pub fn take_untold(&self) -> Vec<String> {
        self.untold.take()
    }

    /// The name of the route, where it is told.
    pub fn route(&self) -> Option<&'a [u8]> {
        self.value(ROUTE)
    }

    /// What is told by that name, if anything.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        match self.look(name) {
            Told::Value(value) => Some(value),
            Told::Absent | Told::Not => None,
        }
    }

    fn look(&self, name: &str) -> Told<'a> {
        let Some(place) = self.columns.find(name) else { return Told::Not };
        match self.line.values.get(place).and_then(Option::as_ref) {
            Some(Some(value)) => Told::Value(value),
            Some(None) => Told::Absent,
            // Where others tell it, Envoy left it out because it was not there.
            None if !self.line.is_text => Told::Absent,
            None => Told::Not,
        }
    }

    fn ask(&self, name: &str, called: impl FnOnce() -> String) -> Option<&'a [u8]> {
        match self.look(name) {
            Told::Value(value) => Some(value),
            Told::Absent => None,
            Told::Not => {
                self.note(called());
                None
            }
        }
    }

    fn note(&self, untold: String) {
        let mut all = self.untold.borrow_mut();
        if !all.contains(&untold) {
            all.push(untold);
        }
    }

    fn client(&self) -> Option<&'a [u8]> {
        let forwarded = || {
            let addresses = self.value(FORWARDED_FOR)?;
            addresses.rsplit(|byte| *byte == b',').nth(self.trusted_hops).map(<[u8]>::trim_ascii)
        };
        let found = self.value(CLIENT).or_else(forwarded);
        if found.is_none() {
            self.note("the client's address (client_address)".to_owned());
        }
        found
    }

    fn route_metadata(&self, path: &str) -> Option<Cow<'a, [u8]>> {
        if !self.routes.are_needed_for(path) {
            return None;
        }
        let name = self.ask(ROUTE, || "the name of the route (route_name)".to_owned())?;
        self.routes.attribute(name, path).map(Cow::Borrowed)
    }
}

impl policy::Request for Seen<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let value = match name {
            ":path" => self.value(ORIGINAL_PATH).or_else(|| self.ask(name, || "the path (:path)".to_owned())),
            "host" => self.ask(":authority", || "the host (:authority)".to_owned()),
            _ => self.ask(name, || format!("the header {name}")),
        };
        value.map(Cow::Borrowed)
    }

    fn cookies(&self) -> Vec<Cow<'_, [u8]>> {
        self.header("cookie").into_iter().collect()
    }

    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        match path {
            CLIENT_ADDRESS => self.client().map(Cow::Borrowed),
            ROUTE_NAME => {
                self.ask(ROUTE, || "the name of the route (route_name)".to_owned()).map(Cow::Borrowed)
            }
            _ if path.starts_with(ROUTE_METADATA) => self.route_metadata(path),
            _ => {
                let name = path.replace('\0', "|");
                self.ask(&name, || format!("the attribute {name}")).map(Cow::Borrowed)
            }
        }
    }

    fn draw(&self) -> u32 {
        self.drawn
    }
}

/// The response of a request; notes what is asked for and not told likewise.
pub struct Response<'a>(pub &'a Seen<'a>);

impl policy::Response for Response<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let value = match name {
            ":status" => self.0.ask(name, || "the status of the response (:status)".to_owned()),
            // Hardly any log tells it, and only that of gRPC has it.
            "grpc-status" => self.0.value(GRPC_STATUS),
            _ => {
                let name = format!("response:{name}");
                self.0.ask(&name, || format!("the response's header ({name})"))
            }
        };
        value.map(Cow::Borrowed)
    }
}

/// A number for a line, always the same, so that a log is judged twice in the same way: by splitmix64.
fn draw(number: u64) -> u32 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb)] {
        mixed = (mixed ^ (mixed >> shift)).wrapping_mul(factor);
    }
    u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or_default()
}
