//! The sandbox's Pub/Sub: envelope, acknowledgement, redelivery, order, dead letters.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookyard::clock::ManualClock;
use hookyard::sandbox::{PublishError, PushSubscription, Sandbox, Standing};
use serde_json::Value;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

struct Push {
    sandbox: Sandbox,
    endpoint: MockServer,
    clock: Arc<ManualClock>,
}

impl Push {
    /// An endpoint that answers these statuses in turn and the last one for ever.
    async fn to(statuses: &[u16], change: impl FnOnce(&mut PushSubscription)) -> Self {
        let clock = ManualClock::start();
        let sandbox = Sandbox::builder()
            .clock(clock.clone())
            .start()
            .await
            .unwrap();
        let endpoint = MockServer::start().await;
        let (last, first) = statuses.split_last().unwrap();
        for status in first {
            let answer = ResponseTemplate::new(*status);
            let mock = Mock::given(method("POST"))
                .respond_with(answer)
                .up_to_n_times(1);
            mock.mount(&endpoint).await;
        }
        let answer = ResponseTemplate::new(*last);
        Mock::given(method("POST"))
            .respond_with(answer)
            .mount(&endpoint)
            .await;
        let mut subscription = PushSubscription::new("sub", "topic", &endpoint.uri());
        change(&mut subscription);
        sandbox.pusher().subscribe(subscription);
        Self {
            sandbox,
            endpoint,
            clock,
        }
    }

    async fn publish(&self, data: &'static str, key: Option<&str>) -> String {
        let pusher = self.sandbox.pusher();
        let id = pusher
            .publish("topic", data, &[("colour", "blue")], key)
            .unwrap();
        pusher.idle().await;
        id
    }

