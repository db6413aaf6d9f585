//! `hookyard check` on the push subscription, dead letters and accounts.

use serde_json::json;

use crate::check_case::{Bench, Case, failed, skipped, warned};
use crate::check_world::{CANARY, URI};

const PUSH_CONFIG: &str = "gcloud pubsub subscriptions modify-push-config contract-events-hookyard \
     --project=P --push-endpoint=https://hookyard-abc-ew.a.run.app/push \
     --push-auth-service-account=hookyard-push@P.iam.gserviceaccount.com \
     --push-auth-token-audience=hookyard.acme";

const SUBSCRIPTION: &[Case] = &[
    failed(
        "subscription is missing",
        |w| {
            w.subscriptions.remove("contract-events-hookyard");
        },
        "subscription",
        "gcloud pubsub subscriptions create contract-events-hookyard --topic=TOPIC --project=P \
         --push-endpoint=https://hookyard-abc-ew.a.run.app/push",
    ),
    failed(
        "subscription is found by itself, and there is none",
        |w| {
            w.subscriptions.remove("contract-events-hookyard");
            w.variables.remove("PUSH_SUBSCRIPTION");
        },
        "subscription",
        "gcloud pubsub subscriptions create SUBSCRIPTION --topic=TOPIC --project=P",
    ),
    failed(
        "topic of the subscription was deleted",
        |w| w.deleted.push("contract-events"),
        "subscription",
        "gcloud pubsub subscriptions delete contract-events-hookyard --project=P",
    ),
    failed(
        "pull instead of push",
        |w| w.push()["pushConfig"] = json!({}),
        "push endpoint",
        PUSH_CONFIG,
    ),
    failed(
        "endpoint without /push",
        |w| w.push()["pushConfig"]["pushEndpoint"] = format!("{URI}/?token={CANARY}").into(),
        "push endpoint",
        PUSH_CONFIG,
    ),
    warned(
        "endpoint of another service",
        |w| w.push()["pushConfig"]["pushEndpoint"] = "https://other.example/push".into(),
        "push endpoint",
        PUSH_CONFIG,
    ),
    warned(
        "endpoint of one revision",
        |w| {
            let tagged = URI.replace("https://", "https://candidate---");
            w.push()["pushConfig"]["pushEndpoint"] = format!("{tagged}/push").into();
        },
        "push endpoint",
        PUSH_CONFIG,
    ),
    failed(
        "no token",
        |w| {
            let push = w.push()["pushConfig"].as_object_mut().unwrap();
            push.remove("oidcToken");
        },
        "push token",
        PUSH_CONFIG,
    ),
    failed(
        "another audience",
        |w| w.push()["pushConfig"]["oidcToken"]["audience"] = "another".into(),
        "push audience",
        PUSH_CONFIG,
    ),
    failed(
        "another account",
        |w| {
            let other = format!("other@{}.iam.gserviceaccount.com", w.project);
            let known = w.answers.clone();
            for (path, answer) in known
                .iter()
                .filter(|(path, _)| path.starts_with("/accounts/"))
            {
                w.answers
                    .insert(path.replace("hookyard-push", "other"), answer.clone());
            }
            w.push()["pushConfig"]["oidcToken"]["serviceAccountEmail"] = other.into();
        },
        "push account",
        PUSH_CONFIG,
    ),
    failed(
        "ack deadline below the handlers' timeout",
        |w| w.push()["ackDeadlineSeconds"] = 10.into(),
        "ack deadline",
        "gcloud pubsub subscriptions update contract-events-hookyard --project=P --ack-deadline=60",
    ),
    failed(
        "ack deadline below ACK_DEADLINE_MS",
        |w| w.push()["ackDeadlineSeconds"] = 55.into(),
        "ack deadline",
        "--ack-deadline=60",
    ),
    warned(
        "ack deadline above ACK_DEADLINE_MS",
        |w| w.push()["ackDeadlineSeconds"] = 600.into(),
        "ack deadline",
        "--ack-deadline=60",
    ),
    failed(
        "no retry policy",
        |w| {
            w.push().as_object_mut().unwrap().remove("retryPolicy");
        },
        "retry policy",
        "--min-retry-delay=10s --max-retry-delay=600s",
    ),
    warned(
        "attempts that are used up in minutes",
        |w| w.push()["deadLetterPolicy"]["maxDeliveryAttempts"] = 5.into(),
        "retry policy",
        "--max-delivery-attempts=100 --dead-letter-topic=projects/P/topics/hookyard-dead",
    ),
    failed(
        "subscription expires",
        |w| w.push()["expirationPolicy"] = json!({"ttl": "2678400s"}),
        "expiration",
        "--expiration-period=never",
    ),
    failed(
        "no dead-letter policy",
        |w| {
            w.push().as_object_mut().unwrap().remove("deadLetterPolicy");
        },
        "dead-letter policy",
        "--dead-letter-topic=projects/P/topics/hookyard-dead --max-delivery-attempts=100",
    ),
    failed(
        "dead letters come back",
        |w| {
            let topic = w.topic("contract-events");
            w.push()["deadLetterPolicy"]["deadLetterTopic"] = topic.clone().into();
            let dead = w.topic("hookyard-dead");
            let policy = w.answers[&format!("/rights/{dead}:getIamPolicy")].clone();
            let path = format!("/rights/{topic}:getIamPolicy");
            w.answers.insert(path, policy);
            let kept = json!({"topic": "contract-events", "expirationPolicy": {}});
            w.subscriptions.insert("contract-events-kept", kept);
        },
        "dead-letter policy",
        "--dead-letter-topic=projects/P/topics/hookyard-dead",
    ),
    warned(
        "messages are kept for an hour",
        |w| w.push()["messageRetentionDuration"] = "3600s".into(),
        "message retention",
        "--message-retention-duration=7d",
    ),
    warned(
        "messages lose their metadata",
        |w| w.push()["pushConfig"]["noWrapper"] = json!({"writeMetadata": false}),
        "push wrapper",
        "--push-no-wrapper-write-metadata",
    ),
];

