//! `GET /health`: is the process alive; `GET /ready`: can it take work. Both are public.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ApiState;
use super::access::access;
use super::error::no_store;
use crate::clock::SharedClock;
use crate::config::WorkerConfig;
use crate::telemetry::{Metrics, RequestId};

/// What `/health` tells the operator beside the word for everybody.
#[derive(Debug, Clone)]
pub struct HealthDetail {
    /// Name of the service.
    pub service: String,
    /// Shows the time.
    pub clock: SharedClock,
    /// When the process began, by the clock's monotonic time.
    pub started: Instant,
    /// How the `events` table is worked off.
    pub worker: WorkerConfig,
}

/// Answers 200 as long as the process does. Asks nothing of anybody else: a database that is away
/// is no reason to restart.
pub(super) async fn health(State(state): State<Arc<ApiState>>, headers: HeaderMap) -> Response {
    // A wrong token is no reason to look dead either.
    let detail = state
        .detail
        .as_ref()
        .filter(|_| access(&state, &headers).is_some());
    let body = match detail {
        Some(detail) => detail.render(&state.metrics, &(state.handlers)()),
        None => json!({"status": "ok"}),
    };
    public(Json(body).into_response(), &headers)
}

pub(super) async fn ready(State(state): State<Arc<ApiState>>, headers: HeaderMap) -> Response {
    let response = match (state.ready)() {
        Ok(()) => Json(json!({"status": "ready"})).into_response(),
        Err(reason) => {
            let body = json!({"status": "not_ready", "reason": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    };
    public(response, &headers)
}

fn public(mut response: Response, headers: &HeaderMap) -> Response {
    no_store(&mut response);
    RequestId::of(headers).put(response.headers_mut());
    response
}

impl HealthDetail {
    /// Counts are of this process and since its start, as `/metrics` has them.
    fn render(&self, metrics: &Metrics, registry: &Value) -> Value {
        let counts = metrics.outcomes();
        let count = |outcomes: &[&str]| -> u64 {
            let wanted = counts
                .iter()
                .filter(|(name, _)| outcomes.contains(&name.as_str()));
            wanted.map(|(_, count)| count).sum()
        };
        let handlers = registry["handlers"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let types = handlers
            .iter()
            .filter_map(|it| it["event_types"].as_array());
        let mut types: Vec<&Value> = types.flatten().collect();
        types.sort_by_key(|name| name.as_str());
        types.dedup();
        let uptime = self
            .clock
            .monotonic()
            .saturating_duration_since(self.started);
        let worker = &self.worker;
        json!({
            "status": "healthy",
            "service": self.service,
            "timestamp": rfc3339(OffsetDateTime::from(self.clock.now())),
            "uptime": uptime.as_secs(),
            "stats": {
                "totalProcessed": counts.values().sum::<u64>(),
                "successCount": count(&["done", "skipped", "duplicate", "unrouted"]),
                "errorCount": count(&["retry"]),
                "deadLetterCount": count(&["dead_lettered"]),
                "lastProcessedAt": metrics.last_event().map(|at| rfc3339(OffsetDateTime::from(at))),
            },
            "config": {
                "pollIntervalMs": u64::try_from(worker.poll_interval.as_millis()).unwrap_or(u64::MAX),
                "batchSize": worker.batch_size,
                "maxRetries": worker.max_retries,
                "pollingEnabled": worker.enabled,
            },
            "registry": {
                "totalHandlers": handlers.len(),
                "eventTypes": types,
            },
        })
    }
}

fn rfc3339(at: OffsetDateTime) -> Option<String> {
    at.replace_nanosecond(at.nanosecond() / 1_000_000 * 1_000_000)
        .unwrap_or(at)
        .format(&Rfc3339)
        .ok()
}
