//! Who has run what: claim, then complete or release.
//!
//! A key is remembered only after its run succeeded. Remembering it before, as a plain "seen"
//! cache does, would drop the redelivery of an event whose first run failed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    Done {
        /// Whether what came then said the same as what comes now.
        same_content: bool,
    },
    /// Somebody runs it at this moment.
    InFlight(Waiter),
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
    fingerprint: u64,
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

    /// Asks for the right to run `handler` for the event.
    pub fn claim(&self, handler: &str, id: &str, fingerprint: u64) -> Claim {
        let key = key(handler, id);
        let mut running = self.running();
        if let Some(slot) = running.get_mut(&key) {
            let sender = slot.get_or_insert_with(|| watch::channel(None).0);
            return Claim::InFlight(Waiter(sender.subscribe()));
        }
        // Looked up under the lock: a run remembers its key before it gives up its place.
        if let Some(done) = self.done.get(&key)
            && self.clock.monotonic().saturating_duration_since(done.at) < self.ttl
        {
            return Claim::Done {
                same_content: done.fingerprint == fingerprint,
            };
        }
        running.insert(key, None);
        drop(running);
        Claim::Ours(Guard {
            inbox: self.clone(),
            key,
            fingerprint,
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
    fingerprint: u64,
    ending: Ending,
}

impl Guard {
    /// Remembers the event as done.
    pub fn complete(mut self) {
        let at = self.inbox.clock.monotonic();
        self.inbox.done.insert(
            self.key,
            Done {
                at,
                fingerprint: self.fingerprint,
            },
        );
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
        drop(inbox.claim("h", "e", 1));
        assert!(matches!(inbox.claim("h", "e", 1), Claim::Ours(_)));
    }

    #[test]
    fn a_completed_claim_is_done_for_its_handler_only() {
        let (inbox, _) = inbox(10);
        let Claim::Ours(guard) = inbox.claim("h", "e", 1) else {
            panic!("not ours")
        };
        guard.complete();
        assert!(matches!(
            inbox.claim("h", "e", 1),
            Claim::Done { same_content: true }
        ));
        assert!(matches!(
            inbox.claim("h", "e", 2),
            Claim::Done {
                same_content: false
            }
        ));
        assert!(matches!(inbox.claim("other", "e", 1), Claim::Ours(_)));
    }

    #[test]
    fn a_key_is_forgotten_after_its_time() {
        let (inbox, clock) = inbox(10);
        let Claim::Ours(guard) = inbox.claim("h", "e", 1) else {
            panic!("not ours")
        };
        guard.complete();
        clock.advance(Duration::from_secs(61));
        assert!(matches!(inbox.claim("h", "e", 1), Claim::Ours(_)));
    }

    #[test]
    fn the_number_of_remembered_keys_is_bounded() {
        let (inbox, _) = inbox(10);
        for n in 0..100 {
            if let Claim::Ours(guard) = inbox.claim("h", &n.to_string(), 1) {
                guard.complete();
            }
        }
        assert!(inbox.remembered() <= 10);
        assert!(
            matches!(inbox.claim("h", "99", 1), Claim::Done { .. }),
            "newest are kept"
        );
    }

    #[tokio::test]
    async fn waiters_learn_that_the_run_was_given_up() {
        let (inbox, clock) = inbox(10);
        let guard = inbox.claim("h", "e", 1);
        let Claim::InFlight(waiter) = inbox.claim("h", "e", 1) else {
            panic!("free")
        };
        drop(guard);
        let shared: SharedClock = clock;
        let deadline = Deadline::after(&shared, Duration::from_secs(5));
        assert_eq!(waiter.ending(&deadline).await, Some(Ending::Released));
    }
}
