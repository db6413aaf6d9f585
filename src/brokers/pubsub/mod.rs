//! Google Cloud Pub/Sub.

mod check;
mod failure;
mod subscribe;
mod topic;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::exponential_backoff as waits;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_pubsub::client::BasePublisher;
use google_cloud_pubsub::retry_policy::RetryableErrors;

use super::limits::{self, MAX_MESSAGE_BYTES};
use super::{Confirmation, Features, Message, Opened, Publisher, Subscriber};
use crate::clock::Deadline;
use crate::config::BusConfig;
use crate::error::{Code, Error};
use failure::Alerts;
use topic::Topic;

/// Tries of one publication inside the client library, the first included.
const ATTEMPTS: u32 = 3;
/// Time for these tries; the library's own default is ten minutes. A caller that has given up
/// earlier is gone, but messages with the same ordering key wait this long behind a stuck one.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// Publishes to Google Cloud Pub/Sub, or to its emulator.
pub struct PubsubBroker {
    base: BasePublisher,
    project: Option<String>,
    emulator: Option<String>,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
    alerts: Alerts,
}

impl PubsubBroker {
    /// Prepares a client for the topics of `config`: with an emulator host it speaks plain HTTP/2
    /// to that host and sends no credentials, else it uses Application Default Credentials.
    ///
    /// Nothing is sent yet; a wrong topic or missing right shows with the first message or in
    /// [`Publisher::check`].
    ///
    /// # Errors
    /// [`Error::Credentials`] when there are no credentials on this machine, and
    /// [`Error::Unpublished`] with `invalid_topic_name` for a name that cannot be a topic.
    pub async fn connect(config: &BusConfig) -> Result<Self, Error> {
        let backoff = waits::ExponentialBackoffBuilder::new()
            .with_initial_delay(Duration::from_millis(100))
            .with_maximum_delay(Duration::from_secs(2))
            .with_scaling(2.0)
            .clamp();
        let mut builder = BasePublisher::builder()
            .with_retry_policy(
                RetryableErrors
                    .with_attempt_limit(ATTEMPTS)
                    .with_time_limit(RETRY_TIME),
            )
            .with_backoff_policy(backoff);
        let emulator = config.emulator_host.as_ref().map(|host| endpoint(host));
        if let Some(endpoint) = &emulator {
            builder = builder
                .with_endpoint(endpoint)
                .with_credentials(anonymous::Builder::new().build());
        }
        let base = builder.build().await.map_err(|_| failure::no_client())?;
        let broker = Self {
            base,
            project: config.project.clone(),
            emulator,
            topics: Mutex::default(),
            alerts: Alerts::default(),
        };
        // With a database there may be no topic for dead letters.
        let topics = [&config.events_topic, &config.dead_letter_topic];
        for topic in topics.into_iter().filter(|topic| !topic.is_empty()) {
            broker.topic(topic)?;
        }
        Ok(broker)
    }

    /// Tells whether nobody subscribes to `topic`, so that what is published to it is lost; `None`
    /// when these credentials may not look.
    pub async fn is_unread(&self, topic: &str, deadline: &Deadline) -> Option<bool> {
        check::is_unread(self, topic, deadline).await
    }

    /// Returns the publisher of `name`, made when it is first asked for. Names come from the
    /// configuration, so there are few.
    fn topic(&self, name: &str) -> Result<Arc<Topic>, Error> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let full = self.full_name(name)?;
        let topic = Arc::new(Topic::new(self.base.clone(), full));
        topics.insert(name.to_owned(), Arc::clone(&topic));
        Ok(topic)
    }

    /// Returns `projects/…/topics/…` for a short or a full name.
    fn full_name(&self, name: &str) -> Result<String, Error> {
        self.full_name_of("topics", name)
            // Not the message's fault, so it must not become a dead letter.
            .ok_or_else(|| Error::Unpublished {
                topic: name.to_owned(),
                code: Code::new("invalid_topic_name"),
            })
    }

    /// Returns the full name of a topic or subscription; `kind` is the word for it in the name.
    fn full_name_of(&self, kind: &str, name: &str) -> Option<String> {
        let full = match (&self.project, name.starts_with("projects/")) {
            (_, true) => name.to_owned(),
            (Some(project), false) => format!("projects/{project}/{kind}/{name}"),
            (None, false) => return None,
        };
        let parts: Vec<&str> = full.split('/').collect();
        let sound = match parts[..] {
            ["projects", project, word, short] => {
                !project.is_empty() && word == kind && is_name(short)
            }
            _ => false,
        };
        sound.then_some(full)
    }

    async fn send(
        &self,
        name: &str,
        message: Message,
        deadline: &Deadline,
    ) -> Result<String, Error> {
        let topic = self.topic(name)?;
        let message = limits::fit(name, message)?;
        match deadline.run(topic.publish(message)).await {
            Ok(Ok(id)) => Ok(id),
            Ok(Err(error)) => Err(failure::of_publication(
                name,
                &error,
                &self.alerts,
                deadline,
            )),
            Err(_) => Err(Error::Unpublished {
                topic: name.to_owned(),
                code: Code::new("out_of_time"),
            }),
        }
    }
}

