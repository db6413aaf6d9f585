//! What the worker does when the database is away: it says so once, and waits a little.

use std::time::Duration;

use futures_util::FutureExt;

use super::foreman::Foreman;
use crate::error::Error;

/// The wait after the database was away.
const AWAY: Duration = Duration::from_millis(500);

impl Foreman {
    pub(super) fn is_away(&mut self, error: Error) {
        if self.away.is_none() {
            let code = error.code();
            tracing::warn!(
                error.code = code.as_str(),
                "the events table is not reached"
            );
        }
        self.away = Some(error);
        self.waiting = Some(tokio::time::sleep(AWAY).boxed());
    }

    pub(super) fn is_back(&mut self) {
        if self.away.take().is_some() {
            tracing::info!("the events table is reached again");
        }
    }
}
