//! Where in a file a place of the policy language is.

use policy::{Place, Step};

use crate::document::{Node, Span, Value};

/// The place in the file of what the policy language says about `place` of `configuration`.
///
/// A name that is not known is told by its own place, and a value that is not there by what it is missing in.
pub fn of(configuration: &Node, place: &Place, message: &str) -> Span {
    let mut here = configuration;
    let mut at = here.shown();
    for step in &place.0 {
        let next = match step {
            Step::Item(index) => here.items().get(*index).map(|item| (item, item.shown())),
            Step::Field(name) => here.field(name).map(|field| {
                let is_long = matches!(field.node.value, Value::List(_) | Value::Mapping(_) | Value::Null);
                let is_about_name = is_long || message.starts_with(&format!("found `{name}`"));
                (&field.node, if is_about_name { field.at } else { field.node.shown() })
            }),
        };
        let Some(next) = next else { break };
        (here, at) = next;
    }
    at
}
