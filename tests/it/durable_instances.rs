//! Rows X1, X11 and C7: several processes on one database, and what outlives a process.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hookyard::sandbox::{AUDIENCE, Instance, PushSubscription, SERVICE_ACCOUNT, TOPIC};

use crate::support::{TestApp, TestDatabase, Town, both_databases, contract_event, customer_event};

both_databases!(
    x1_a_thousand_events_to_two_instances_at_once_have_one_effect_each,
    x11_a_rolling_restart_of_three_under_load_loses_nothing,
    c7_a_duplicate_after_restart_has_no_effect,
    c7_a_duplicate_after_eviction_has_no_effect,
);

/// Every tenth goes to the upstreams, the others are answered by an event.
fn thousand() -> Vec<String> {
    let event = |number: usize| match number % 10 {
        0 => contract_event(&format!("x1-{number}"), "signed", "active"),
        _ => customer_event(
            &format!("x1-{number}"),
            "DELETE",
            &format!("c-{number}"),
            "A",
        ),
    };
    (0..1000).map(event).collect()
}

async fn x1_a_thousand_events_to_two_instances_at_once_have_one_effect_each(
    database: TestDatabase,
) {
    let town = Town::on(database).await;
    let (one, two) = (town.start().await, town.start().await);

    stream::iter(thousand())
        .for_each_concurrent(16, |event| {
            let (town, one, two) = (&town, &one, &two);
            async move {
                let both = (
                    town.push_until_taken(one, &event),
                    town.push_until_taken(two, &event),
                );
                tokio::join!(both.0, both.1);
            }
        })
        .await;

    town.wait_for_published(1000).await;
    town.wait_until_relayed().await;
    assert_eq!(town.effects(), (100, 100));
    assert_eq!(
        town.count("SELECT COUNT(*) FROM inbox WHERE state = 2")
            .await,
        1100,
        "contracts have two handlers"
    );
    assert_eq!(town.count("SELECT COUNT(*) FROM outbox").await, 1000);
}

async fn x11_a_rolling_restart_of_three_under_load_loses_nothing(database: TestDatabase) {
    let town = Town::on(database)
        .await
        .variable("SHUTDOWN_GRACE_MS", "5000");
    let mut instances = vec![town.start().await, town.start().await, town.start().await];
    let line = town.fleet.line();
    let serve = |instances: &[Instance]| {
        line.set_servers(instances.iter().map(|one| one.address).collect());
    };
    serve(&instances);
    let pusher = town.sandbox.pusher();
    pusher.subscribe(PushSubscription {
        audience: AUDIENCE.to_owned(),
        service_account: SERVICE_ACCOUNT.to_owned(),
        min_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(500),
        ..PushSubscription::new("rolling", TOPIC, &format!("http://{}/push", line.address()))
    });
    let events = thousand();
    let load = async {
        for event in &events {
            pusher.publish(TOPIC, event.clone(), &[], None).unwrap();
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    };
    let restarts = async {
        for _ in 0..3 {
            let mut oldest = instances.remove(0);
            instances.push(town.start().await);
            serve(&instances);
            oldest.signal("TERM").await.unwrap();
            assert_eq!(oldest.wait().await.unwrap().code(), Some(0));
        }
    };
    tokio::join!(load, restarts);
    let idle = tokio::time::timeout(Duration::from_secs(60), pusher.idle()).await;
    assert!(idle.is_ok(), "{} are not taken", pusher.pending());

    town.wait_for_published(1000).await;
    assert_eq!(town.effects(), (100, 100));
    let deliveries: Vec<_> = pusher
        .records()
        .into_iter()
        .flat_map(|r| r.deliveries)
        .collect();
    let failed = deliveries.iter().filter(|one| one.status != Some(200));
    let failed = failed.count();
    assert!(
        failed * 10 <= deliveries.len(),
        "{failed} of {}",
        deliveries.len()
    );
}

async fn c7_a_duplicate_after_restart_has_no_effect(database: TestDatabase) {
    let town = Town::on(database).await;
    let event = contract_event("c7", "signed", "active");
    let mut first = town.start().await;
    assert_eq!(town.push(&first, &event).await, Some(200));
    first.signal("TERM").await.unwrap();
    first.wait().await.unwrap();
    town.sandbox.chargebee().set_auto_seed(true);
    let requests = town.sandbox.journal().of("chargebee").len();

    let second = town.start().await;
    assert_eq!(town.push(&second, &event).await, Some(200));

    town.wait_for_published(1).await;
    assert_eq!(town.effects(), (1, 1));
    assert_eq!(town.sandbox.journal().of("chargebee").len(), requests);
}

async fn c7_a_duplicate_after_eviction_has_no_effect(database: TestDatabase) {
    let app = TestApp::builder()
        .manual_clock()
        .database(&database)
        .dedupe_capacity(5)
        .start()
        .await;
    let events: Vec<_> = (0..20)
        .map(|n| contract_event(&format!("c7-{n}"), "signed", "active"))
        .collect();
    for event in &events {
        assert_eq!(app.push(event).await.status, 200);
    }
    let requests = app.upstream_requests();
    // Past what the cache remembers, not past what the table does.
    for event in &events[..7] {
        app.clock().advance(Duration::from_secs(24 * 3600));
        assert_eq!(app.push(event).await.status, 200);
    }

    assert_eq!(app.upstream_requests(), requests);
    assert_eq!(app.effects().len(), 40);
}
