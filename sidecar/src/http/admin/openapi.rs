//! `GET /v1/openapi.json`: what may be asked, generated from the code that answers it.

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::{
    OpenApi, ToSchema,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::http::json_response;

/// The document without its paths, which the router adds.
#[derive(OpenApi)]
#[openapi(
    info(title = "sluice: the admin API", description = "What operators ask of a sidecar, on --admin-listen."),
    components(schemas(Problem)),
    modifiers(&Token)
)]
pub(super) struct Document;

/// The body of an answer whose status is 400 or above.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// A stable code in `snake_case`: docs/api.md tells what each means.
    code: String,
    /// What was wrong, where, and what would be right.
    reason: String,
}

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

pub(super) fn answer(document: &utoipa::openapi::OpenApi) -> Response {
    json_response(StatusCode::OK, document, 16 << 10)
}
