//! Dead letters: is there a topic, does anything keep what comes there, may Pub/Sub put it there?

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::report::{Finding, word};
use super::iam::{ACKNOWLEDGE, Member, PUBLISH, Project, Right};
use super::subscription::{Subscription, project_of, short};
use super::{Google, Unseen};

#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    subscriptions: Vec<String>,
}

/// Writes the command that keeps what is published to a topic, by a subscription of its name.
pub(in super::super) fn keep(topic: &str, project: &str) -> String {
    format!(
        "gcloud pubsub subscriptions create {topic} --topic={topic} --project={project} \
         --expiration-period=never --ack-deadline=600 --message-retention-duration=7d"
    )
}

/// Checks that something keeps what is published to `topic` (its full name).
pub(super) async fn kept(google: &Google, topic: &str) -> Vec<Finding> {
    const CHECK: &str = "dead-letter subscription";
    let (project, name) = (project_of(topic).unwrap_or_default(), short(topic));
    let path = format!("/{topic}/subscriptions");
    // The emulator lists the subscriptions of a topic that does not exist, so it is asked first.
    let exists: Result<IgnoredAny, Unseen> = google.pubsub.get(project, &format!("/{topic}")).await;
    let names: Result<Names, Unseen> = match exists {
        Ok(_) => google.pubsub.get(project, &path).await,
        Err(unseen) => Err(unseen),
    };
    let names = match names {
        Ok(names) => names,
        Err(Unseen::Absent) => {
            let advice = "a dead letter has nowhere to go: the event comes again for ever";
            let command = format!("gcloud pubsub topics create {name} --project={project}");
            let finding = Finding::failed("dead-letter topic", "does not exist", advice);
            return vec![finding.of(name).mend(command)];
        }
        Err(unseen) => return vec![unseen.skip(CHECK).of(name)],
    };
    if names.subscriptions.is_empty() {
        let advice = "what is published to a topic without a subscription is gone";
        let finding = Finding::failed(CHECK, "there is none", advice);
        return vec![finding.of(name).mend(keep(name, project))];
    }
    let mut expiring = None;
    for full in &names.subscriptions {
        let home = project_of(full).unwrap_or(project);
        let found: Result<Subscription, _> = google.pubsub.get(home, &format!("/{full}")).await;
        match found {
            // One that stays is enough.
            Ok(subscription) if !subscription.expires() => {
                let found = format!("`{}` keeps them", short(full));
                return vec![Finding::ok(CHECK, found).of(name)];
            }
            Ok(_) => expiring = Some(full),
            Err(_) => {}
        }
    }
    let Some(full) = expiring else {
        return vec![Finding::ok(CHECK, "there is one").of(name)];
    };
    let (home, of) = (project_of(full).unwrap_or(project), short(full));
    let advice =
        "hardly anybody uses it, so that Pub/Sub deletes it one day, with all dead letters";
    let command = format!(
        "gcloud pubsub subscriptions update {of} --project={home} --expiration-period=never"
    );
    let finding = Finding::failed(CHECK, format!("`{of}` expires when it is idle"), advice);
    vec![finding.of(name).mend(command)]
}

/// Checks that Pub/Sub itself may move what it gives up on: publish there, acknowledge here.
pub(super) async fn rights(
    google: &Google,
    subscription: &Subscription,
    project: &Project<'_>,
) -> Vec<Finding> {
    let Some(policy) = &subscription.dead_letter_policy else {
        return Vec::new();
    };
    let agent = project.pubsub_agent().await;
    let topic = &policy.dead_letter_topic;
    let publish = Right {
        check: "Pub/Sub's right to publish",
        subject: short(topic),
        who: &agent,
        name: "Pub/Sub's service agent",
        roles: PUBLISH,
        breaks: "an event that used up its attempts cannot be put away and is delivered for ever",
        grant: grant("topics", topic),
    };
    let acknowledge = Right {
        check: "Pub/Sub's right to acknowledge",
        subject: short(&subscription.name),
        who: &agent,
        name: "Pub/Sub's service agent",
        roles: ACKNOWLEDGE,
        breaks: "an event that was put away as a dead letter is still delivered again",
        grant: grant("subscriptions", &subscription.name),
    };
    let mut findings = Vec::new();
    for (right, on) in [(publish, topic), (acknowledge, &subscription.name)] {
        findings.push(judge(google, &right, on, project).await);
    }
    findings
}

/// Checks that the account of the service may publish to a topic.
pub(super) async fn publisher(
    google: &Google,
    topic: &str,
    account: &str,
    project: &Project<'_>,
) -> Finding {
    let right = Right {
        check: "service's right to publish",
        subject: short(topic),
        who: &Member::Account(account.to_owned()),
        name: "the service's account",
        roles: PUBLISH,
        breaks: "the service answers 503 to every event it has something to publish for",
        grant: grant("topics", topic),
    };
    judge(google, &right, topic, project).await
}

async fn judge(google: &Google, right: &Right<'_>, on: &str, project: &Project<'_>) -> Finding {
    let home = project_of(on).unwrap_or(&project.id);
    let path = format!("/{on}:getIamPolicy");
    let policy = google.pubsub_rights.get(home, &path).await;
    if home == project.id {
        right.judge(&policy, project).await
    } else {
        right.judge(&policy, &Project::new(google, home)).await
    }
}

fn grant(kind: &str, full: &str) -> String {
    let project = project_of(full).unwrap_or_default();
    let name = word(short(full));
    format!("gcloud pubsub {kind} add-iam-policy-binding {name} --project={project}")
}
