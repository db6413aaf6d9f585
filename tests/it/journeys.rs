//! Whole journeys through the real router with stateful upstreams: the handlers' business rules,
//! rows U6, U7, U12–U14, U18, U20 and the traps of half-finished runs.

use http::StatusCode;

use crate::support::{Behaviour, Probe, TestApp, contract_event, customer_event, probe_event};

#[tokio::test]
async fn an_active_contract_is_linked_on_both_sides_and_announced() {
    let app = TestApp::start().await;

    let answer = app
        .push(&contract_event("linked", "signed", "active"))
        .await;

    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    let contract = "linked-contract";
    assert_eq!(
        app.chargebee_contract_id("linked-sub").as_deref(),
        Some(contract)
    );
    assert_eq!(
        app.hasura_subscription_id(contract).as_deref(),
        Some("linked-sub")
    );
    let events = app.events();
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(event.event_type, "contract.activated");
    assert_eq!(event.attribute("ce-subject"), Some(contract));
    assert_eq!(event.attribute("ce-causationid"), Some("linked"));
    assert_eq!(event.attribute("ce-correlationid"), Some("linked"));
    assert_eq!(event.attribute("ce-specversion"), Some("1.0"));
    assert_eq!(event.attribute("Content-Type"), Some("application/json"));
    assert!(event.attribute("traceparent").is_some());
    assert_eq!(event.ordering_key.as_deref(), Some(contract));
}

#[tokio::test]
async fn an_inserted_contract_that_is_active_already_is_linked_too() {
    let app = TestApp::start().await;
    let event = contract_event("inserted", "-", "active").replace("UPDATE", "INSERT");

    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    assert_eq!(
        app.chargebee_contract_id("inserted-sub").as_deref(),
        Some("inserted-contract")
    );
}

#[tokio::test]
async fn u20_a_contract_that_is_not_active_is_skipped_without_a_call() {
    let app = TestApp::start().await;

    assert_eq!(
        app.push(&contract_event("u20", "draft", "signed"))
            .await
            .status,
        StatusCode::OK
    );

    assert_eq!(app.upstream_requests(), 0);
    assert!(app.events().is_empty());
    assert_eq!(
        app.metric("hookyard_events_total", "activate_contract", "skipped")
            .await,
        1.0
    );
}

#[tokio::test]
async fn u20_a_contract_that_is_linked_already_is_skipped_without_a_write() {
    let app = TestApp::start().await;
    app.push(&contract_event("u20b", "signed", "active")).await;
    let effects = app.effects();

    // Another event about the same contract.
    let again = contract_event("u20b", "signed", "active")
        .replace("\"id\":\"u20b\"", "\"id\":\"u20b-again\"");
    assert_eq!(app.push(&again).await.status, StatusCode::OK);

    assert_eq!(app.effects(), effects);
    assert_eq!(
        app.metric("hookyard_events_total", "activate_contract", "skipped")
            .await,
        1.0
    );
}

#[tokio::test]
async fn a_contract_that_was_active_before_does_not_run_the_handler() {
    let app = TestApp::start().await;

    assert_eq!(
        app.push(&contract_event("same", "active", "active"))
            .await
            .status,
        StatusCode::OK
    );

    assert_eq!(app.upstream_requests(), 0);
    assert_eq!(
        app.metric("hookyard_events_total", "none", "skipped").await,
        1.0
    );
}

