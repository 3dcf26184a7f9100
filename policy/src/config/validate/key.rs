//! Keys, from written to valid.

use super::name;
use crate::config::scalar::Whole;
use crate::config::spot::Spot;
use crate::config::written::{
    Later, Word, WrittenCertificate, WrittenClaim, WrittenMetadata, WrittenPart, WrittenPartFields,
    WrittenPathPart, WrittenPrefixes,
};
use crate::key::{HashSecret, Key, MAX_PARTS, Named};
use crate::part::Part;
use crate::request::ROUTE_NAME;

/// Where Envoy keeps metadata.
pub const DYNAMIC: [&str; 2] = ["metadata", "filter_metadata"];
const ROUTE: [&str; 3] = ["xds", "route_metadata", "filter_metadata"];
const LISTENER: [&str; 3] = ["xds", "listener_metadata", "filter_metadata"];

/// The namespace in which the filter jwt_authn keeps payloads.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

/// The longest fixed text, in bytes.
const MAX_TEXT_BYTES: usize = 128;

/// The most segments of a path that make a part.
const MAX_SEGMENTS: u64 = 32;

pub fn key(
    written: Vec<Later<WrittenPart>>,
    skip_missing: bool,
    spot: &Spot<'_>,
    secret: Option<&HashSecret>,
) -> Key {
    if written.len() > MAX_PARTS {
        spot.problem(format!("found {} parts; a key has at most {MAX_PARTS}", written.len()));
    }
    let parts = written.into_iter().enumerate().filter_map(|(index, written)| {
        let spot = spot.item(index);
        let found = written.read(&spot)?;
        match found {
            WrittenPart::Fields(fields) if !fields.first_of.is_absent() => {
                only_first_of(&fields, &spot);
                let spot = spot.field("first_of");
                Some(first_of(fields.first_of.read(&spot)?, &spot, secret))
            }
            found => Some(vec![part(found, &spot, secret)?]),
        }
    });
    Key::new(parts.collect(), skip_missing)
}

fn only_first_of(others: &WrittenPartFields, spot: &Spot<'_>) {
    if !others.hash.is_absent() || !kinds(others).is_empty() {
        spot.problem("found more beside `first_of`; write it with the parts in the list");
    }
}

fn first_of(written: Vec<Later<WrittenPart>>, spot: &Spot<'_>, secret: Option<&HashSecret>) -> Vec<Named> {
    if written.is_empty() {
        spot.problem("found an empty list; list at least one part, such as `client_address`");
    }
    if written.len() > MAX_PARTS {
        spot.problem(format!("found {} choices; there may be at most {MAX_PARTS}", written.len()));
    }
    let choices = written.into_iter().enumerate().filter_map(|(index, written)| {
        let spot = spot.item(index);
        let found = written.read(&spot)?;
        if matches!(&found, WrittenPart::Fields(fields) if !fields.first_of.is_absent()) {
            spot.problem("found first_of within first_of; list its parts here instead");
            return None;
        }
        part(found, &spot, secret)
    });
    choices.collect()
}

/// The names of the fields that say where the part comes from.
fn kinds(fields: &WrittenPartFields) -> Vec<&'static str> {
    let all = [
        ("client_address", fields.client_address.is_absent()),
        ("header", fields.header.is_absent()),
        ("cookie", fields.cookie.is_absent()),
        ("query", fields.query.is_absent()),
        ("path", fields.path.is_absent()),
        ("route_metadata", fields.route_metadata.is_absent()),
        ("listener_metadata", fields.listener_metadata.is_absent()),
        ("dynamic_metadata", fields.dynamic_metadata.is_absent()),
        ("jwt_claim", fields.jwt_claim.is_absent()),
        ("client_certificate", fields.client_certificate.is_absent()),
        ("filter_state", fields.filter_state.is_absent()),
        ("text", fields.text.is_absent()),
    ];
    all.into_iter().filter(|(_, absent)| !*absent).map(|(name, _)| name).collect()
}

fn part(written: WrittenPart, spot: &Spot<'_>, secret: Option<&HashSecret>) -> Option<Named> {
    let mut fields = match written {
        WrittenPart::Word(word) => return Some(of_word(word)),
        WrittenPart::Fields(fields) => *fields,
    };
    let kinds = kinds(&fields);
    if kinds.len() != 1 {
        let found = if kinds.is_empty() { "none".to_owned() } else { kinds.join(" and ") };
        spot.problem(format!("found {found}; write exactly one part here, such as {{ header: x-api-key }}"));
        return None;
    }
    let hash = std::mem::take(&mut fields.hash).read(&spot.field("hash")).unwrap_or_default();
    let secret = hash.then_some(secret).flatten();
    if hash && secret.is_none() {
        spot.field("hash").problem(
            "found true, but no secret to hash with; write `hash_secret` beside `policies`, the same on every Envoy",
        );
    }
    of_fields(fields, spot, secret.cloned())
}

fn of_word(word: Word) -> Named {
    let (name, part) = match word {
        Word::ClientAddress => ("client_address", prefixes(WrittenPrefixes::default(), None)),
        Word::Path => ("path", Part::Path { segments: None }),
        Word::Method => ("method", Part::Method),
        Word::Host => ("host", Part::Host),
        Word::RouteName => ("route_name", Part::Attribute(ROUTE_NAME.to_owned())),
    };
    Named::new(name, &[], part, None)
}

