//! `GET /metrics`: what Prometheus scrapes. Labels are names of policies, at most 1,001 of them, and words of this program:
//! never a key.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    exposition::{OPEN_METRICS, PROMETHEUS, Page, open_metrics, prometheus},
    openapi::Problem,
};
use crate::{
    http::Service,
    process::{self, Process},
    spans::{SpanCounts, Spans},
    store::{
        StoreStatus,
        redis::{BREAKER_STATES, RUN_OUTCOMES, RunsTold},
    },
    telemetry::{Counted, Counts},
};

/// What Prometheus scrapes
///
/// In OpenMetrics where it is accepted, in Prometheus's text otherwise.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "watching",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = Problem),
    ),
)]
pub(super) async fn metrics(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let Ok(page) = open_metrics(Scrape(service)) else {
        // A text is written to memory, which does not fail.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let accepts = headers.get_all(header::ACCEPT).iter();
    let is_open =
        accepts.filter_map(|accept| accept.to_str().ok()).any(|accept| accept.contains("openmetrics-text"));
    let (content_type, page) = if is_open { (OPEN_METRICS, page) } else { (PROMETHEUS, prometheus(&page)) };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], page).into_response()
}

/// One answer to a scrape.
struct Scrape(Arc<Service>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (page, service) = (&mut Page::new(encoder), &*self.0);
        let status = service.store.status();
        let build = [("version", env!("CARGO_PKG_VERSION")), ("store", status.kind)];
        page.gauges(("sluice_build_info", "1, with the version and the kind of the store"), [(build, 1)])?;
        decisions(page, service.telemetry.counted())?;
        store(page, &status)?;
        if let Some(runs) = service.store.runs() {
            redis(page, &runs)?;
        }
        overrides(page, service)?;
        edge(page, service)?;
        spans(page, service)?;
        let began = SystemTime::now().checked_sub(service.started.elapsed());
        let began_s = began.and_then(|began| began.duration_since(UNIX_EPOCH).ok());
        if let Some(began_s) = began_s {
            let of = ("process_start_time_seconds", "When this process began to serve, since 1970");
            page.seconds(of, began_s.as_secs_f64())?;
        }
        process::read().map_or(Ok(()), |process| own(page, &process))
    }
}

fn decisions(page: &mut Page<'_>, counted: Counted) -> fmt::Result {
    let Counted { totals, policies, seconds, takes } = counted;
    let each_once = [
        ("allowed", totals.allowed),
        ("denied", totals.denied),
        ("blocked", totals.blocked),
        ("failed", totals.failed),
    ];
    let each_once = each_once.map(|(outcome, count)| ([("outcome", outcome)], count));
    let meaning = "Takes by what became of them, each once whatever its policies; none that is in shadow, and no leases";
    page.counters(("sluice_takes", meaning), each_once)?;
    let labels = |name: &crate::telemetry::PolicyName| {
        [("domain", name.domain.to_string()), ("policy", name.policy.to_string())]
    };
    let by_outcome = policies.iter().flat_map(|(name, counts)| {
        let Counts { allowed, denied, blocked, failed, shadow_denied, repeats: _, leased_tokens: _ } =
            *counts;
        let outcomes = [
            ("allowed", allowed),
            ("denied", denied),
            ("blocked", blocked),
            ("failed", failed),
            ("shadow_denied", shadow_denied),
        ];
        outcomes.map(|(outcome, count)| {
            let [domain, policy] = labels(name);
            ([domain, policy, ("outcome", outcome.to_owned())], count)
        })
    });
    let meaning = "Takes by policy, once for each, and by what became of them; blocked by an operator, or only looked at in shadow";
    page.counters(("sluice_decisions", meaning), by_outcome)?;
    let repeats = policies.iter().map(|(name, counts)| (labels(name), counts.repeats));
    page.counters(
        ("sluice_repeats", "Requests that filters denied by what they remember, as told later"),
        repeats,
    )?;
    let leased = policies.iter().map(|(name, counts)| (labels(name), counts.leased_tokens));
    page.counters(
        ("sluice_leased_tokens", "Tokens that were leased to filters, to be spent without asking"),
        leased,
    )?;
    let meaning = "How long requests for takes took, until answered or given up";
    page.histogram(("sluice_take_duration_seconds", meaning), &seconds)?;
    page.histogram(("sluice_takes_per_request", "How many takes shared a request"), &takes)
}

