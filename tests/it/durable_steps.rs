//! Rows U12–U15 with a database: a handler that is cut between its steps.

use hookyard::sandbox::{Did, Fault};
use http::StatusCode;

use crate::support::{TestApp, TestDatabase, both_databases, contract_event, count};

both_databases!(
    u12_chargebee_done_and_hasura_not_is_finished_without_a_second_write,
    u13_a_failure_for_good_after_chargebee_is_kept_once,
    u14_a_broker_that_is_away_holds_nothing_up_and_loses_nothing,
    u15_a_lost_confirmation_repeats_the_same_message,
);

async fn u12_chargebee_done_and_hasura_not_is_finished_without_a_second_write(
    database: TestDatabase,
) {
    let app = TestApp::builder()
        .manual_clock()
        .database(&database)
        .start()
        .await;
    app.hasura_fails_mutations(4);
    let event = contract_event("u12", "signed", "active");

    let first = app.push(&event).await.status;
    assert_eq!(first, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.effects().len(), 1, "Chargebee is done");
    assert!(app.events().is_empty(), "nothing is said before it is so");

    assert_eq!(app.push(&event).await.status, StatusCode::OK);
    app.wait_for_events(1).await;
    assert_eq!(app.effects().len(), 2);
    let store = database.store().await;
    assert_eq!(count(&store, "SELECT COUNT(*) FROM failures").await, 1);
}

async fn u13_a_failure_for_good_after_chargebee_is_kept_once(database: TestDatabase) {
    let app = TestApp::builder()
        .manual_clock()
        .database(&database)
        .start()
        .await;
    app.sandbox.hasura().faults().pass();
    app.sandbox
        .hasura()
        .faults()
        .next(Fault::graphql_error("constraint-violation"));
    let event = contract_event("u13", "signed", "active");

    assert_eq!(app.push(&event).await.status, StatusCode::OK);
    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    assert_eq!(app.effects().len(), 1, "Chargebee only, and once");
    assert!(app.events().is_empty());
    let store = database.store().await;
    let kept = "SELECT COUNT(*) FROM event_dead_letters WHERE error_code = 'constraint-violation'";
    assert_eq!(count(&store, kept).await, 1);
    assert_eq!(count(&store, "SELECT COUNT(*) FROM outbox").await, 0);
}

async fn u14_a_broker_that_is_away_holds_nothing_up_and_loses_nothing(database: TestDatabase) {
    let app = TestApp::builder().database(&database).start().await;
    app.broker.go_down();
    for n in 0..10 {
        let event = contract_event(&format!("u14-{n}"), "signed", "active");
        assert_eq!(app.push(&event).await.status, StatusCode::OK);
    }
    assert!(app.events().is_empty());
    let store = database.store().await;
    let waiting = "SELECT COUNT(*) FROM outbox WHERE state = 0";
    assert_eq!(count(&store, waiting).await, 10);

    app.broker.recover();

    app.wait_for_events(10).await;
    assert_eq!(app.effects().len(), 20);
}

async fn u15_a_lost_confirmation_repeats_the_same_message(database: TestDatabase) {
    let app = TestApp::builder().database(&database).start().await;
    app.broker_faults.next_n(2, &Fault::ResetAfter);
    let event = contract_event("u15", "signed", "active");

    assert_eq!(app.push(&event).await.status, StatusCode::OK);
    app.wait_until_relayed(&database).await;

    let events = app.events();
    assert_eq!(events.len(), 3, "twice unconfirmed, once confirmed");
    let same = |field: fn(&crate::support::Went) -> &[u8]| {
        events.iter().all(|one| field(one) == field(&events[0]))
    };
    assert!(same(|went| went.id.as_bytes()));
    assert!(same(|went| &went.data));
    let journal = app.sandbox.journal();
    assert_eq!(journal.count(Did::Effect), 2);
}