#[tokio::test]
async fn u20_an_activation_that_comes_after_the_cancellation_is_skipped() {
    let app = TestApp::start().await;
    app.sandbox
        .hasura()
        .seed_contract("late-contract", "cancelled");

    assert_eq!(
        app.push(&contract_event("late", "signed", "active"))
            .await
            .status,
        StatusCode::OK
    );

    assert!(app.effects().is_empty());
    assert!(app.events().is_empty());
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_free_the_place_of_its_event() {
    let probe = Probe::that([Behaviour::WaitThenSucceed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;
    let event = probe_event("hung-up");
    {
        let push = app.push(&event);
        tokio::select! {
            _ = push => panic!("answered before the handler was let go"),
            () = probe.wait_for_runs(1) => {}
        }
    }

    // The connection is gone as soon as another request has been answered after it.
    app.get("/health").await;
    assert_eq!(app.running.app().in_flight(), 1);
    probe.open();
    app.wait_for_in_flight_at_most(0).await;
}

#[tokio::test]
async fn a_cancelled_contract_ends_its_subscription_with_the_term_once() {
    let app = TestApp::start().await;
    let event = contract_event("gone", "active", "cancelled");

    assert_eq!(app.push(&event).await.status, StatusCode::OK);
    let again = event.replace("\"id\":\"gone\"", "\"id\":\"gone-again\"");
    assert_eq!(app.push(&again).await.status, StatusCode::OK);

    assert_eq!(
        app.chargebee_status("gone-sub").as_deref(),
        Some("non_renewing")
    );
    assert_eq!(app.effects().len(), 1);
    let types: Vec<_> = app
        .events()
        .into_iter()
        .map(|event| event.event_type)
        .collect();
    assert_eq!(types, ["contract.cancelled", "contract.cancelled"]);
}

#[tokio::test]
async fn a_customer_is_created_then_updated_then_only_announced_as_deleted() {
    let app = TestApp::start().await;

    for (event, op, name) in [
        ("cu-1", "INSERT", "Ada"),
        ("cu-2", "UPDATE", "Grace"),
        ("cu-3", "DELETE", "Grace"),
    ] {
        let answer = app
            .push(&customer_event(event, op, "customer-1", name))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{op}");
    }

    assert_eq!(
        app.chargebee_first_name("customer-1").as_deref(),
        Some("Grace")
    );
    assert_eq!(app.effects().len(), 2, "the deletion calls nobody");
    let types: Vec<_> = app
        .events()
        .into_iter()
        .map(|event| event.event_type)
        .collect();
    assert_eq!(
        types,
        ["customer.created", "customer.updated", "customer.deleted"]
    );
}

#[tokio::test]
async fn u6_a_missing_subscription_makes_a_dead_letter_with_the_bytes_and_the_reason() {
    let app = TestApp::start().await;
    let event = contract_event("u6", "signed", "active");
    app.forget_subscriptions();

    assert_eq!(
        app.push_as("message-u6", &event).await.status,
        StatusCode::OK
    );

    let letters = app.dead_letters();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.data, event.as_bytes());
    for (name, value) in [
        ("hookyard-error-class", "permanent"),
        ("hookyard-error-code", "not_found"),
        ("hookyard-handler", "activate_contract"),
        ("hookyard-event-id", "u6"),
        ("hookyard-event-type", "contracts.update"),
        ("hookyard-source-message-id", "message-u6"),
    ] {
        assert_eq!(letter.attribute(name), Some(value), "{name}");
    }
    for name in ["reason", "first-time", "last-time", "service-revision"] {
        assert!(
            letter.attribute(&format!("hookyard-{name}")).is_some(),
            "{name}"
        );
    }
    assert!(app.events().is_empty(), "nothing is announced");
}

#[tokio::test]
async fn u12_chargebee_done_and_hasura_away_is_finished_by_the_redelivery() {
    let app = TestApp::builder().manual_clock().start().await;
    let event = contract_event("u12", "signed", "active");
    app.hasura_fails_mutations(4); // the first try and its three retries

    assert_eq!(
        app.push(&event).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert!(app.events().is_empty(), "not announced before it is done");
    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    assert_eq!(app.effects().len(), 2, "one in Chargebee, one in Hasura");
    assert_eq!(app.events().len(), 1);
}

#[tokio::test]
async fn u14_hasura_done_and_the_broker_away_is_announced_by_the_redelivery() {
    let app = TestApp::start().await;
    let event = contract_event("u14", "signed", "active");
    app.broker.fail_next("unavailable");

    assert_eq!(
        app.push(&event).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let effects = app.effects();
    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    assert_eq!(app.effects(), effects, "nothing is written twice");
    assert_eq!(app.events().len(), 1);
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_kept_is_not_acknowledged() {
    let app = TestApp::start().await;
    app.broker.go_down();

    assert_eq!(
        app.push("not an event").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    app.broker.recover();
    assert_eq!(app.push("not an event").await.status, StatusCode::OK);

    assert_eq!(app.dead_letters().len(), 1);
}

#[tokio::test]
async fn u7_a_customer_that_exists_already_is_updated_instead() {
    let app = TestApp::start().await;
    app.push(&customer_event("u7-a", "INSERT", "customer-7", "Ada"))
        .await;

    // A second insert event of the same row, with other details.
    let answer = app
        .push(&customer_event("u7-b", "INSERT", "customer-7", "Grace"))
        .await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        app.chargebee_first_name("customer-7").as_deref(),
        Some("Grace")
    );
    assert!(app.dead_letters().is_empty());
}

#[tokio::test]
async fn u18_a_poison_event_does_not_hold_up_good_ones() {
    let app = TestApp::start().await;
    let poison = contract_event("poison", "signed", "active")
        .replace("\"new\":{", "\"new\":[{")
        .replace("}},\"session", "}]},\"session");

    let (bad, good) = tokio::join!(app.push(&poison), async {
        let event = contract_event("good", "signed", "active");
        app.push(&event).await
    });

    assert_eq!((bad.status, good.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(
        app.dead_letters().len(),
        2,
        "one for each handler that wanted it"
    );
    assert_eq!(app.events().len(), 1);
}

#[tokio::test]
async fn an_event_nobody_takes_is_acknowledged_counted_and_shown() {
    let app = TestApp::start().await;
    let event = contract_event("nobody", "a", "b").replace("\"contracts\"", "\"invoices\"");

    assert_eq!(app.push(&event).await.status, StatusCode::OK);
    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    assert_eq!(
        app.metric("hookyard_events_total", "unrouted", "unrouted")
            .await,
        2.0
    );
    let shown = app.get("/handlers").await.text();
    assert!(shown.contains("invoices.update"), "{shown}");
    assert!(app.dead_letters().is_empty());
}

#[tokio::test]
async fn big_numbers_leave_digit_for_digit() {
    let app = TestApp::start().await;
    let amount = "50755254975729665000000000000000000000.10";
    let event = contract_event("digits", "signed", "active").replace("29700", amount);

    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    let events = app.events();
    let sent = std::str::from_utf8(&events[0].data).unwrap();
    assert!(
        sent.contains(&format!("\"amount_cents\":{amount}")),
        "{sent}"
    );
}

#[tokio::test]
async fn an_event_too_large_to_be_announced_becomes_a_dead_letter() {
    let probe = Probe::that([Behaviour::EmitTooMuch]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    assert_eq!(
        app.push(&probe_event("oversize")).await.status,
        StatusCode::OK
    );
    assert_eq!(
        app.push(&probe_event("oversize")).await.status,
        StatusCode::OK
    );

    assert_eq!(probe.runs(), 1, "no endless retries");
    let letters = app.dead_letters();
    assert_eq!(
        letters[0].attribute("hookyard-error-code"),
        Some("message_too_large")
    );
}
