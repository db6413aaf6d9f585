//! Log lines as Google Cloud Logging and people read them.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use hookyard::clock::ManualClock;
use hookyard::config::{LogConfig, LogFormat};
use hookyard::telemetry::Logs;
use serde_json::{Value, json};
use tracing_subscriber::layer::{Context, Layer};

use crate::support::TestApp;

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn config(level: &str, format: LogFormat) -> LogConfig {
    LogConfig {
        level: level.to_owned(),
        format,
        colour: false,
        service: "hookyard".to_owned(),
        revision: "hookyard-00042".to_owned(),
    }
}

/// Returns what `work` logs.
fn logged(level: &str, format: LogFormat, work: impl FnOnce()) -> String {
    let kept = Kept::default();
    let clock = ManualClock::at(UNIX_EPOCH + Duration::from_millis(1_792_562_400_250));
    let logs = Logs::new(&config(level, format), Some("acme")).clock(clock);
    let (dispatch, guard) = logs.to(kept.clone()).build().unwrap();
    tracing::dispatcher::with_default(&dispatch, work);
    drop(guard);
    kept.text()
}

fn json_lines(level: &str, work: impl FnOnce()) -> Vec<Value> {
    let text = logged(level, LogFormat::Json, work);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn push_span() -> tracing::Span {
    let span = tracing::info_span!(
        target: "hookyard::ingress::push",
        "push",
        request_id = "r-1",
        trace_id = tracing::field::Empty,
        span_id = tracing::field::Empty,
        event.id = tracing::field::Empty,
    );
    span.record("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736");
    span.record("span_id", "00f067aa0ba902b7");
    span.record("event.id", "e1");
    span
}

#[test]
fn a_line_has_the_structure_of_cloud_logging() {
    let lines = json_lines("info", || {
        let _entered = push_span().entered();
        let none: Option<&str> = None;
        tracing::info!(
            event.r#type = "contracts.update",
            delivery.attempt = 2_u64,
            message.id = none,
            outcome = "done",
            duration_ms = 1.23456,
            "event processed"
        );
    });

    assert_eq!(
        lines,
        [json!({
            "time": "2026-10-21T06:00:00.250000Z",
            "severity": "INFO",
            "message": "event processed",
            "target": "it::logs_lines",
            "event.type": "contracts.update",
            "delivery.attempt": 2,
            "outcome": "done",
            "duration_ms": 1.235,
            "event.id": "e1",
            "request_id": "r-1",
            "logging.googleapis.com/trace": "projects/acme/traces/4bf92f3577b34da6a3ce929d0e0e4736",
            "logging.googleapis.com/spanId": "00f067aa0ba902b7",
            "logging.googleapis.com/labels": {"service": "hookyard", "revision": "hookyard-00042"},
        })]
    );
}

#[test]
fn an_error_is_told_to_error_reporting() {
    let lines = json_lines("info", || {
        tracing::error!(error.code = "timeout", "event handed back")
    });

    assert_eq!(lines[0]["severity"], "ERROR");
    let reported = lines[0]["@type"].as_str().unwrap();
    assert!(reported.ends_with("v1beta1.ReportedErrorEvent"));
    assert_eq!(
        lines[0]["serviceContext"],
        json!({"service": "hookyard", "version": "hookyard-00042"})
    );
    let file = lines[0]["logging.googleapis.com/sourceLocation"]["file"].as_str();
    assert_eq!(file, Some("tests/it/logs_lines.rs"));
}

#[test]
fn an_events_own_field_wins_and_no_name_stands_twice() {
    let text = logged("info", LogFormat::Json, || {
        let outer = push_span().entered();
        let inner =
            tracing::info_span!(target: "hookyard", "handler", handler.name = "a", event.id = "e2");
        let _inner = inner.entered();
        tracing::info!(handler.name = "b", time = "noon", "said");
        drop(outer);
    });

    assert_eq!(text.matches("\"handler.name\"").count(), 1);
    assert_eq!(text.matches("\"event.id\"").count(), 1);
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["handler.name"], "b");
    assert_eq!(line["event.id"], "e2");
    assert_eq!(line["_time"], "noon");
    assert_eq!(line["time"], "2026-10-21T06:00:00.250000Z");
}

