//! Ordering: messages of one key wait in a lane, and only its head is delivered.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use super::delivery::Job;
use crate::sandbox::lock;

/// Lanes by subscription and ordering key.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<(String, String), VecDeque<Job>>>);

impl Lanes {
    /// Puts a message into its lane and tells whether it may be delivered at once.
    pub(super) fn enter(&self, subscription: &str, key: &str, job: &Job) -> bool {
        let mut lanes = lock(&self.0);
        let lane = lanes
            .entry((subscription.to_owned(), key.to_owned()))
            .or_default();
        lane.push_back(job.clone());
        lane.len() == 1
    }

    /// Takes the head out of its lane and returns the next one to be delivered.
    pub(super) fn leave(&self, subscription: &str, key: &str) -> Option<Job> {
        let mut lanes = lock(&self.0);
        let name = (subscription.to_owned(), key.to_owned());
        let lane = lanes.get_mut(&name)?;
        lane.pop_front();
        let next = lane.front().cloned();
        if next.is_none() {
            lanes.remove(&name);
        }
        next
    }
}
