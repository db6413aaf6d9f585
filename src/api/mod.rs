//! Our own HTTP: the edge every request comes in by, and the routes that are not push.

mod access;
mod admin;
mod connection;
mod dead_letters;
mod edge;
mod error;
mod fields;
mod health;
mod inquiry;
mod redrives;
mod request;
mod work;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::HeaderMap;

pub use access::ACTOR_HEADER;
pub use edge::{EdgeOptions, Served, serve};
pub use error::ApiError;
pub use health::HealthDetail;
pub use work::Asked;

use self::access::Caller;
use crate::config::ServerConfig;
use crate::desk::Desk;
use crate::error::Result;
use crate::telemetry::{Metrics, RequestId};

/// Tells whether the service can take work, and if not, why, in a constant word or two.
pub type Ready = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Something to wait for.
type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Begins to run one event of the table, by its id or its row's.
pub type ProcessEvent = Arc<dyn Fn(String) -> Later<Result<Asked>> + Send + Sync>;

/// Begins to run what is due in the table.
pub type ProcessBatch = Arc<dyn Fn() + Send + Sync>;

/// What the routes need that are there only with a database.
#[derive(Clone)]
pub struct DeskApi {
    /// Answers questions about failed events.
    pub desk: Desk,
    /// `POST /process-event`.
    pub process_event: ProcessEvent,
    /// `POST /process-batch`.
    pub process_batch: ProcessBatch,
}

impl DeskApi {
    /// Returns it, or 501 without a database.
    fn of<'a>(state: &'a ApiState, caller: &Caller) -> Result<&'a Self, ApiError> {
        let desk = state.desk.as_ref();
        desk.ok_or_else(|| ApiError::needs_database(caller.request_id.clone()))
    }
}

/// What the routes need.
#[derive(Clone)]
pub struct ApiState {
    /// Holds the admin token.
    pub server: ServerConfig,
    /// Shown at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Brings the metrics up to date before they are rendered.
    pub before_metrics: Arc<dyn Fn() + Send + Sync>,
    /// Renders the registry for `/handlers`.
    pub handlers: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// What `/health` tells the operator.
    pub detail: Option<HealthDetail>,
    /// What is there only with a database.
    pub desk: Option<DeskApi>,
    /// Decides about `/ready`; called on every request there, so it must be quick.
    pub ready: Ready,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState")
            .field("ready", &(self.ready)())
            .finish_non_exhaustive()
    }
}

/// Returns all routes of ours, which docs/API.md describes, and the given doors.
///
/// Unknown paths (404) and methods (405 with `Allow`) are answered in the shape of [`ApiError`].
pub fn router(state: ApiState, doors: Router) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(admin::metrics))
        .route("/handlers", get(admin::handlers))
        .route("/status", get(inquiry::status))
        .route("/explain/{id}", get(inquiry::explain))
        .route("/audit", get(inquiry::audit))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/groups", get(dead_letters::groups))
        .route("/dead-letters/redrive", post(dead_letters::redrive))
        .route("/dead-letters/discard", post(dead_letters::discard))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route(
            "/dead-letters/{id}/redrive",
            post(dead_letters::redrive_one),
        )
        .route(
            "/dead-letters/{id}/discard",
            post(dead_letters::discard_one),
        )
        .route("/dead-letters/{id}/edit", post(dead_letters::edit))
        .route("/redrives", get(redrives::list))
        .route("/redrives/{id}", get(redrives::show))
        .route("/redrives/{id}/abort", post(redrives::abort))
        .route("/replay", post(redrives::replay))
        .route("/erasures", post(redrives::erase))
        .route("/process-event", post(work::process_event))
        .route("/process-batch", post(work::process_batch))
        .with_state(Arc::new(state))
        .merge(doors)
        // These go last: they know only the routes that were added before.
        .method_not_allowed_fallback(async |headers: HeaderMap| {
            ApiError::method_not_allowed(RequestId::of(&headers))
        })
        .fallback(async |headers: HeaderMap| ApiError::not_found(RequestId::of(&headers)))
}
