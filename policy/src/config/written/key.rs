//! What tells clients apart, as written.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, Visitor};

use super::{Later, written};
use crate::config::scalar::Whole;

/// A part of a key: a word where its name says all, otherwise a mapping.
#[derive(Debug)]
pub enum WrittenPart {
    Word(Word),
    Fields(Box<WrittenPartFields>),
}

/// A part of a key that needs more than its name. Exactly one field besides `hash` is written.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WrittenPartFields {
    /// The client's address.
    #[serde(default)]
    pub client_address: Later<WrittenPrefixes>,
    /// The first value of a request header.
    #[serde(default)]
    pub header: Later<String>,
    /// The value of a cookie.
    #[serde(default)]
    pub cookie: Later<String>,
    /// The value of a query parameter, decoded.
    #[serde(default)]
    pub query: Later<String>,
    /// The path without the query.
    #[serde(default)]
    pub path: Later<WrittenPathPart>,
    /// Metadata of the route.
    #[serde(default)]
    pub route_metadata: Later<WrittenMetadata>,
    /// Metadata of the listener.
    #[serde(default)]
    pub listener_metadata: Later<WrittenMetadata>,
    /// Dynamic metadata that an earlier filter has set.
    #[serde(default)]
    pub dynamic_metadata: Later<WrittenMetadata>,
    /// A claim of a token that the filter jwt_authn has verified.
    #[serde(default)]
    pub jwt_claim: Later<WrittenClaim>,
    /// The client's certificate, on a connection with mutual TLS.
    #[serde(default)]
    pub client_certificate: Later<WrittenCertificate>,
    /// Filter state that an earlier filter has set, by its key.
    #[serde(default)]
    pub filter_state: Later<String>,
    /// A fixed text.
    #[serde(default)]
    pub text: Later<String>,
    /// The first of these parts that the request has.
    #[serde(default)]
    pub first_of: Later<Vec<Later<WrittenPart>>>,
    /// Keep the value out of Redis and logs: it is hashed with `hash_secret`.
    #[serde(default)]
    pub hash: Later<bool>,
}

/// A part that needs nothing but its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The client's address: of IPv6 the /64, which is what one customer has.
    ClientAddress,
    /// The path without the query.
    Path,
    /// The method.
    Method,
    /// The host, in lower case and without the port.
    Host,
    /// The name of the route.
    RouteName,
}

/// What must be written as a mapping.
const FIELDS: [&str; 10] = [
    "header",
    "cookie",
    "query",
    "route_metadata",
    "listener_metadata",
    "dynamic_metadata",
    "jwt_claim",
    "client_certificate",
    "filter_state",
    "text",
];

/// How much of an address is one client.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { ipv4_prefix: 24, ipv6_prefix: 56 }")]
pub struct WrittenPrefixes {
    /// Bits of an IPv4 address: 0 to 32. By default 32.
    #[serde(default, deserialize_with = "written")]
    pub ipv4_prefix: Option<Whole>,
    /// Bits of an IPv6 address: 0 to 128. By default 64, what a provider gives to one customer.
    #[serde(default, deserialize_with = "written")]
    pub ipv6_prefix: Option<Whole>,
}

/// How much of the path.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { segments: 2 }")]
pub struct WrittenPathPart {
    /// The first so many segments. By default all.
    #[serde(default, deserialize_with = "written")]
    pub segments: Option<Whole>,
}

/// Where in metadata a value stands.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { namespace: com.example, path: [tenant] }")]
pub struct WrittenMetadata {
    /// The namespace, such as `envoy.filters.http.ext_authz`.
    pub namespace: String,
    /// The fields from there to the value.
    pub path: Vec<String>,
}

/// A claim of a verified token.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { payload: jwt, claim: sub }")]
pub struct WrittenClaim {
    /// What `payload_in_metadata` of the provider in jwt_authn says.
    pub payload: String,
    /// The claim's name, or the list of names that lead to a nested one.
    pub claim: OneOrMore,
}

/// What of a client's certificate.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", expecting = "`uri_san`, `dns_san`, `digest` or `subject`")]
pub enum WrittenCertificate {
    /// The first URI of the subject alternative names, such as a SPIFFE ID.
    UriSan,
    /// The first DNS name of the subject alternative names.
    DnsSan,
    /// The SHA-256 of the certificate, in hex.
    Digest,
    /// The subject.
    Subject,
}

/// A name, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMore(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a list of names")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![name.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMore, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(OneOrMore(names))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for WrittenPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = WrittenPart;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part such as `client_address` or { header: x-api-key }")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<WrittenPart, E> {
                if FIELDS.contains(&word) {
                    return Err(E::custom(format!("found `{word}` alone; say which: {{ {word}: … }}")));
                }
                Word::deserialize(word.into_deserializer()).map(WrittenPart::Word)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenPart, A::Error> {
                let fields = WrittenPartFields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(WrittenPart::Fields(Box::new(fields)))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}
