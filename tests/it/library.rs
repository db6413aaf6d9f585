//! The library as a team of its own uses it: the example's service, pushed to over a socket.

use http::StatusCode;

use crate::support::{TestApp, event};

#[path = "../../examples/own_handlers.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod own_handlers;

#[tokio::test]
async fn the_examples_handler_announces_a_paid_invoice_once() {
    let app = TestApp::of(own_handlers::service()).start().await;
    let row = |state: &str| format!(r#"{{"id":"invoice-1","state":"{state}"}}"#);
    let paid =
        event("paid", "invoices", "UPDATE", &row("due"), &row("paid")).replace("public", "billing");

    assert_eq!(app.push(&paid).await.status, StatusCode::OK);
    assert_eq!(app.push(&paid).await.status, StatusCode::OK);

    let events = app.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event_type, "invoice.paid");
    assert_eq!(events[0].data, br#"{"invoice_id":"invoice-1"}"#);
}

#[tokio::test]
async fn the_examples_cron_trigger_is_handled() {
    let app = TestApp::of(own_handlers::service()).start().await;
    let tick = r#"{"id":"tick-1","name":"heartbeat","scheduled_time":"2026-01-05T10:00:00Z","payload":null}"#;

    assert_eq!(app.push(tick).await.status, StatusCode::OK);

    assert_eq!(
        app.metric("hookyard_events_total", "heartbeat", "done")
            .await,
        1.0
    );
}

#[tokio::test]
async fn two_handlers_of_one_name_are_refused_at_start() {
    let twice = own_handlers::service().handlers(|registry| {
        registry.register(crate::support::Probe::that([]))?;
        registry.register(crate::support::Probe::that([]))
    });

    let error = twice.build().await.err().unwrap().to_string();

    assert!(error.contains("two handlers are named `probe`"), "{error}");
}
