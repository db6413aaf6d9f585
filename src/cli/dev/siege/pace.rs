//! The history's own time, which stands still while the services cannot keep up: on a busy machine
//! blows have to fall among the work, not before it.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks at the backlog.
const GLANCE: Duration = Duration::from_millis(20);

/// The longest that all waits may take together: who does not catch up will not.
const MOST: Duration = Duration::from_secs(240);

/// When what happens in the history happens.
#[derive(Debug)]
pub(in crate::cli::dev) struct Pace {
    started: Instant,
    held: Cell<Duration>,
}

impl Pace {
    /// The history begins now.
    pub(in crate::cli::dev) fn start() -> Self {
        Self {
            started: Instant::now(),
            held: Cell::default(),
        }
    }

    /// Tells whether that moment of the history has come.
    pub(super) fn is_due(&self, at: Duration) -> bool {
        self.started + at + self.held.get() <= Instant::now()
    }

    /// Waits for a moment of the history.
    pub(in crate::cli::dev) async fn reach(&self, at: Duration) {
        while !self.is_due(at) {
            tokio::time::sleep_until(self.started + at + self.held.get()).await;
        }
    }

    /// Lets the time stand still while there is too much to do.
    pub(in crate::cli::dev) async fn hold_while(&self, too_much: impl Fn() -> bool) {
        while too_much() && self.held.get() < MOST {
            tokio::time::sleep(GLANCE).await;
            self.held.set(self.held.get() + GLANCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_history_waits_for_who_cannot_keep_up() {
        let pace = Pace::start();
        let looks = Cell::new(0);
        pace.hold_while(|| looks.replace(looks.get() + 1) < 3).await;

        assert_eq!(pace.held.get(), GLANCE * 3);
        assert!(pace.is_due(Duration::ZERO));
        assert!(!pace.is_due(Duration::from_secs(60)));
    }
}
