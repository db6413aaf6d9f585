//! What the stand-ins saw: an append-only list of every request and what it changed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{lock, rfc3339};

/// Entries kept; older ones are forgotten in a sandbox that runs for days.
const KEPT: usize = 200_000;

/// What a request did to its stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// It changed a row.
    Effect,
    /// It wrote what was there already.
    Nothing,
    /// It only read.
    Read,
    /// It was answered from memory because its idempotency key was known.
    Replay,
    /// It was refused.
    Refused,
    /// A fault kept it from being looked at.
    Lost,
}

/// One request as its stand-in saw it.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// When it arrived.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: SystemTime,
    /// `chargebee`, `hasura` or `jwks`.
    pub upstream: &'static str,
    /// Method and path; for GraphQL the operation's name.
    pub request: String,
    /// What it was about: the id of a subscription, customer or contract.
    pub subject: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// Hash of path and body.
    pub hash: u64,
    /// What it did.
    pub did: Did,
    /// The status it was meant to be answered with; a fault may have lost that answer.
    pub status: u16,
    /// The fault it met.
    pub fault: Option<&'static str>,
}

fn as_rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// The journal of all stand-ins of one sandbox. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<VecDeque<Entry>>>);

impl Journal {
    /// Makes an empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn write(&self, entry: Entry) {
        let mut entries = lock(&self.0);
        if entries.len() == KEPT {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Returns everything so far, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.0).iter().cloned().collect()
    }

    /// Returns what came from one upstream, oldest first.
    pub fn of(&self, upstream: &str) -> Vec<Entry> {
        let entries = lock(&self.0);
        entries
            .iter()
            .filter(|entry| entry.upstream == upstream)
            .cloned()
            .collect()
    }

    /// Returns how many requests did `what`.
    pub fn count(&self, what: Did) -> usize {
        lock(&self.0)
            .iter()
            .filter(|entry| entry.did == what)
            .count()
    }

    /// Forgets everything, for a test that looks at one step at a time.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
}
