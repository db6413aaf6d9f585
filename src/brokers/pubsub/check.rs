//! Asks Pub/Sub about a topic without publishing to it, for `hookyard check`.

use std::time::Duration;

use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::error::rpc::Code as Rpc;
use google_cloud_gax::options::RequestOptionsBuilder;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_pubsub::client::{SchemaService, TopicAdmin};
use google_cloud_pubsub::retry_policy::RetryableErrors;

use super::{PubsubBroker, failure};
use crate::clock::Deadline;
use crate::error::{Code, Error};

/// The right a publisher needs.
const PUBLISH: &str = "pubsub.topics.publish";

/// Checks that `name` exists and may be published to.
pub(super) async fn topic(
    broker: &PubsubBroker,
    name: &str,
    deadline: &Deadline,
) -> Result<(), Error> {
    let full = broker.full_name(name)?;
    deadline
        .run(ask(broker, name, &full))
        .await
        .map_err(|_| Error::Unpublished {
            topic: name.to_owned(),
            code: Code::new("out_of_time"),
        })?
}

/// Tells whether nobody subscribes to `name`; `None` when that cannot be found out.
pub(super) async fn is_unread(
    broker: &PubsubBroker,
    name: &str,
    deadline: &Deadline,
) -> Option<bool> {
    let full = broker.full_name(name).ok()?;
    let asked = async {
        let admin = admin(broker).await.ok()?;
        let request = admin.list_topic_subscriptions().set_topic(full);
        request.set_page_size(1).send().await.ok()
    };
    let answer = deadline.run(asked).await.ok()??;
    Some(answer.subscriptions.is_empty())
}

async fn admin(broker: &PubsubBroker) -> Result<TopicAdmin, Error> {
    let mut admin = TopicAdmin::builder();
    if let Some(endpoint) = &broker.emulator {
        admin = admin
            .with_endpoint(endpoint)
            .with_credentials(anonymous::Builder::new().build());
    }
    admin.build().await.map_err(|_| failure::no_client())
}

/// Looks the topic up. `roles/pubsub.publisher` does not hold the right to look, so a refusal
/// says little: then the one question anybody may ask is asked, whether we may publish.
async fn ask(broker: &PubsubBroker, name: &str, full: &str) -> Result<(), Error> {
    let admin = admin(broker).await?;
    let found = admin
        .get_topic()
        .set_topic(full)
        .with_retry_policy(RetryableErrors.with_attempt_limit(2))
        .with_attempt_timeout(Duration::from_secs(3))
        .send()
        .await;
    match found {
        Ok(_) if broker.emulator.is_some() => Ok(()),
        Ok(_) => may_publish(name, full).await,
        Err(error)
            if error
                .status()
                .is_some_and(|s| s.code == Rpc::PermissionDenied) =>
        {
            may_publish(name, full).await
        }
        Err(error) => Err(failure::of_question(name, &error)),
    }
}

/// Asks whether these credentials may publish. The question is the same for every kind of Pub/Sub
/// resource, but the library has it with schemas only.
async fn may_publish(name: &str, full: &str) -> Result<(), Error> {
    let iam = SchemaService::builder().build().await;
    let answer = iam
        .map_err(|_| failure::no_client())?
        .test_iam_permissions()
        .set_resource(full)
        .set_permissions([PUBLISH])
        .with_retry_policy(RetryableErrors.with_attempt_limit(2))
        .with_attempt_timeout(Duration::from_secs(3))
        .send()
        .await;
    match answer {
        Ok(answer) if answer.permissions.iter().any(|p| p == PUBLISH) => Ok(()),
        Ok(_) => Err(Error::Unpublished {
            topic: name.to_owned(),
            code: Code::new("publish_not_allowed"),
        }),
        Err(error) => Err(failure::of_question(name, &error)),
    }
}
