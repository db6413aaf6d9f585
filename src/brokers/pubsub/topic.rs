//! The publishers of one topic, and what the client library leaves to us about ordering keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use google_cloud_pubsub::client::{BasePublisher, Publisher};
use google_cloud_pubsub::error::PublishError;
use google_cloud_pubsub::model;

use crate::brokers::Message;

/// How many messages with an ordering key one publisher takes before a fresh one follows it.
///
/// The library keeps a task and a queue for every ordering key it has ever seen (about 1 KiB);
/// with a key per contract that would grow for as long as the service runs.
const MESSAGES_PER_LANE: usize = 10_000;

/// One topic.
pub(super) struct Topic {
    base: BasePublisher,
    name: String,
    lanes: Mutex<Lanes>,
}

/// A publisher with its own background task.
type Lane = Arc<Publisher>;

struct Lanes {
    current: Option<Lane>,
    taken: usize,
    /// Keys with messages on their way, and the lane these went to: the next message of the key
    /// takes the same one, or it could overtake them.
    keys: HashMap<String, (Lane, usize)>,
}

impl Topic {
    /// Prepares a topic by its full name.
    pub(super) fn new(base: BasePublisher, name: String) -> Self {
        Self {
            base,
            name,
            lanes: Mutex::new(Lanes {
                current: None,
                taken: 0,
                keys: HashMap::new(),
            }),
        }
    }

    /// Publishes `message` and waits for the confirmation, as long as the library tries.
    ///
    /// After a failure the library refuses everything else with the same ordering key. Here every
    /// event stands for itself (one that failed is delivered again), so the key is resumed, and a
    /// message that was refused for an earlier one's failure is tried once more.
    pub(super) async fn publish(&self, message: Message) -> Result<String, PublishError> {
        let lease = self.lease(message.ordering_key);
        let mut outgoing = model::Message::new()
            .set_data(message.data)
            .set_attributes(message.attributes);
        if let Some(key) = &lease.key {
            outgoing = outgoing.set_ordering_key(key);
        }
        let mut result = lease.lane.publish(outgoing.clone()).await;
        if matches!(result, Err(PublishError::OrderingKeyPaused)) {
            lease.resume();
            result = lease.lane.publish(outgoing).await;
        }
        match &result {
            Ok(_) => {}
            Err(PublishError::Shutdown) => self.replace(&lease.lane),
            Err(_) => lease.resume(),
        }
        result
    }

    /// Waits until everything handed over so far is confirmed or has failed.
    pub(super) async fn flush(&self) {
        let lanes: Vec<Lane> = {
            let lanes = self.lock();
            let mut all: Vec<Lane> = lanes.current.iter().cloned().collect();
            for (lane, _) in lanes.keys.values() {
                if !all.iter().any(|known| Arc::ptr_eq(known, lane)) {
                    all.push(Arc::clone(lane));
                }
            }
            all
        };
        join_all(lanes.iter().map(|lane| lane.flush())).await;
    }

    fn lease(&self, key: Option<String>) -> Lease<'_> {
        let mut lanes = self.lock();
        let lane = match &key {
            None => self.current(&mut lanes),
            Some(key) => {
                if let Some((lane, count)) = lanes.keys.get_mut(key) {
                    *count += 1;
                    Arc::clone(lane)
                } else {
                    lanes.taken += 1;
                    if lanes.taken > MESSAGES_PER_LANE {
                        lanes.taken = 1;
                        // What is on its way holds the lane until it is confirmed.
                        lanes.current = None;
                    }
                    let lane = self.current(&mut lanes);
                    lanes.keys.insert(key.clone(), (Arc::clone(&lane), 1));
                    lane
                }
            }
        };
        drop(lanes);
        Lease {
            topic: self,
            key,
            lane,
        }
    }

    /// Returns the lane for new keys. Every message is its own request: the library holds a batch
    /// for at least a millisecond, batches per ordering key anyway, and refuses a whole batch for
    /// one bad message in it.
    fn current(&self, lanes: &mut Lanes) -> Lane {
        let fresh = || {
            let publisher = self.base.publisher(&self.name);
            let publisher = publisher.set_message_count_threshold(1_u32);
            Arc::new(publisher.set_delay_threshold(Duration::ZERO).build())
        };
        Arc::clone(lanes.current.get_or_insert_with(fresh))
    }

    /// Forgets a lane whose background task has ended.
    fn replace(&self, dead: &Lane) {
        let mut lanes = self.lock();
        lanes.current = lanes.current.take().filter(|lane| !Arc::ptr_eq(lane, dead));
        lanes.keys.retain(|_, (lane, _)| !Arc::ptr_eq(lane, dead));
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The use of a lane by one message; given back when dropped.
struct Lease<'a> {
    topic: &'a Topic,
    key: Option<String>,
    lane: Lane,
}

impl Lease<'_> {
    fn resume(&self) {
        if let Some(key) = &self.key {
            self.lane.resume_publish(key);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut lanes = self.topic.lock();
        if let Some((lane, count)) = lanes.keys.get_mut(key)
            && Arc::ptr_eq(lane, &self.lane)
        {
            *count -= 1;
            if *count == 0 {
                lanes.keys.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use google_cloud_auth::credentials::anonymous;

    use super::*;

    async fn topic() -> Topic {
        let base = BasePublisher::builder()
            .with_endpoint("http://127.0.0.1:1")
            .with_credentials(anonymous::Builder::new().build());
        Topic::new(
            base.build().await.unwrap(),
            "projects/p-1/topics/t-1".to_owned(),
        )
    }

    #[tokio::test]
    async fn a_key_in_flight_stays_on_its_lane_when_a_fresh_one_starts() {
        let topic = topic().await;
        let first = topic.lease(Some("contract-1".to_owned()));

        for i in 0..MESSAGES_PER_LANE {
            drop(topic.lease(Some(format!("other-{i}"))));
        }
        let same_key = topic.lease(Some("contract-1".to_owned()));
        let other_key = topic.lease(Some("contract-2".to_owned()));

        assert!(Arc::ptr_eq(&first.lane, &same_key.lane));
        assert!(!Arc::ptr_eq(&first.lane, &other_key.lane));
        drop((first, same_key));
        let later = topic.lease(Some("contract-1".to_owned()));
        assert!(Arc::ptr_eq(&later.lane, &other_key.lane));
        assert_eq!(topic.lock().keys.len(), 2);
    }

    #[tokio::test]
    async fn a_lane_that_has_shut_down_is_replaced() {
        let topic = topic().await;
        let first = topic.lease(Some("contract-1".to_owned()));
        topic.replace(&first.lane);

        let second = topic.lease(Some("contract-1".to_owned()));

        assert!(!Arc::ptr_eq(&first.lane, &second.lane));
        drop(first); // must not take the count of the new lane's message
        assert_eq!(topic.lock().keys.len(), 1);
    }
}
