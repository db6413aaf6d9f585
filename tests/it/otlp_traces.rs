//! Traces as a collector gets them: one from push to publication, under the ids of log lines and
//! `traceparent`s.

use std::io::Write;
use std::sync::{Arc, Mutex};

use hookyard::config::{LogConfig, LogFormat};
use hookyard::event::TraceContext;
use hookyard::telemetry::Logs;
use http::StatusCode;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use wiremock::matchers::{body_string_contains, method};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::otlp_collector::{Collector, attribute, hex};
use crate::support::{
    Behaviour, PATIENCE, Probe, TestApp, contract_event, eventually, probe_event,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PUBLISHER: &str = "00f067aa0ba902b7";

/// Keeps log lines.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    /// Logs this thread's lines to the returned place until the guards are dropped.
    pub(crate) fn log() -> (
        Self,
        tracing::dispatcher::DefaultGuard,
        hookyard::telemetry::Guard,
    ) {
        let config = LogConfig {
            level: "info".to_owned(),
            format: LogFormat::Json,
            colour: false,
            service: "hookyard".to_owned(),
            revision: "r1".to_owned(),
        };
        let kept = Self::default();
        let (dispatch, guard) = Logs::new(&config, Some("acme"))
            .to(kept.clone())
            .build()
            .unwrap();
        (kept, tracing::dispatcher::set_default(&dispatch), guard)
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A Hasura that knows every contract, and whose requests can be looked at.
async fn hasura() -> MockServer {
    let server = MockServer::start().await;
    let answer = |data: Value| ResponseTemplate::new(200).set_body_json(json!({ "data": data }));
    let contract = json!({"id": "c", "status": "active", "chargebee_subscription_id": null});
    Mock::given(method("POST"))
        .and(body_string_contains("contracts_by_pk(id"))
        .respond_with(answer(json!({ "contracts_by_pk": contract })))
        .with_priority(2)
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .and(body_string_contains("update_contracts_by_pk"))
        .respond_with(answer(json!({ "update_contracts_by_pk": contract })))
        .with_priority(1)
        .mount(&server)
        .await;
    server
}

fn traceparent(sampled: u8) -> (String, String) {
    let value = format!("00-{TRACE}-{PUBLISHER}-{sampled:02}");
    ("traceparent".to_owned(), value)
}

fn exporting_to(collector: &Collector) -> crate::support::Builder {
    TestApp::builder().variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
}

/// Waits until so many spans are there: a service that ends does not wait long for its collector.
async fn arrived(collector: &Collector, spans: usize) {
    let now = || collector.spans().len();
    let what = || format!("{} of {spans} spans have arrived", now());
    eventually(what, async || now() >= spans).await;
}

fn assert_is(span: &Span, kind: SpanKind, below: &str) {
    assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
    assert_eq!(span.kind(), kind, "{}", span.name);
    assert_eq!(hex(&span.parent_span_id), below, "{}", span.name);
    assert_eq!(span.flags & 1, 1, "{}", span.name);
    assert!(span.start_time_unix_nano > 0);
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    assert_eq!(span.status, None, "{}", span.name);
}

async fn one_trace_from_push_to_publication(protocol: &'static str) {
    let (logged, _default, guard) = Kept::log();
    let collector = Collector::start().await;
    let hasura = hasura().await;
    let app = exporting_to(&collector)
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-key=canary")
        .variable("HASURA_GRAPHQL_URL", format!("{}/v1/graphql", hasura.uri()))
        .start()
        .await;

    let event = contract_event("whole", "signed", "active");
    let answer = app.push_message(event.as_bytes(), &[traceparent(1)]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let events = app.events();
    arrived(&collector, 8).await;
    app.running.shutdown().await;

    // Parents: publisher → push → handler → upstreams and publication.
    let push = collector.span("process contract-events-push");
    assert_is(&push, SpanKind::Consumer, PUBLISHER);
    let push_id = hex(&push.span_id);
    let handler = collector.span("handle activate_contract");
    assert_is(&handler, SpanKind::Internal, &push_id);
    let handler_id = hex(&handler.span_id);
    let asked = collector.span("POST ContractById");
    let written = collector.span("POST LinkSubscription");
    let chargebee = collector.span("GET /subscriptions/{id}");
    let sent = collector.span("send hookyard-events");
    for call in [&asked, &written, &chargebee] {
        assert_is(call, SpanKind::Client, &handler_id);
    }
    assert_is(&sent, SpanKind::Producer, &handler_id);
    let spans = collector.spans();
    let mut names: Vec<&str> = spans.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "GET /subscriptions/{id}",
            "POST /subscriptions/{id}/update_for_items",
            "POST ContractById",
            "POST LinkSubscription",
            "handle activate_contract",
            "handle cancel_contract", // which skips it
            "process contract-events-push",
            "send hookyard-events",
        ]
    );

    // What is said about them.
    let says = |span: &Span, name: &str| attribute(&span.attributes, name);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(says(&push, "messaging.system"), text("gcp_pubsub"));
    assert_eq!(says(&push, "messaging.operation.type"), text("process"));
    assert!(says(&push, "messaging.message.id").is_some());
    assert_eq!(says(&push, "event.id"), text("whole"));
    assert_eq!(says(&push, "outcome"), text("done"));
    assert_eq!(says(&push, "http.response.status_code"), text("200"));
    assert_eq!(says(&handler, "handler.name"), text("activate_contract"));
    assert_eq!(says(&asked, "server.address"), text("127.0.0.1"));
    assert_eq!(says(&asked, "http.request.method"), text("POST"));
    assert_eq!(says(&asked, "http.response.status_code"), text("200"));
    assert_eq!(
        says(&sent, "messaging.destination.name"),
        text("hookyard-events")
    );
    assert_eq!(says(&sent, "messaging.message.id"), text("1"));

    // The same ids are sent on: to Hasura, and in the published message.
    let requests = hasura.received_requests().await.unwrap();
    let parents: Vec<_> = requests
        .iter()
        .map(|it| &it.headers["traceparent"])
        .collect();
    for (parent, span) in parents.into_iter().zip([&asked, &written]) {
        assert_eq!(*parent, format!("00-{TRACE}-{}-01", hex(&span.span_id)));
    }
    let published = events[0].attribute("traceparent").unwrap();
    assert_eq!(published, format!("00-{TRACE}-{}-01", hex(&sent.span_id)));

    // And written to the event's line.
    drop(guard);
    let lines = logged.lines();
    let line = lines.iter().find(|it| it["message"] == "event processed");
    let line = line.unwrap();
    let trace = format!("projects/acme/traces/{TRACE}");
    assert_eq!(line["logging.googleapis.com/trace"], trace);
    assert_eq!(line["logging.googleapis.com/spanId"], push_id);
    assert_eq!(line["logging.googleapis.com/trace_sampled"], true);

    // No row, no secret, no address of anybody.
    let (headers, _) = collector.first();
    assert_eq!(headers["x-key"], "canary");
    let all = format!("{:?}", collector.spans());
    for secret in [
        "whole-contract",
        "whole-sub",
        "29700",
        "canary",
        "@",
        "Bearer",
    ] {
        assert!(!all.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn one_trace_goes_from_push_to_publication_over_http() {
    Box::pin(one_trace_from_push_to_publication("http/protobuf")).await;
}

#[tokio::test]
async fn one_trace_goes_from_push_to_publication_over_grpc() {
    Box::pin(one_trace_from_push_to_publication("grpc")).await;
}

#[tokio::test]
async fn a_trace_the_publisher_does_not_record_is_not_exported_and_passed_on_as_such() {
    let collector = Collector::start().await;
    let app = exporting_to(&collector).start().await;

    let event = contract_event("unsampled", "signed", "active");
    let answer = app.push_message(event.as_bytes(), &[traceparent(0)]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let events = app.events();
    app.running.shutdown().await;

    assert!(collector.spans().is_empty());
    let published = TraceContext::parse(events[0].attribute("traceparent").unwrap()).unwrap();
    assert_eq!(published.trace_id(), TRACE);
    assert!(!published.sampled());
}

#[tokio::test]
async fn the_sampler_decides_where_the_publisher_has_not() {
    let collector = Collector::start().await;
    let app = exporting_to(&collector)
        .variable("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .variable("OTEL_TRACES_SAMPLER_ARG", "0")
        .start()
        .await;
    // Hasura names a trace and says nothing about recording it.
    let undecided = format!(r#""trace_context":{{"trace_id":"{TRACE}","span_id":"{PUBLISHER}"}}"#);
    let decided = undecided.replace("}", r#","sampling_state":"1"}"#);
    let of_hasura = |id: &str, trace: &str| {
        contract_event(id, "draft", "signed").replace(r#""trace_context":null"#, trace)
    };

    app.push(&contract_event("rootless", "draft", "signed"))
        .await;
    app.push(&of_hasura("undecided", &undecided)).await;
    app.push(&of_hasura("decided", &decided)).await;
    arrived(&collector, 1).await;
    app.running.shutdown().await;

    let spans = collector.spans();
    let pushes: Vec<_> = spans
        .iter()
        .filter_map(|it| attribute(&it.attributes, "event.id"))
        .collect();
    assert_eq!(pushes, ["decided"]);
}

#[tokio::test]
async fn a_failure_shows_in_every_span_above_it() {
    let collector = Collector::start().await;
    let app = exporting_to(&collector)
        .handler(Probe::that([Behaviour::FailForGood]))
        .start()
        .await;

    let request = [(
        "traceparent".to_owned(),
        format!("00-{}-{PUBLISHER}-01", "a".repeat(32)),
    )];
    let event = probe_event("hopeless");
    let answer = app.push_message(event.as_bytes(), &request).await;
    assert_eq!(answer.status, StatusCode::OK);
    arrived(&collector, 3).await;
    app.running.shutdown().await;

    let handler = collector.span("handle probe");
    let push = collector.span("process contract-events-push");
    let kept = collector.span("send hookyard-dead-letters");
    assert_eq!(kept.parent_span_id, handler.span_id);
    assert_eq!(kept.status, None);
    for span in [&handler, &push] {
        assert_eq!(span.status.as_ref().unwrap().code, 2, "{}", span.name);
        assert!(attribute(&span.attributes, "error.type").is_some());
        assert_eq!(
            attribute(&span.attributes, "outcome").as_deref(),
            Some("dead_lettered")
        );
    }
}

#[tokio::test]
async fn the_requests_own_trace_is_linked_when_the_message_has_another() {
    let collector = Collector::start().await;
    let app = exporting_to(&collector).start().await;
    let envelope = json!({
        "message": {
            "data": "",
            "messageId": "1",
            "attributes": {
                "ce-type": "contract.activated", "ce-id": "e1",
                "traceparent": traceparent(1).1,
            },
        },
    });

    let client = hookyard::sandbox::loopback_client(PATIENCE).unwrap();
    let request = client
        .post(app.url("/push"))
        .bearer_auth(app.sandbox.token());
    let other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = request
        .header("traceparent", other)
        .body(envelope.to_string());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    arrived(&collector, 1).await;
    app.running.shutdown().await;

    let push = collector.span("process push");
    assert_eq!(hex(&push.trace_id), TRACE);
    assert_eq!(push.links.len(), 1);
    assert_eq!(
        hex(&push.links[0].trace_id),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(hex(&push.links[0].span_id), "b7ad6b7169203331");
}