impl std::fmt::Debug for PubsubBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PubsubBroker")
            .field("project", &self.project)
            .field("emulator", &self.emulator)
            .finish_non_exhaustive()
    }
}

impl Publisher for PubsubBroker {
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Message,
        deadline: &'a Deadline,
    ) -> Confirmation<'a> {
        Box::pin(self.send(topic, message, deadline))
    }

    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let topics: Vec<Arc<Topic>> = {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.values().cloned().collect()
        };
        Box::pin(async move {
            join_all(topics.iter().map(|topic| topic.flush())).await;
        })
    }

    fn features(&self) -> Features {
        Features {
            ordered: true,
            persistent: true,
            max_message_bytes: MAX_MESSAGE_BYTES,
        }
    }

    fn check<'a>(
        &'a self,
        topic: &'a str,
        deadline: &'a Deadline,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(check::topic(self, topic, deadline))
    }
}

impl Subscriber for PubsubBroker {
    fn subscribe<'a>(&'a self, subscription: &'a str) -> Opened<'a> {
        Box::pin(subscribe::open(self, subscription))
    }
}

/// Returns the URL of an emulator given as `host:port`.
fn endpoint(host: &str) -> String {
    format!("http://{}", host.trim_start_matches("http://"))
}

/// Tells whether Pub/Sub allows `name` for a topic:
/// <https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names>.
fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~+%".contains(&b);
    (3..=255).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphabetic()
        && name.bytes().all(allowed)
        && !name.starts_with("goog")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BusType;

    async fn broker(project: Option<&str>) -> PubsubBroker {
        let config = BusConfig {
            bus_type: BusType::Pubsub,
            project: project.map(str::to_owned),
            events_topic: "projects/p-1/topics/events".to_owned(),
            dead_letter_topic: "projects/p-1/topics/dead".to_owned(),
            emulator_host: Some("127.0.0.1:1".to_owned()),
        };
        PubsubBroker::connect(&config).await.unwrap()
    }

    #[tokio::test]
    async fn topics_may_be_named_short_or_in_full() {
        let broker = broker(Some("here")).await;
        let full = |name| broker.full_name(name).unwrap();
        assert_eq!(full("events"), "projects/here/topics/events");
        assert_eq!(
            full("projects/there/topics/events"),
            "projects/there/topics/events"
        );
    }

    #[tokio::test]
    async fn with_a_database_there_may_be_no_topic_for_dead_letters() {
        let config = BusConfig {
            bus_type: BusType::Pubsub,
            project: Some("p-1".to_owned()),
            events_topic: "events".to_owned(),
            dead_letter_topic: String::new(),
            emulator_host: Some("127.0.0.1:1".to_owned()),
        };
        assert!(PubsubBroker::connect(&config).await.is_ok());
    }

    #[tokio::test]
    async fn what_cannot_be_a_topic_is_not_the_messages_fault() {
        let broker = broker(None).await;
        for name in [
            "events",
            "projects/p/events",
            "projects/p/topics/a b",
            "projects//topics/abc",
        ] {
            let error = broker.full_name(name).unwrap_err();
            assert_eq!(error.code().as_str(), "invalid_topic_name");
            assert_eq!(error.class(), crate::error::Class::Transient);
        }
    }
}
