//! Who has run what: claim, then complete or release.
//!
//! A key is remembered only after its run succeeded. Remembering it before, as a plain "seen"
//! cache does, would drop the redelivery of an event whose first run failed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::watch;

use crate::clock::{Deadline, SharedClock};
use crate::config::DedupeConfig;

/// What is known about one (handler, event id).
pub enum Claim {
    /// Nobody has run it, so the caller does.
    Ours(Guard),
    /// It was completed before.
    Done(Earlier),
    /// Somebody runs it at this moment.
    InFlight(Waiter),
}

/// A run that was completed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// When it was completed.
    pub at: SystemTime,
    /// On which try, from 1.
    pub attempt: u32,
    /// Whether what came then said the same as what comes now.
    pub same_content: bool,
    /// A hash of the id of the message it came in.
    pub message: Option<NonZeroU64>,
    /// Hasura's retry counter then.
    pub hasura_retry: Option<u32>,
}

/// What is remembered of a delivery, to tell repeats apart. `None` where there is nothing to tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// A hash of what the event says.
    pub content: Option<NonZeroU64>,
    /// A hash of the message's id.
    pub message: Option<NonZeroU64>,
    /// Hasura's retry counter.
    pub hasura_retry: Option<u32>,
}

impl Marks {
    /// Tells whether two deliveries may say the same.
    pub fn same_content(&self, other: Option<NonZeroU64>) -> bool {
        match (self.content, other) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        }
    }
}

/// How a run ended, for those who waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was completed: whoever waited holds a duplicate.
    Completed,
    /// It failed or was cut off: the event is still to be done.
    Released,
}

/// A digest of handler name and event id: 16 bytes whatever the length of the id.
type Key = u128;

/// Keys are digests already: any eight bytes of one are as good as a hash of it.
#[derive(Debug, Clone, Copy, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for keys; right all the same.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

type AsIsBuilder = BuildHasherDefault<AsIs>;

/// One running claim, with a channel once somebody waits for it.
type Slot = Option<watch::Sender<Option<Ending>>>;

type Running = HashMap<Key, Slot, AsIsBuilder>;

/// Remembers finished events and guards running ones. Cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    done: Cache<Key, Done, AsIsBuilder>,
    running: Arc<Mutex<Running>>,
    ttl: Duration,
    clock: SharedClock,
}

#[derive(Debug, Clone, Copy)]
struct Done {
    at: Instant,
    attempt: u32,
    marks: Marks,
}

impl Inbox {
    /// Makes an empty inbox.
    pub fn new(config: &DedupeConfig, clock: SharedClock) -> Self {
        let done = Cache::builder()
            .max_capacity(config.capacity)
            .time_to_live(config.ttl)
            // The default policy may refuse a new key in favour of old popular ones; here the
            // newest keys are the ones whose duplicates are still to come.
            .eviction_policy(EvictionPolicy::lru())
            .build_with_hasher(AsIsBuilder::default());
        Self {
            done,
            running: Arc::default(),
            ttl: config.ttl,
            clock,
        }
    }

    /// Asks for the right to run `handler` for the event. `again` asks for it also when it was
    /// completed before.
    pub fn claim(&self, handler: &str, id: &str, marks: Marks, again: bool) -> Claim {
        let key = key(handler, id);
        let mut running = self.running();
        if let Some(slot) = running.get_mut(&key) {
            let sender = slot.get_or_insert_with(|| watch::channel(None).0);
            return Claim::InFlight(Waiter(sender.subscribe()));
        }
        // Looked up under the lock: a run remembers its key before it gives up its place.
        if !again && let Some(done) = self.done.get(&key) {
            let age = self.clock.monotonic().saturating_duration_since(done.at);
            if age < self.ttl {
                let now = self.clock.now();
                return Claim::Done(Earlier {
                    at: now.checked_sub(age).unwrap_or(now),
                    attempt: done.attempt,
                    same_content: marks.same_content(done.marks.content),
                    message: done.marks.message,
                    hasura_retry: done.marks.hasura_retry,
                });
            }
        }
        running.insert(key, None);
        drop(running);
        Claim::Ours(Guard {
            inbox: self.clone(),
            key,
            marks,
            ending: Ending::Released,
        })
    }

