//! `GET /health`: is the process alive; `GET /ready`: can it take work. Both are public.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ApiState;
use super::request_id::RequestId;

type Check = Arc<dyn Fn() -> bool + Send + Sync>;

/// What has to be true for the service to take work.
#[derive(Clone)]
pub struct Readiness {
    shutdown: CancellationToken,
    checks: Vec<(&'static str, Check)>,
}

impl Readiness {
    /// Ready until `shutdown`.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            checks: Vec::new(),
        }
    }

    /// Adds a condition; while `holds` says false, `reason` is shown, a constant word such as
    /// `keys_not_fetched`. It is called on every request, so it must be quick.
    #[must_use]
    pub fn unless(
        mut self,
        reason: &'static str,
        holds: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        self.checks.push((reason, Arc::new(holds)));
        self
    }

    /// Returns why the service cannot take work; empty when it can.
    pub fn reasons(&self) -> Vec<&'static str> {
        let stopping = self.shutdown.is_cancelled().then_some("shutting_down");
        let failed = self.checks.iter().filter(|(_, holds)| !holds());
        stopping
            .into_iter()
            .chain(failed.map(|(reason, _)| *reason))
            .collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.reasons()).finish()
    }
}

pub(super) async fn health(id: RequestId) -> Response {
    let mut response = Json(json!({"status": "ok"})).into_response();
    id.stamp(&mut response);
    response
}

pub(super) async fn ready(State(state): State<ApiState>, id: RequestId) -> Response {
    let reasons = state.readiness.reasons();
    let mut response = if reasons.is_empty() {
        Json(json!({"status": "ready"})).into_response()
    } else {
        let body = json!({"status": "not_ready", "reasons": reasons});
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    };
    id.stamp(&mut response);
    response
}
