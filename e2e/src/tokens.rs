//! Tokens of two clients, and the filter of Envoy's that verifies them.

use serde_json::{Value, json};

/// `{"sub": "alice", "tier": "gold", "org": {"id": "acme"}, "level": 5, "admin": true}`, signed until 2100.
pub const ALICE: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6InRlc3QifQ.eyJpc3MiOiJ0ZXN0Iiwic3ViIjoiYWxpY2UiLCJ0aWVyIjoiZ29sZCIsI\
    m9yZyI6eyJpZCI6ImFjbWUifSwibGV2ZWwiOjUsImFkbWluIjp0cnVlLCJleHAiOjQxMDI0NDQ4MDB9.IHcoPMFWDgo-Z66T\
    0eVnFQSY8pZupc9jM6-2MlTbIac";

/// `{"sub": "bob", "tier": "free", "org": {"id": "umbrella"}, "level": 6, "admin": false}`, signed until 2100.
pub const BOB: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6InRlc3QifQ.eyJpc3MiOiJ0ZXN0Iiwic3ViIjoiYm9iIiwidGllciI6ImZyZWUiLCJvc\
    mciOnsiaWQiOiJ1bWJyZWxsYSJ9LCJsZXZlbCI6NiwiYWRtaW4iOmZhbHNlLCJleHAiOjQxMDI0NDQ4MDB9.JPX5oLlF3088\
    PURDymNc5cUnWccTmOKTev2m1ABRQng";

/// A `jwt_authn` that keeps the payload of a token as `jwt`, and lets requests without one pass.
#[must_use]
pub fn jwt_authn() -> Value {
    let keys = json!({"keys": [{
        "kty": "oct",
        "alg": "HS256",
        "kid": "test",
        "k": "dGhlIGtleSBvZiB0aGVzZSB0ZXN0cywgYW5kIG9mIG5vdGhpbmcgZWxzZQ",
    }]});
    json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"test": {
                "issuer": "test",
                "payload_in_metadata": "jwt",
                "local_jwks": {"inline_string": keys.to_string()},
            }},
            "rules": [{
                "match": {"prefix": "/"},
                "requires": {"requires_any": {"requirements": [{"provider_name": "test"}, {"allow_missing": {}}]}},
            }],
        },
    })
}