    /// Returns how many finished ids are remembered.
    pub fn remembered(&self) -> u64 {
        self.done.run_pending_tasks();
        self.done.entry_count()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to run. Dropped without [`Guard::complete`] (error, panic, cut off by the deadline)
/// it is given back, and the next delivery runs again.
pub struct Guard {
    inbox: Inbox,
    key: Key,
    marks: Marks,
    ending: Ending,
}

impl Guard {
    /// Remembers the event as done, on this try.
    pub fn complete(self, attempt: u32) {
        let marks = self.marks;
        let at = self.inbox.clock.monotonic();
        self.remember(Done { at, attempt, marks });
    }

    /// Ends the run without remembering it: a row of a table does not come again by itself.
    pub fn forget(mut self) {
        self.ending = Ending::Completed;
    }

    /// Remembers that the event was done before, as somebody else knows.
    pub fn was_completed(self, earlier: &Earlier, content: Option<NonZeroU64>) {
        let clock = &self.inbox.clock;
        let age = clock.now().duration_since(earlier.at).unwrap_or_default();
        let now = clock.monotonic();
        let done = Done {
            at: now.checked_sub(age).unwrap_or(now),
            attempt: earlier.attempt,
            marks: Marks {
                content,
                message: earlier.message,
                hasura_retry: earlier.hasura_retry,
            },
        };
        self.remember(done);
    }

    fn remember(mut self, done: Done) {
        self.inbox.done.insert(self.key, done);
        self.ending = Ending::Completed;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let waiters = self.inbox.running().remove(&self.key).flatten();
        if let Some(waiters) = waiters {
            waiters.send_replace(Some(self.ending));
        }
    }
}

/// Waits for somebody else's run.
pub struct Waiter(watch::Receiver<Option<Ending>>);

impl Waiter {
    /// Waits for the ending, at most until `deadline`; `None` when it is still running then.
    pub async fn ending(mut self, deadline: &Deadline) -> Option<Ending> {
        let ended = deadline.run(self.0.wait_for(Option::is_some)).await.ok()?;
        Some(ended.map_or(Ending::Released, |ending| {
            ending.unwrap_or(Ending::Released)
        }))
    }
}

/// Cryptographic, so that nobody can craft an id that hides another event.
fn key(handler: &str, id: &str) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(handler.as_bytes());
    context.update(&[0]);
    context.update(id.as_bytes());
    let digest = context.finish();
    digest
        .as_ref()
        .iter()
        .take(16)
        .fold(0, |key, byte| key << 8 | Key::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn says(content: u64) -> Marks {
        Marks {
            content: NonZeroU64::new(content),
            ..Marks::default()
        }
    }

    fn inbox(capacity: u64) -> (Inbox, Arc<ManualClock>) {
        let clock = ManualClock::start();
        let config = DedupeConfig {
            ttl: Duration::from_secs(60),
            capacity,
        };
        (Inbox::new(&config, clock.clone()), clock)
    }

    #[test]
    fn a_claim_that_was_dropped_can_be_taken_again() {
        let (inbox, _) = inbox(10);
        drop(inbox.claim("h", "e", says(1), false));
        assert!(matches!(
            inbox.claim("h", "e", says(1), false),
            Claim::Ours(_)
        ));
    }

    #[test]
    fn a_completed_claim_is_done_for_its_handler_only() {
        let (inbox, _) = inbox(10);
        let Claim::Ours(guard) = inbox.claim("h", "e", says(1), false) else {
            panic!("not ours")
        };
        guard.complete(1);
        assert!(matches!(
            inbox.claim("h", "e", says(1), false),
            Claim::Done(Earlier {
                same_content: true,
                ..
            })
        ));
        assert!(matches!(
            inbox.claim("h", "e", says(2), false),
            Claim::Done(Earlier {
                same_content: false,
                ..
            })
        ));
        assert!(matches!(
            inbox.claim("other", "e", says(1), false),
            Claim::Ours(_)
        ));
    }

    #[test]
    fn a_key_is_forgotten_after_its_time() {
        let (inbox, clock) = inbox(10);
        let Claim::Ours(guard) = inbox.claim("h", "e", says(1), false) else {
            panic!("not ours")
        };
        guard.complete(1);
        clock.advance(Duration::from_secs(61));
        assert!(matches!(
            inbox.claim("h", "e", says(1), false),
            Claim::Ours(_)
        ));
    }

    #[test]
    fn the_number_of_remembered_keys_is_bounded() {
        let (inbox, _) = inbox(10);
        for n in 0..100 {
            if let Claim::Ours(guard) = inbox.claim("h", &n.to_string(), says(1), false) {
                guard.complete(1);
            }
        }
        assert!(inbox.remembered() <= 10);
        assert!(
            matches!(inbox.claim("h", "99", says(1), false), Claim::Done(_)),
            "newest are kept"
        );
    }

    #[tokio::test]
    async fn waiters_learn_that_the_run_was_given_up() {
        let (inbox, clock) = inbox(10);
        let guard = inbox.claim("h", "e", says(1), false);
        let Claim::InFlight(waiter) = inbox.claim("h", "e", says(1), false) else {
            panic!("free")
        };
        drop(guard);
        let shared: SharedClock = clock;
        let deadline = Deadline::after(&shared, Duration::from_secs(5));
        assert_eq!(waiter.ending(&deadline).await, Some(Ending::Released));
    }
}
