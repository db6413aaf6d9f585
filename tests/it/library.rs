//! The library as a team of its own uses it: the example's service, pushed to over a socket.

use std::process::Command;

use hookyard::app::App;
use http::StatusCode;

use crate::support::{TestApp, event};

#[path = "../../examples/own_handlers.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod own_handlers;

#[tokio::test]
async fn the_examples_handler_announces_a_paid_invoice_once() {
    let app = TestApp::of(App::builder().handlers(own_handlers::register))
        .start()
        .await;
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
    let app = TestApp::of(App::builder().handlers(own_handlers::register))
        .start()
        .await;
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
    let twice = App::builder().handlers(|registry| {
        registry.register(crate::support::Probe::that([]))?;
        registry.register(crate::support::Probe::that([]))
    });

    let error = twice.build().await.err().unwrap().to_string();

    assert!(error.contains("two handlers are named `probe`"), "{error}");
}

#[test]
fn the_examples_program_has_the_whole_command_line_over_its_own_handlers() {
    let run = |args: &[&str]| {
        // Built already when all tests are; else this builds it.
        let output = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--example", "own_handlers", "--"])
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };

    let handlers: serde_json::Value = serde_json::from_str(&run(&["handlers", "--json"])).unwrap();
    let metadata = run(&["hasura", "metadata", "export"]);

    let names = handlers.as_array().unwrap().iter();
    let names: Vec<_> = names
        .map(|info| info["handler"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["announce_paid_invoice", "heartbeat"]);
    assert!(
        metadata.contains("invoices") && metadata.contains("heartbeat"),
        "{metadata}"
    );
    assert!(!metadata.contains("contracts"), "{metadata}");
}
