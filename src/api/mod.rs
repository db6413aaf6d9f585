//! Our own HTTP: the edge every request comes in by, and the routes that are not push.

mod admin;
mod body;
mod connection;
mod edge;
mod error;
mod gate;
mod health;
mod request_id;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;

pub use body::{BodyError, check_headers, read_body};
pub use edge::{EdgeOptions, Served, serve};
pub use error::ApiError;
pub use gate::{Gate, Permit};
pub use health::Readiness;
pub use request_id::{RequestId, X_REQUEST_ID};

use crate::config::ServerConfig;
use crate::telemetry::Metrics;

/// What the routes need.
#[derive(Clone)]
pub struct ApiState {
    /// Holds the admin token.
    pub server: Arc<ServerConfig>,
    /// Shown at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Renders the registry for `/handlers`.
    pub handlers: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Decides about `/ready`.
    pub readiness: Readiness,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// Returns the routes `/health`, `/ready`, `/metrics` and `/handlers`; merge the doors into it
/// and pass all of it to [`with_fallbacks`].
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(admin::metrics))
        .route("/handlers", get(admin::handlers))
        .with_state(state)
}

/// Answers unknown paths (404) and methods (405 with `Allow`) in the shape of [`ApiError`].
///
/// Goes last: it knows only the routes that were added before.
pub fn with_fallbacks(router: Router) -> Router {
    router
        .method_not_allowed_fallback(|id: RequestId| async { ApiError::method_not_allowed(id) })
        .fallback(|id: RequestId| async { ApiError::not_found(id) })
}
