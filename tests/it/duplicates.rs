//! Rows C1–C9 and C14: what comes twice is applied once, what failed is done again.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;

use crate::support::{Behaviour, Probe, TestApp, contract_event, probe_event};

#[tokio::test]
async fn c1_the_same_message_again_after_success_has_no_effect() {
    let app = TestApp::start().await;
    let event = contract_event("c1", "signed", "active");

    assert_eq!(app.push_as("message-1", &event).await.status, StatusCode::OK);
    let effects = app.effects();
    assert_eq!(app.push_as("message-1", &event).await.status, StatusCode::OK);

    assert_eq!(app.effects(), effects);
    assert_eq!(app.events().len(), 1);
    assert_eq!(app.metric("hookyard_events_total", "activate_contract", "duplicate").await, 1.0);
}

#[tokio::test]
async fn c2_the_same_event_under_new_message_ids_is_applied_once() {
    let app = TestApp::start().await;
    let event = contract_event("c2", "signed", "active");

    for (retry, message) in ["m-0", "m-1", "m-2", "m-3", "m-4"].iter().enumerate() {
        let event = event.replace("\"current_retry\":0", &format!("\"current_retry\":{retry}"));
        assert_eq!(app.push_as(message, &event).await.status, StatusCode::OK);
    }

    assert_eq!(app.events().len(), 1);
    assert_eq!(app.effects().len(), 2, "one in Chargebee, one in Hasura");
}