#[test]
fn s3_nothing_breaks_out_of_its_line() {
    let hostile = "a\r\n{\"severity\":\"ALERT\"}\u{1b}[2J\u{0}\u{2028}\u{202e}\"\\";
    for format in [LogFormat::Json, LogFormat::Pretty] {
        let text = logged("info", format, || {
            let span = tracing::info_span!(target: "hookyard", "push", event.id = hostile);
            let _entered = span.entered();
            tracing::info!(trigger = hostile, shown = %hostile, "said {hostile}");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
        assert!(!text.trim_end_matches('\n').contains(breaks), "{text}");
    }
    let lines = json_lines("info", || {
        tracing::info!(trigger = hostile, "said {hostile}")
    });
    assert_eq!(lines[0]["trigger"], hostile);
    assert_eq!(lines[0]["message"], format!("said {hostile}"));
}

#[test]
fn s3_a_value_of_a_megabyte_is_cut() {
    let long = "é".repeat(500_000);
    let text = logged("info", LogFormat::Json, || {
        tracing::info!(trigger = long.as_str(), shown = ?long, "said {long}");
    });

    assert!(text.len() < 8_000, "{}", text.len());
    let line: Value = serde_json::from_str(&text).unwrap();
    assert!(line["trigger"].as_str().unwrap().ends_with('…'));
}

#[test]
fn a_trace_id_that_is_none_is_left_out() {
    let lines = json_lines("info", || {
        let span = tracing::info_span!(target: "hookyard", "push", trace_id = "x\",\"a\":\"");
        let _entered = span.entered();
        tracing::info!("said");
    });

    assert!(lines[0].get("logging.googleapis.com/trace").is_none());
}

#[test]
fn the_ids_of_a_trace_may_be_numbers() {
    let lines = json_lines("info", || {
        let span = tracing::info_span!(
            target: "hookyard",
            "handler",
            trace_id = 0x00f9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128,
            span_id = 0x00f0_67aa_0ba9_02b7_u64,
        );
        let _entered = span.entered();
        tracing::info!("said");
    });

    let trace = "projects/acme/traces/00f92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(lines[0]["logging.googleapis.com/trace"], trace);
    assert_eq!(
        lines[0]["logging.googleapis.com/spanId"],
        "00f067aa0ba902b7"
    );
}

#[test]
fn a_line_at_a_high_level_keeps_the_ids_of_its_span() {
    let lines = json_lines("warn", || {
        let _entered = push_span().entered();
        tracing::info!("not shown");
        tracing::warn!("shown");
    });

    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["event.id"], "e1");
}

#[test]
fn a_span_of_many_fields_keeps_them_all_and_the_last_value_counts() {
    let lines = json_lines("info", || {
        let span = tracing::info_span!(
            target: "hookyard", "push", a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8
        );
        span.record("b", 20);
        span.record("h", 80);
        let _entered = span.entered();
        tracing::info!("said");
    });

    let values = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| lines[0][name].clone());
    assert_eq!(json!(values), json!([1, 20, 3, 4, 5, 6, 7, 80]));
}

#[test]
fn people_read_one_short_line() {
    let text = logged("info", LogFormat::Pretty, || {
        let _entered = push_span().entered();
        tracing::info!(outcome = "done", duration_ms = 0.5, "event processed");
    });

    assert_eq!(
        text,
        "06:00:00.250  INFO event processed outcome=done duration_ms=0.5 event.id=e1\n"
    );
}

#[test]
fn another_layer_sees_more_than_the_lines_show() {
    struct Count(Arc<Mutex<u32>>);
    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let (kept, count) = (Kept::default(), Arc::new(Mutex::new(0)));
    let steps = tracing_subscriber::filter::Targets::new()
        .with_target("hookyard::step", tracing::Level::DEBUG);
    let logs = Logs::new(&config("info", LogFormat::Json), None)
        .layer(Count(Arc::clone(&count)).with_filter(steps));
    let (dispatch, guard) = logs.to(kept.clone()).build().unwrap();

    tracing::dispatcher::with_default(&dispatch, || {
        tracing::debug!(target: "hookyard::step", step = "decoded");
        tracing::debug!(target: "hookyard::pipeline", "quiet");
        tracing::info!(target: "hookyard::pipeline", "loud");
    });

    drop(guard);
    assert_eq!(*count.lock().unwrap(), 1);
    assert_eq!(kept.text().lines().count(), 1);
}

#[tokio::test]
async fn a_flood_of_refused_pushes_is_a_line_a_second_and_counted_in_full() {
    let kept = Kept::default();
    let logs = Logs::new(&config("info", LogFormat::Json), None);
    let (dispatch, guard) = logs.to(kept.clone()).build().unwrap();
    let _logging = tracing::dispatcher::set_default(&dispatch);
    let app = TestApp::builder().manual_clock().start().await;

    for _ in 0..50 {
        app.push_with_token("forged").await;
    }
    app.clock().advance(Duration::from_secs(1));
    app.push_with_token("forged").await;

    guard.flush();
    let text = kept.text();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["message"] == "push request refused")
        .collect();
    let counts: Vec<_> = lines.iter().map(|line| line["requests"].clone()).collect();
    assert_eq!(counts, [json!(1), json!(50)], "{text}");
    let metrics = app.get("/metrics").await.text();
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("hookyard_push_rejected_total"));
    assert!(counted.unwrap().ends_with(" 51"), "{metrics}");
}
