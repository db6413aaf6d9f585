//! Our own HTTP: the edge every request comes in by, and the routes that are not push.

mod access;
mod admin;
mod connection;
mod edge;
mod error;
mod health;
mod request;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::HeaderMap;

pub use access::ACTOR_HEADER;
pub use edge::{EdgeOptions, Served, serve};
pub use error::ApiError;
pub use health::HealthDetail;

use crate::config::ServerConfig;
use crate::telemetry::{Metrics, RequestId};

/// Tells whether the service can take work, and if not, why, in a constant word or two.
pub type Ready = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

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

/// Returns all routes: `/health`, `/ready`, `/metrics`, `/handlers`, and the given doors.
///
/// Unknown paths (404) and methods (405 with `Allow`) are answered in the shape of [`ApiError`].
pub fn router(state: ApiState, doors: Router) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(admin::metrics))
        .route("/handlers", get(admin::handlers))
        .with_state(Arc::new(state))
        .merge(doors)
        // These go last: they know only the routes that were added before.
        .method_not_allowed_fallback(async |headers: HeaderMap| {
            ApiError::method_not_allowed(RequestId::of(&headers))
        })
        .fallback(async |headers: HeaderMap| ApiError::not_found(RequestId::of(&headers)))
}