#[tokio::test]
async fn c3_an_event_that_failed_is_processed_when_it_comes_again() {
    let probe = Probe::that([Behaviour::FailTransiently, Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    assert_eq!(app.push(&probe_event("c3")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.push(&probe_event("c3")).await.status, StatusCode::OK);
    assert_eq!(app.push(&probe_event("c3")).await.status, StatusCode::OK);

    assert_eq!(probe.runs(), 2, "failed once, succeeded once, then a duplicate");
}

#[tokio::test]
async fn c4_fifty_copies_at_once_are_one_run() {
    let probe = Probe::that([Behaviour::WaitThenSucceed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    let pushes = join_all((0..50).map(|_| {
        let (app, event) = (&app, probe_event("c4"));
        async move { app.push(&event).await.status }
    }));
    let opened = async {
        probe.wait_for_runs(1).await;
        app.wait_for_in_flight(50).await;
        probe.open();
    };
    let (answers, ()) = tokio::join!(pushes, opened);

    assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
    assert_eq!(probe.runs(), 1);
    assert_eq!(probe.most_at_once(), 1);
}

#[tokio::test]
async fn c5_waiters_are_not_told_done_when_the_first_run_fails() {
    let probe = Probe::that([Behaviour::WaitThenFail, Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    let pushes = join_all((0..10).map(|_| {
        let (app, event) = (&app, probe_event("c5"));
        async move { app.push(&event).await.status }
    }));
    let opened = async {
        probe.wait_for_runs(1).await;
        app.wait_for_in_flight(10).await;
        probe.open();
    };
    let (answers, ()) = tokio::join!(pushes, opened);

    let refused = answers.iter().filter(|s| **s == StatusCode::SERVICE_UNAVAILABLE).count();
    assert_eq!(refused, 10, "{answers:?}");
    assert_eq!(app.push(&probe_event("c5")).await.status, StatusCode::OK);
    assert_eq!(probe.runs(), 2);
}

#[tokio::test]
async fn c6_a_handler_that_outlives_every_timer_is_not_run_a_second_time_beside_itself() {
    let probe = Probe::that([Behaviour::WaitThenSucceed]);
    let app = TestApp::builder().handler(probe.clone()).manual_clock().start().await;

    let first = app.push(&probe_event("c6"));
    let second = async {
        probe.wait_for_runs(1).await;
        // Later than the ack deadline and the time an id is remembered.
        app.clock().advance(Duration::from_secs(2 * 86_400));
        let waiting = app.push(&probe_event("c6"));
        let opened = async {
            app.wait_for_in_flight(2).await;
            probe.open();
        };
        tokio::join!(waiting, opened).0
    };
    let (first, second) = tokio::join!(first, second);

    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(second.status, StatusCode::OK);
    assert_eq!(probe.runs(), 1);
}

#[tokio::test]
async fn c7_after_ids_were_forgotten_the_state_check_prevents_a_second_effect() {
    let app = TestApp::builder().manual_clock().dedupe_capacity(2).start().await;
    let event = contract_event("c7", "signed", "active");
    app.push(&event).await;
    let effects = app.effects();

    // Pushed out of the memory by others, then outlived by the clock.
    for other in ["c7-a", "c7-b", "c7-c", "c7-d"] {
        app.push(&contract_event(other, "draft", "signed")).await;
    }
    assert_eq!(app.push(&event).await.status, StatusCode::OK);
    app.clock().advance(Duration::from_secs(2 * 86_400));
    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    assert_eq!(app.effects(), effects, "no second write upstream");
    let ids: std::collections::BTreeSet<_> = app.events().iter().map(|e| e.id.clone()).collect();
    assert_eq!(ids.len(), 1, "a second publication carries the same id");
}

#[tokio::test]
async fn c8_without_room_to_remember_it_nothing_is_started() {
    // The stateless inbox lives in memory and cannot be away; what can be short is a place.
    let probe = Probe::that([Behaviour::WaitThenSucceed, Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).max_in_flight(1).start().await;

    let first = app.push(&probe_event("c8-first"));
    let second = async {
        probe.wait_for_runs(1).await;
        let answer = app.push(&probe_event("c8-second")).await;
        probe.open();
        answer
    };
    let (first, second) = tokio::join!(first, second);

    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.header("retry-after"), Some("1"));
    assert_eq!(probe.runs(), 1, "the one that was turned away had no effect");
}

#[tokio::test]
async fn c9_the_same_id_with_another_body_is_a_duplicate_and_counted() {
    let app = TestApp::start().await;
    let event = contract_event("c9", "signed", "active");
    let other = event.replace("29700", "31900");

    app.push(&event).await;
    assert_eq!(app.push(&other).await.status, StatusCode::OK);

    assert_eq!(app.events().len(), 1);
    assert_eq!(app.metric("hookyard_events_total", "activate_contract", "id_reuse").await, 1.0);
}

#[tokio::test]
async fn c14_ids_are_compared_byte_by_byte() {
    let probe = Probe::that(vec![Behaviour::Succeed; 4]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    for id in ["event-a", "EVENT-A", " event-a", "event-a "] {
        assert_eq!(app.push(&probe_event(id)).await.status, StatusCode::OK);
    }

    assert_eq!(probe.runs(), 4);
}

#[tokio::test]
async fn one_handler_that_fails_does_not_run_the_others_again() {
    let failing = Probe::that([Behaviour::FailTransiently, Behaviour::Succeed]);
    let other = crate::support::OtherProbe::default();
    let app = TestApp::builder().handler(failing.clone()).handler(other.clone()).start().await;

    assert_eq!(app.push(&probe_event("two")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.push(&probe_event("two")).await.status, StatusCode::OK);

    assert_eq!(failing.runs(), 2);
    assert_eq!(other.runs(), 1);
}

#[tokio::test]
async fn a_dead_letter_that_is_published_again_is_run_again_once() {
    let probe = Probe::that([Behaviour::FailForGood, Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;
    app.push(&probe_event("redrive")).await;
    let letter = app.dead_letters().remove(0);

    let again = app.push_message(&letter.data, &letter.attributes).await;
    let copy = app.push_message(&letter.data, &letter.attributes).await;

    assert_eq!((again.status, copy.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(probe.runs(), 2, "the copy of the redriven message is a duplicate");
}
