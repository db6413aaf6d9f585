//! Bounds the number of events worked on at once; who does not get in is told to come again.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of places.
#[derive(Debug, Clone)]
pub struct Gate {
    places: Arc<Semaphore>,
    size: usize,
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Gate {
    /// Makes a gate with `size` places.
    pub fn new(size: usize) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(size)),
            size,
        }
    }

    /// Takes a place if there is one; never waits.
    pub fn enter(&self) -> Option<Permit> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.ok().map(Permit)
    }

    /// Returns how many places are taken.
    pub fn in_flight(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }

    /// Returns the answer to whoever did not get in: 503, `Retry-After: 1`, no body.
    pub fn full() -> Response {
        let retry_after = (RETRY_AFTER, HeaderValue::from_static("1"));
        (StatusCode::SERVICE_UNAVAILABLE, [retry_after]).into_response()
    }
}
