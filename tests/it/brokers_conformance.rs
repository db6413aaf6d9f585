//! What every broker has to do, run on each of them. A new broker adds one line at the end.

use std::sync::Arc;

use bytes::Bytes;
use hookyard::brokers::{MemoryBroker, Message, Publisher, PubsubBroker, Subscriber, Subscription};
use hookyard::clock::{Deadline, SystemClock};
use hookyard::error::Class;
use serde_json::{Value, json};

use crate::emulator::{Emulator, Received};
use crate::support::PATIENCE;

const EVENTS: &str = "events";

/// A broker, and a way to read back what it took.
struct Broker {
    publisher: Arc<dyn Publisher>,
    subscriber: Arc<dyn Subscriber>,
    reader: Reader,
}

enum Reader {
    Memory(MemoryBroker),
    Pubsub(Emulator),
}

impl Broker {
    async fn memory() -> Option<Self> {
        let broker = MemoryBroker::new();
        broker.create_subscription(EVENTS, EVENTS);
        Some(Self {
            publisher: Arc::new(broker.clone()),
            subscriber: Arc::new(broker.clone()),
            reader: Reader::Memory(broker),
        })
    }

    async fn pubsub() -> Option<Self> {
        let emulator = Emulator::find().await?;
        emulator.create_topic(EVENTS).await;
        let broker = PubsubBroker::connect(&emulator.bus(EVENTS, "dead"))
            .await
            .unwrap();
        let broker = Arc::new(broker);
        Some(Self {
            publisher: broker.clone(),
            subscriber: broker,
            reader: Reader::Pubsub(emulator),
        })
    }

    async fn publish(&self, message: Message) -> Result<String, hookyard::error::Error> {
        self.publisher.publish(EVENTS, message, &soon()).await
    }

    async fn subscribe(&self) -> Box<dyn Subscription> {
        self.subscriber.subscribe(EVENTS).await.unwrap()
    }

    /// Returns what a subscriber gets, once there are `count` messages.
    async fn received(&self, count: usize) -> Vec<Received> {
        match &self.reader {
            Reader::Pubsub(emulator) => emulator.pull(EVENTS, count).await,
            Reader::Memory(broker) => {
                let published = broker.published(EVENTS).into_iter();
                published.map(|taken| of_memory(taken.message)).collect()
            }
        }
    }
}

fn of_memory(message: Message) -> Received {
    let attributes = message.attributes.into_iter().map(|(k, v)| (k, v.into()));
    let attributes: serde_json::Map<String, Value> = attributes.collect();
    Received {
        data: message.data.to_vec(),
        attributes: attributes.into(),
        ordering_key: message.ordering_key,
    }
}

fn soon() -> Deadline {
    Deadline::after(&SystemClock::shared(), PATIENCE)
}

fn message(data: &str, key: Option<&str>) -> Message {
    Message {
        data: Bytes::copy_from_slice(data.as_bytes()),
        attributes: vec![("ce-type".to_owned(), "contract.activated".to_owned())],
        ordering_key: key.map(str::to_owned),
    }
}

async fn w1_every_confirmed_message_arrives(broker: Broker) {
    let all = (0..1000).map(|i| message(&i.to_string(), None));
    let sent = all.map(|message| broker.publish(message));
    let ids = futures_util::future::join_all(sent).await;
    let mut ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1000);

    let received = broker.received(1000).await;

    let mut data: Vec<_> = received.into_iter().map(|r| r.data).collect();
    data.sort();
    data.dedup();
    assert_eq!(data.len(), 1000);
}

async fn w7_messages_of_one_key_arrive_in_order(broker: Broker) {
    assert!(broker.publisher.features().ordered);
    for i in 0..20 {
        for key in ["contract-1", "contract-2", "contract-3"] {
            broker
                .publish(message(&format!("{i:03}"), Some(key)))
                .await
                .unwrap();
        }
    }

    let received = broker.received(60).await;

    for key in ["contract-1", "contract-2", "contract-3"] {
        let of_key = received
            .iter()
            .filter(|r| r.ordering_key.as_deref() == Some(key));
        let data: Vec<_> = of_key.map(|r| r.data.clone()).collect();
        assert_eq!(data.len(), 20);
        assert!(data.is_sorted(), "{key}");
    }
}

async fn w10_a_message_that_is_too_large_is_refused_for_good(broker: Broker) {
    let limit = broker.publisher.features().max_message_bytes;
    let of = |len| Message {
        data: vec![b'x'; len].into(),
        attributes: Vec::new(),
        ordering_key: Some("contract-1".to_owned()),
    };

    let refused = broker.publish(of(limit)).await.unwrap_err();

    assert_eq!(refused.class(), Class::Permanent);
    assert_eq!(refused.code().as_str(), "message_too_large");
    // It does not hold back those behind it.
    broker
        .publish(message("next", Some("contract-1")))
        .await
        .unwrap();
}

async fn w10_a_message_of_nothing_is_refused_for_good(broker: Broker) {
    let nothing = Message {
        data: Bytes::new(),
        attributes: Vec::new(),
        ordering_key: None,
    };
    let refused = broker.publish(nothing).await.unwrap_err();
    assert_eq!(refused.class(), Class::Permanent);
}

