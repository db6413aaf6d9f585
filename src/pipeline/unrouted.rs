//! Events nobody takes: counted, shown, and logged now and then instead of every time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::Event;

/// Log lines for one trigger are at least this far apart.
const QUIET: Duration = Duration::from_secs(60);

/// How many kinds are told apart; event types come from outside and must not fill the memory.
const KINDS: usize = 200;

/// Counts what nobody takes.
#[derive(Debug, Default)]
pub(super) struct Unrouted(Mutex<BTreeMap<(String, String), Entry>>);

#[derive(Debug)]
struct Entry {
    count: u64,
    logged: Instant,
}

/// One kind of event nobody takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnroutedInfo {
    /// The event type.
    pub event_type: String,
    /// The Hasura trigger, empty for domain events.
    pub trigger: String,
    /// How many came since the start.
    pub count: u64,
}

impl Unrouted {
    /// Counts an event and tells whether it should be logged.
    pub(super) fn count(&self, event: &Event, now: Instant) -> bool {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trigger = event.trigger.as_deref().unwrap_or_default();
        let mut key = (clip(event.event_type.as_str()), clip(trigger));
        if entries.len() >= KINDS && !entries.contains_key(&key) {
            key = ("(others)".to_owned(), String::new());
        }
        let Some(entry) = entries.get_mut(&key) else {
            entries.insert(
                key,
                Entry {
                    count: 1,
                    logged: now,
                },
            );
            return true;
        };
        entry.count += 1;
        let due = now.saturating_duration_since(entry.logged) >= QUIET;
        if due {
            entry.logged = now;
        }
        due
    }

    /// Lists what was counted.
    pub(super) fn list(&self) -> Vec<UnroutedInfo> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let info = |((event_type, trigger), entry): (&(String, String), &Entry)| UnroutedInfo {
            event_type: event_type.clone(),
            trigger: trigger.clone(),
            count: entry.count,
        };
        entries.iter().map(info).collect()
    }
}

fn clip(text: &str) -> String {
    text.chars().take(120).collect()
}
