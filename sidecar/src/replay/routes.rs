//! What the routes in the configuration say, by the names that a log tells.

use std::collections::HashMap;

use policy::ROUTE_METADATA;

use crate::check::find::{Filter, Route};
use crate::explain::{Described, route};

/// The routes whose requests get to a filter.
#[derive(Debug, Default)]
pub struct Routes {
    by_name: HashMap<Vec<u8>, Known>,
    /// Whether one says something of Sluice.
    say_something: bool,
    /// Whether the filter is off for those that say nothing of it.
    off_by_default: bool,
    /// Whether one switches the filter off, or on.
    switch: bool,
}

#[derive(Debug)]
struct Known {
    attributes: Described,
    disables: Option<bool>,
}

impl Routes {
    /// Those of `all` that the filter hears.
    pub fn of(filter: &Filter<'_>, all: &[Route<'_>]) -> Self {
        let mut routes = Self { off_by_default: filter.disabled().is_some(), ..Self::default() };
        for found in all.iter().filter(|found| found.is_heard_by(filter)) {
            let disables = found.disables(filter).map(|(disables, _)| disables);
            routes.say_something |= found.metadata.is_some();
            routes.switch |= disables.is_some();
            let Some(name) = found.name else { continue };
            let mut attributes = Described::default();
            route::take(&mut attributes, name, found.all_metadata);
            // Of several of one name the first counts, as for `sluice explain`.
            routes.by_name.entry(name.as_bytes().to_vec()).or_insert(Known { attributes, disables });
        }
        routes
    }

    /// Whether the filter gets no request of the route, which may not be told.
    pub fn disable(&self, name: Option<&[u8]>) -> bool {
        let said = name.and_then(|name| self.by_name.get(name)).and_then(|known| known.disables);
        said.unwrap_or(self.off_by_default)
    }

    /// Whether it matters to [`Routes::disable`] which route a request takes.
    pub fn switch(&self) -> bool {
        self.switch
    }

    /// Whether the attribute depends on the route: what routes say to Sluice only does where one says something.
    pub fn are_needed_for(&self, path: &str) -> bool {
        path != ROUTE_METADATA || self.say_something
    }

    /// An attribute of the route of this name.
    pub fn attribute(&self, name: &[u8], path: &str) -> Option<&[u8]> {
        self.by_name.get(name)?.attributes.get(path)
    }
}