fn of_fields(fields: WrittenPartFields, spot: &Spot<'_>, secret: Option<HashSecret>) -> Option<Named> {
    let named = |kind: &str, names: &[&str], part| Some(Named::new(kind, names, part, secret.clone()));
    let at = |name: &str| spot.field(name);
    if let Some(written) = fields.client_address.read(&at("client_address")) {
        return named("client_address", &[], prefixes(written, Some(&at("client_address"))));
    }
    if let Some(found) = fields.header.read(&at("header")) {
        let name = name::header(&found, &at("header"));
        return named("header", &[&name], Part::Header(name.clone()));
    }
    if let Some(found) = fields.cookie.read(&at("cookie")) {
        let name = name::cookie(&found, &at("cookie"));
        return named("cookie", &[&name], Part::Cookie(name.clone()));
    }
    if let Some(found) = fields.query.read(&at("query")) {
        let name = name::query(&found, &at("query"));
        return named("query", &[&name], Part::Query(name.clone()));
    }
    if let Some(written) = fields.path.read(&at("path")) {
        let segments = segments(written, &at("path"));
        let count = segments.map(|count| count.to_string());
        return named("path", &count.as_deref().into_iter().collect::<Vec<_>>(), Part::Path { segments });
    }
    for (kind, root, written) in [
        ("route_metadata", &ROUTE[..], fields.route_metadata),
        ("listener_metadata", &LISTENER, fields.listener_metadata),
        ("dynamic_metadata", &DYNAMIC, fields.dynamic_metadata),
    ] {
        if let Some(WrittenMetadata { namespace, path }) = written.read(&at(kind)) {
            let attribute = metadata(root, &namespace, &path, &at(kind));
            let names: Vec<&str> = [&namespace].into_iter().chain(&path).map(String::as_str).collect();
            return named(kind, &names, Part::Metadata(attribute));
        }
    }
    if let Some(WrittenClaim { payload, claim }) = fields.jwt_claim.read(&at("jwt_claim")) {
        let attribute = self::claim(&payload, &claim.0, &at("jwt_claim"));
        let names: Vec<&str> = [&payload].into_iter().chain(&claim.0).map(String::as_str).collect();
        return named("jwt_claim", &names, Part::Metadata(attribute));
    }
    if let Some(what) = fields.client_certificate.read(&at("client_certificate")) {
        let (name, attribute) = certificate(what);
        return named("client_certificate", &[name], Part::Attribute(format!("connection\0{attribute}")));
    }
    if let Some(key) = fields.filter_state.read(&at("filter_state")) {
        let attribute = name::attribute(&["filter_state"], [key.as_str()], &at("filter_state"));
        return named("filter_state", &[&key], Part::Attribute(attribute));
    }
    let text = fields.text.read(&at("text"))?;
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("found {} bytes; a fixed text has at most {MAX_TEXT_BYTES}", text.len());
        at("text").problem(message);
    }
    named("text", &[], Part::Text(text))
}

fn prefixes(written: WrittenPrefixes, spot: Option<&Spot<'_>>) -> Part {
    let bits = |written: Option<Whole>, default: u8, most: u8, name: &str| {
        let Some(Whole(bits)) = written else { return default };
        u8::try_from(bits).ok().filter(|&bits| bits <= most).unwrap_or_else(|| {
            if let Some(spot) = spot {
                spot.field(name).problem(format!("found {bits}; it must be between 0 and {most}"));
            }
            default
        })
    };
    Part::ClientAddress {
        ipv4_bits: bits(written.ipv4_prefix, 32, 32, "ipv4_prefix"),
        // What a provider gives to one customer.
        ipv6_bits: bits(written.ipv6_prefix, 64, 128, "ipv6_prefix"),
    }
}

fn segments(written: WrittenPathPart, spot: &Spot<'_>) -> Option<usize> {
    let Whole(count) = written.segments?;
    if !(1..=MAX_SEGMENTS).contains(&count) {
        spot.field("segments").problem(format!("found {count}; it must be between 1 and {MAX_SEGMENTS}"));
    }
    usize::try_from(count).ok()
}

/// The attribute of a claim.
pub fn claim(payload: &str, claim: &[String], spot: &Spot<'_>) -> String {
    if payload.is_empty() {
        spot.field("payload")
            .problem("found an empty text; write what `payload_in_metadata` of the provider says");
    }
    if claim.is_empty() {
        spot.field("claim").problem("found an empty list; write the name of a claim, such as `sub`");
    }
    let names = [payload].into_iter().chain(claim.iter().map(String::as_str));
    name::attribute(&[&DYNAMIC[..], &[JWT_AUTHN]].concat(), names, spot)
}

/// The attribute of a value in metadata.
pub fn metadata(root: &[&str], namespace: &str, path: &[String], spot: &Spot<'_>) -> String {
    if path.is_empty() {
        spot.field("path")
            .problem("found an empty list; write the names that lead to the value, such as [tenant]");
    }
    name::attribute(root, [namespace].into_iter().chain(path.iter().map(String::as_str)), spot)
}

/// How it is written, and how Envoy names it.
const fn certificate(what: WrittenCertificate) -> (&'static str, &'static str) {
    match what {
        WrittenCertificate::UriSan => ("uri_san", "uri_san_peer_certificate"),
        WrittenCertificate::DnsSan => ("dns_san", "dns_san_peer_certificate"),
        WrittenCertificate::Digest => ("digest", "sha256_peer_certificate_digest"),
        WrittenCertificate::Subject => ("subject", "subject_peer_certificate"),
    }
}