const DEAD_LETTERS: &[Case] = &[
    failed(
        "the topic of downstream events is missing",
        |w| w.topics.retain(|topic| *topic != "hookyard-events"),
        "EVENTS_TOPIC",
        "gcloud pubsub topics create hookyard-events --project=P",
    ),
    failed(
        "the topic of our own dead letters is missing",
        |w| w.set("DEAD_LETTER_TOPIC", "hookyard-forgotten"),
        "DEAD_LETTER_TOPIC",
        "gcloud pubsub topics create hookyard-forgotten --project=P",
    ),
    failed(
        "nothing keeps dead letters",
        |w| {
            w.subscriptions.remove("hookyard-dead");
        },
        "DEAD_LETTER_TOPIC",
        "gcloud pubsub subscriptions create hookyard-dead --topic=hookyard-dead --project=P \
         --expiration-period=never",
    ),
    failed(
        "what keeps dead letters expires",
        |w| {
            let expiring = json!({"topic": "hookyard-dead"});
            w.subscriptions.insert("hookyard-dead", expiring);
        },
        "dead-letter subscription",
        "gcloud pubsub subscriptions update hookyard-dead --project=P --expiration-period=never",
    ),
    failed(
        "Pub/Sub may not publish dead letters",
        |w| {
            let path = format!("/rights/{}:getIamPolicy", w.topic("hookyard-dead"));
            let members = &mut w.answers.get_mut(&path).unwrap()["bindings"][0]["members"];
            members.as_array_mut().unwrap().remove(1);
        },
        "Pub/Sub's right to publish",
        "gcloud pubsub topics add-iam-policy-binding hookyard-dead --project=P \
         --member=serviceAccount:service-415104041262@gcp-sa-pubsub.iam.gserviceaccount.com \
         --role=roles/pubsub.publisher",
    ),
    failed(
        "Pub/Sub may not acknowledge dead letters",
        |w| {
            let of = w.subscription("contract-events-hookyard");
            w.answers
                .insert(format!("/rights/{of}:getIamPolicy"), json!({}));
        },
        "Pub/Sub's right to acknowledge",
        "gcloud pubsub subscriptions add-iam-policy-binding contract-events-hookyard --project=P \
         --member=serviceAccount:service-415104041262@gcp-sa-pubsub.iam.gserviceaccount.com \
         --role=roles/pubsub.subscriber",
    ),
    warned(
        "Pub/Sub may acknowledge by the project's policy, which we may not read",
        |w| {
            let of = w.subscription("contract-events-hookyard");
            w.answers
                .insert(format!("/rights/{of}:getIamPolicy"), json!({}));
            let path = format!("/projects/projects/{}:getIamPolicy", w.project);
            w.answers.insert(path, 403.into());
        },
        "Pub/Sub's right to acknowledge",
        "--role=roles/pubsub.subscriber",
    ),
    skipped(
        "rights may not be read",
        |w| {
            let of = w.subscription("contract-events-hookyard");
            w.answers
                .insert(format!("/rights/{of}:getIamPolicy"), 403.into());
        },
        "Pub/Sub's right to acknowledge",
        "--role=roles/iam.securityReviewer",
    ),
];

const ACCOUNTS: &[Case] = &[
    failed(
        "the service may not publish events",
        |w| {
            let path = format!("/rights/{}:getIamPolicy", w.topic("hookyard-events"));
            w.answers.insert(path, json!({}));
        },
        "service's right to publish",
        "gcloud pubsub topics add-iam-policy-binding hookyard-events --project=P \
         --member=serviceAccount:hookyard-run@P.iam.gserviceaccount.com --role=roles/pubsub.publisher",
    ),
    failed(
        "the push account is gone",
        |w| w.answers.retain(|path, _| !path.starts_with("/accounts/")),
        "push account's state",
        "gcloud iam service-accounts create hookyard-push --project=P",
    ),
    failed(
        "the push account is disabled",
        |w| {
            let is_account = |path: &str| path.starts_with("/accounts/") && !path.contains(':');
            let account = w.answers.iter_mut().find(|(path, _)| is_account(path));
            account.unwrap().1["disabled"] = true.into();
        },
        "push account's state",
        "gcloud iam service-accounts enable hookyard-push@P.iam.gserviceaccount.com",
    ),
    failed(
        "Pub/Sub may not make tokens",
        |w| {
            let is_policy = |path: &str| path.starts_with("/accounts/") && path.contains(':');
            let policy = w.answers.iter_mut().find(|(path, _)| is_policy(path));
            *policy.unwrap().1 = json!({});
        },
        "Pub/Sub's right to make tokens",
        "gcloud iam service-accounts add-iam-policy-binding \
         hookyard-push@P.iam.gserviceaccount.com \
         --member=serviceAccount:service-415104041262@gcp-sa-pubsub.iam.gserviceaccount.com \
         --role=roles/iam.serviceAccountOpenIdTokenCreator",
    ),
];

#[tokio::test]
async fn each_broken_setting_of_the_subscription_gives_its_row_and_its_command() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    bench.cases(SUBSCRIPTION, &[]).await;
}

#[tokio::test]
async fn each_way_to_lose_dead_letters_gives_its_row_and_its_command() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    bench.cases(DEAD_LETTERS, &[]).await;
}

#[tokio::test]
async fn each_account_without_its_right_gives_its_row_and_its_command() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    bench.cases(ACCOUNTS, &[]).await;
}
