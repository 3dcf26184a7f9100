//! What operators ask: on a listener of its own, apart from that of the Envoys.
//!
//! On the loopback and on a Unix socket it answers whoever reaches it, but no web page in a browser there. Everywhere else
//! it wants a token.

mod buckets;
mod events;
mod exposition;
mod guard;
mod log;
mod metrics;
mod named;
mod openapi;
mod overrides;
mod page;
mod stats;
mod status;
mod top;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::{get, post, put},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use events::Streams;
pub use guard::Guard;

use super::{Service, healthz, mark, readyz, refusal::RequestError};

/// What is answered on the admin listener.
pub fn router(service: Arc<Service>, guard: Guard) -> Router {
    let (guarded, document) = documented().split_for_parts();
    let document = Arc::new(document);
    guarded
        .route("/v1/openapi.json", get(async move || openapi::answer(&document)))
        .route_layer(axum::middleware::from_fn_with_state(guard.clone(), guard::admit))
        // What it shows is asked for by itself, and guarded.
        .merge(page::routes())
        // These are for whoever looks after the process, who has no token: they say whether, and to nobody else why.
        .route("/healthz", get(healthz))
        .route(
            "/readyz",
            get(move |state, request: Request| ready(state, guard.admits_request(&request).is_ok())),
        )
        .fallback(async || RequestError::UnknownAdminPath)
        .method_not_allowed_fallback(async || RequestError::WrongAdminMethod)
        .with_state(service)
        .layer(axum::middleware::map_response(mark))
}

/// What may be asked, as an OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

/// What only the guard's friends may ask, each with its description.
fn documented() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(status::status))
        .routes(routes!(events::events))
        .routes(routes!(buckets::bucket))
        .routes(routes!(buckets::reset))
        .routes(routes!(buckets::refund))
        .routes(routes!(overrides::put, overrides::remove))
        .routes(routes!(overrides::list))
        .routes(routes!(log::get, log::put))
        // The same of a bucket whose key is empty, which no segment of a path is.
        .route("/v1/buckets/{policy}/", get(buckets::bucket))
        .route("/v1/buckets/{policy}//reset", post(buckets::reset))
        .route("/v1/buckets/{policy}//refund", post(buckets::refund))
        .route("/v1/buckets/{policy}//override", put(overrides::put).delete(overrides::remove))
        .routes(routes!(stats::stats))
        .routes(routes!(metrics::metrics))
        .routes(routes!(top::top))
}

async fn ready(service: State<Arc<Service>>, tells_why: bool) -> Result<Response, RequestError> {
    let untold = |error| match error {
        RequestError::NotReady(_) if !tells_why => RequestError::NotReadyUntold,
        error => error,
    };
    readyz(service).await.map_err(untold)
}