    async fn bodies(&self) -> Vec<Value> {
        let requests = self.endpoint.received_requests().await.unwrap();
        requests
            .iter()
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn a_push_looks_like_one_of_pubsub() {
    let push = Push::to(&[200], |options| options.max_delivery_attempts = Some(5)).await;

    let id = push.publish("hello", Some("key")).await;

    let body = &push.bodies().await[0];
    let message = &body["message"];
    assert_eq!(message["messageId"], id);
    assert_eq!(message["messageId"], message["message_id"]);
    assert_eq!(message["publishTime"], message["publish_time"]);
    assert_eq!(message["data"], STANDARD.encode("hello"));
    assert_eq!(message["attributes"]["colour"], "blue");
    assert_eq!(message["orderingKey"], "key");
    assert_eq!(body["deliveryAttempt"], 1);
    assert_eq!(body["subscription"], "projects/sandbox/subscriptions/sub");
    let request = &push.endpoint.received_requests().await.unwrap()[0];
    assert!(
        request.headers["authorization"]
            .to_str()
            .unwrap()
            .starts_with("Bearer ey")
    );
}

#[tokio::test]
async fn every_acknowledging_status_ends_the_deliveries() {
    for status in [200, 201, 202, 204] {
        let push = Push::to(&[status], |_| ()).await;

        let id = push.publish("x", None).await;

        let records = push.sandbox.pusher().records_of(&id);
        assert_eq!(
            (records[0].standing, records[0].deliveries.len()),
            (Standing::Acked, 1)
        );
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_with_growing_waits() {
    let push = Push::to(&[503, 401, 429, 500, 200], |options| {
        options.min_backoff = Duration::from_secs(1);
        options.max_backoff = Duration::from_secs(3);
    })
    .await;

    let id = push.publish("x", None).await;

    let seconds: Vec<u64> = push.clock.slept().iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [1, 2, 3, 3]);
    let record = &push.sandbox.pusher().records_of(&id)[0];
    let statuses: Vec<_> = record
        .deliveries
        .iter()
        .filter_map(|done| done.status)
        .collect();
    assert_eq!(statuses, [503, 401, 429, 500, 200]);
}

#[tokio::test]
async fn one_token_is_used_for_its_hour() {
    let push = Push::to(&[200], |_| ()).await;

    push.publish("x", None).await;
    push.publish("x", None).await;
    push.clock.advance(Duration::from_secs(3600));
    push.publish("x", None).await;

    let requests = push.endpoint.received_requests().await.unwrap();
    let tokens: Vec<_> = requests
        .iter()
        .map(|request| &request.headers["authorization"])
        .collect();
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
}

#[tokio::test]
async fn what_is_never_acknowledged_goes_to_the_dead_letter_topic() {
    let push = Push::to(&[503], |options| {
        options.max_delivery_attempts = Some(5);
        options.dead_letter_topic = Some("dead".to_owned());
    })
    .await;

    let id = push.publish("x", None).await;

    let attempts: Vec<_> = push
        .bodies()
        .await
        .iter()
        .map(|body| body["deliveryAttempt"].as_u64())
        .collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5].map(Some));
    let dead = push.sandbox.pusher().messages("dead");
    assert_eq!(dead.len(), 1);
    assert_ne!(dead[0].message_id, id);
    assert_eq!(dead[0].data, "x");
    for (name, value) in [
        ("colour", "blue"),
        ("CloudPubSubDeadLetterSourceDeliveryCount", "5"),
        ("CloudPubSubDeadLetterSourceSubscription", "sub"),
        ("CloudPubSubDeadLetterSourceSubscriptionProject", "sandbox"),
    ] {
        assert_eq!(dead[0].attribute(name), Some(value));
    }
    assert!(
        dead[0]
            .attribute("CloudPubSubDeadLetterSourceTopicPublishTime")
            .is_some()
    );
}

#[tokio::test]
async fn a_failing_message_holds_back_later_ones_of_its_key() {
    let push = Push::to(&[503, 503, 200], |options| options.ordered = true).await;
    let pusher = push.sandbox.pusher();

    for data in ["one", "two", "three"] {
        pusher.publish("topic", data, &[], Some("key")).unwrap();
    }
    pusher.idle().await;

    let data: Vec<_> = push
        .bodies()
        .await
        .iter()
        .map(|body| body["message"]["data"].clone())
        .collect();
    let expected = ["one", "one", "one", "two", "three"].map(|text| STANDARD.encode(text));
    assert_eq!(data, expected);
}

#[tokio::test]
async fn an_endpoint_slower_than_the_ack_deadline_gets_it_again() {
    let clock = ManualClock::start();
    let sandbox = Sandbox::builder().clock(clock).start().await.unwrap();
    let endpoint = MockServer::start().await;
    let slow = ResponseTemplate::new(200).set_delay(Duration::from_secs(30));
    Mock::given(method("POST"))
        .respond_with(slow)
        .up_to_n_times(1)
        .mount(&endpoint)
        .await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&endpoint)
        .await;
    sandbox.pusher().subscribe(PushSubscription {
        ack_deadline: Duration::from_millis(100),
        ..PushSubscription::new("sub", "topic", &endpoint.uri())
    });

    let id = sandbox.pusher().publish("topic", "x", &[], None).unwrap();
    sandbox.pusher().idle().await;

    let deliveries = &sandbox.pusher().records_of(&id)[0].deliveries;
    assert_eq!(deliveries[0].error, Some("deadline"));
    assert_eq!(deliveries.last().unwrap().status, Some(200));
}

#[tokio::test]
async fn an_acknowledged_message_can_be_delivered_once_more() {
    let push = Push::to(&[200], |_| ()).await;
    let id = push.publish("x", None).await;

    assert!(push.sandbox.pusher().redeliver("topic", &id));
    push.sandbox.pusher().idle().await;

    let bodies = push.bodies().await;
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0]["message"], bodies[1]["message"]);
}

#[tokio::test]
async fn a_topic_takes_what_pubsub_takes() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let pusher = sandbox.pusher();
    pusher.create_topic("topic");

    assert_eq!(
        pusher.publish("other", "x", &[], None),
        Err(PublishError::NoSuchTopic)
    );
    assert_eq!(
        pusher.publish("topic", "", &[], None),
        Err(PublishError::Empty)
    );
    assert_eq!(
        pusher.publish("topic", vec![0; 10_000_001], &[], None),
        Err(PublishError::TooLarge)
    );
    assert!(
        pusher
            .publish("topic", "", &[("only", "attributes")], None)
            .is_ok()
    );
}