fn store(page: &mut Page<'_>, status: &StoreStatus) -> fmt::Result {
    let ready = u64::from(status.ready);
    page.gauge(("sluice_store_ready", "Whether takes can be decided now, 1 or 0"), ready)?;
    let gauges = [
        (("sluice_buckets", "Buckets that are kept in memory"), status.buckets),
        (("sluice_waiting_buckets", "Buckets that wait for Redis or are under way"), status.waiting_buckets),
        (
            ("sluice_deny_cache_entries", "Buckets of which it is remembered that they deny"),
            status.deny_cache_entries,
        ),
    ];
    for (of, value) in gauges {
        if let Some(value) = value {
            page.gauge(of, value as u64)?;
        }
    }
    let hits =
        ("sluice_deny_cache_hits", "Takes that were denied from what is remembered, without asking Redis");
    status.deny_cache_hits.map_or(Ok(()), |value| page.counter(hits, value))
}

fn redis(page: &mut Page<'_>, runs: &RunsTold) -> fmt::Result {
    let meaning = "How long runs of the script took in Redis that were answered or late";
    page.histogram(("sluice_redis_run_duration_seconds", meaning), &runs.seconds)?;
    page.histogram(("sluice_redis_buckets_per_run", "How many buckets shared a run"), &runs.buckets)?;
    let ended = RUN_OUTCOMES.iter().zip(runs.ended).map(|(outcome, count)| ([("outcome", *outcome)], count));
    page.counters(("sluice_redis_runs", "Runs of the script by what became of them"), ended)?;
    let links =
        BREAKER_STATES.iter().zip(runs.links).map(|(state, count)| ([("breaker", *state)], count as u64));
    page.gauges(("sluice_redis_links", "Connections to Redis by the state of their breaker"), links)
}

fn overrides(page: &mut Page<'_>, service: &Service) -> fmt::Result {
    let count = service.overrides.count() as u64;
    page.gauge(("sluice_overrides", "Buckets whose limit an operator has overridden"), count)?;
    let meaning =
        "How long ago the overrides were last known to be as they are kept, or else since the start";
    let age_us = service.overrides.age_us();
    let age_s = age_us.map_or_else(|| service.started.elapsed().as_secs_f64(), |age_us| age_us as f64 / 1e6);
    page.seconds(("sluice_overrides_age_seconds", meaning), age_s)
}

fn edge(page: &mut Page<'_>, service: &Service) -> fmt::Result {
    let ready = u64::from(service.ready().is_ok());
    page.gauge(
        (
            "sluice_ready",
            "What /readyz says, 1 or 0: takes can be decided, overrides are known, and it stays",
        ),
        ready,
    )?;
    let load = |count: &crate::http::Count| count.load(std::sync::atomic::Ordering::Relaxed);
    let refused = load(&service.refused);
    let answered = load(&service.answered).saturating_sub(refused);
    let requests = [("answered", answered), ("refused", refused), ("given_up", load(&service.given_up))];
    let requests = requests.map(|(outcome, count)| ([("outcome", outcome)], count));
    let meaning = "Requests to the data listeners, answered, refused with a status of 400 and above, or given up by the client";
    page.counters(("sluice_requests", meaning), requests)?;
    let connections = service.connections();
    page.gauge(("sluice_connections", "Open connections of Envoys"), connections.taken() as u64)?;
    page.gauge(("sluice_connections_max", "As many as may be open"), connections.max() as u64)?;
    let meaning = "Connections that were closed at once, because too many were open";
    page.counter(("sluice_connections_refused", meaning), connections.refused())
}

fn spans(page: &mut Page<'_>, service: &Service) -> fmt::Result {
    let Some(SpanCounts { exported, lost }) = service.spans.as_ref().map(Spans::counts) else {
        return Ok(());
    };
    let meaning = "Spans of sampled takes by whether their receiver took them";
    let spans = [([("outcome", "exported")], exported), ([("outcome", "lost")], lost)];
    page.counters(("sluice_spans", meaning), spans)
}

/// By the names that every Prometheus client has for them.
fn own(page: &mut Page<'_>, process: &Process) -> fmt::Result {
    page.seconds_counted(("process_cpu_seconds", "Processor time of this process"), process.cpu_s)?;
    page.gauge(("process_resident_memory_bytes", "Memory of this process"), process.resident_bytes)?;
    page.gauge(("process_virtual_memory_bytes", "Addresses of this process"), process.virtual_bytes)?;
    page.gauge(("process_open_fds", "Files that this process has open"), process.open_files)?;
    page.gauge(("process_max_fds", "Files that this process may have open"), process.max_files)
}