async fn w11_bytes_and_attributes_arrive_as_they_were(broker: Broker) {
    let data: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let sent = Message {
        data: data.clone().into(),
        attributes: vec![
            ("ce-subject".to_owned(), "Vertrag Nr. 7 – „é“ 🪝".to_owned()),
            ("empty".to_owned(), String::new()),
        ],
        ordering_key: Some("ключ".to_owned()),
    };
    broker.publish(sent).await.unwrap();

    let received = broker.received(1).await;

    assert!(received[0].data == data);
    assert_eq!(
        received[0].attributes,
        json!({"ce-subject": "Vertrag Nr. 7 – „é“ 🪝", "empty": ""})
    );
    assert_eq!(received[0].ordering_key.as_deref(), Some("ключ"));
}

async fn attributes_are_cut_to_what_the_broker_takes(broker: Broker) {
    let mut sent = message("x", None);
    sent.attributes = (0..120)
        .map(|i| (format!("a{i:03}"), "v".repeat(2000)))
        .collect();
    broker.publish(sent).await.unwrap();

    let received = broker.received(1).await;

    let attributes = received[0].attributes.as_object().unwrap();
    assert_eq!(attributes.len(), 100);
    assert!(
        attributes
            .values()
            .all(|value| value.as_str().unwrap().len() == 1024)
    );
}

async fn flushing_ends_when_everything_is_confirmed(broker: Broker) {
    let deadline = soon();
    let sent = (0..50).map(|i| {
        let key = format!("contract-{}", i % 5);
        broker
            .publisher
            .publish(EVENTS, message("x", Some(&key)), &deadline)
    });
    let sent = futures_util::future::join_all(sent);

    let (results, ()) = tokio::join!(sent, broker.publisher.flush());

    assert!(results.iter().all(Result::is_ok));
    assert_eq!(broker.received(50).await.len(), 50);
}

async fn a_topic_that_is_there_passes_the_check(broker: Broker) {
    broker.publisher.check(EVENTS, &soon()).await.unwrap();
}

async fn w2_what_is_handed_back_comes_again(broker: Broker) {
    for number in 0..20 {
        broker
            .publish(message(&number.to_string(), None))
            .await
            .unwrap();
    }
    let mut stream = broker.subscribe().await;
    let mut handed_back = Vec::new();
    let mut done = Vec::new();

    while done.len() < 20 {
        let incoming = stream.next().await.unwrap();
        let id = incoming.delivery.message_id.clone().unwrap();
        if handed_back.contains(&id) {
            done.push(incoming.delivery.data.clone());
            incoming.ack();
        } else {
            handed_back.push(id); // dropped
        }
    }

    done.sort();
    done.dedup();
    assert_eq!(done.len(), 20);
    stream.close().await;
}

async fn w5_what_comes_while_nobody_reads_comes_to_the_next_reader(broker: Broker) {
    broker.publish(message("first", None)).await.unwrap();
    let mut stream = broker.subscribe().await;
    stream.next().await.unwrap().ack();
    stream.close().await;
    broker.publish(message("second", None)).await.unwrap();

    let mut stream = broker.subscribe().await;
    let incoming = stream.next().await.unwrap();

    assert_eq!(incoming.delivery.data.as_ref(), b"second");
    incoming.ack();
    stream.close().await;
}

async fn w11_what_is_received_is_what_was_sent(broker: Broker) {
    let mut sent = message("x", Some("ключ"));
    sent.data = (0..=255).collect::<Vec<u8>>().into();
    broker.publish(sent.clone()).await.unwrap();

    let mut stream = broker.subscribe().await;
    let incoming = stream.next().await.unwrap();

    let got = &incoming.delivery;
    assert_eq!(got.data, sent.data);
    assert_eq!(got.attributes, sent.attributes);
    assert_eq!(got.ordering_key, sent.ordering_key);
    assert!(got.message_id.is_some());
    assert!(got.subscription.is_some());
    incoming.ack();
    stream.close().await;
}

async fn a_subscription_that_is_not_there_is_an_error_and_not_silence(broker: Broker) {
    let failed = match broker.subscriber.subscribe("absent").await {
        Ok(mut stream) => stream.next().await.map(|_| ()),
        Err(error) => Err(error),
    };
    let code = failed.unwrap_err().code();
    assert_eq!(code.as_str(), "subscription_not_found");
}

macro_rules! suite {
    ($backend:ident: $($case:ident)*) => {
        mod $backend {
            $(#[tokio::test]
            async fn $case() {
                if let Some(broker) = super::Broker::$backend().await {
                    super::$case(broker).await;
                }
            })*
        }
    };
    ($($backend:ident)*) => {
        $(suite! { $backend:
            w1_every_confirmed_message_arrives
            w7_messages_of_one_key_arrive_in_order
            w10_a_message_that_is_too_large_is_refused_for_good
            w10_a_message_of_nothing_is_refused_for_good
            w11_bytes_and_attributes_arrive_as_they_were
            attributes_are_cut_to_what_the_broker_takes
            flushing_ends_when_everything_is_confirmed
            a_topic_that_is_there_passes_the_check
            w2_what_is_handed_back_comes_again
            w5_what_comes_while_nobody_reads_comes_to_the_next_reader
            w11_what_is_received_is_what_was_sent
            a_subscription_that_is_not_there_is_an_error_and_not_silence
        })*
    };
}

suite! { memory pubsub }
