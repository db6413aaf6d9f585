//! The way to the collector: what is said about the service, and what happens when it is away.

use std::time::Duration;

use hookyard::clock::ManualClock;
use hookyard::config::{
    LogConfig, LogFormat, OtlpConfig, OtlpProtocol, RootSampler, SamplerConfig,
};
use hookyard::event::TraceContext;
use hookyard::telemetry::{Metrics, SpanKind, Tracer};
use http::StatusCode;
use serde_json::json;
use wiremock::matchers::{header, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::otlp_collector::{Collector, attribute};
use crate::otlp_traces::Kept;
use crate::support::{TestApp, contract_event, eventually};

fn config(endpoint: String, protocol: OtlpProtocol) -> OtlpConfig {
    OtlpConfig {
        endpoint,
        protocol,
        headers: http::HeaderMap::new(),
        sampler: SamplerConfig {
            parent_based: true,
            root: RootSampler::AlwaysOn,
        },
        service_name: None,
        attributes: Vec::new(),
        metadata_host: None,
    }
}

/// A tracer without a service around it.
struct Alone {
    tracer: Tracer,
    clock: std::sync::Arc<ManualClock>,
    metrics: std::sync::Arc<Metrics>,
}

impl Alone {
    fn new(config: &OtlpConfig) -> Self {
        let about = LogConfig {
            level: "info".to_owned(),
            format: LogFormat::Json,
            colour: false,
            service: "hookyard".to_owned(),
            revision: "hookyard-00042".to_owned(),
        };
        let metrics = Metrics::new().unwrap();
        let clock = ManualClock::start();
        Self {
            tracer: Tracer::start(config, &about, clock.clone(), metrics.clone()).unwrap(),
            clock,
            metrics,
        }
    }

    fn record(&self, name: &str) {
        let trace = TraceContext::new_root();
        let kind = SpanKind::Internal;
        let span = self.tracer.span(kind, format_args!("{name}"), &trace, None);
        span.end();
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.metrics.spans.with_label_values(&[outcome]).get()
    }

    async fn wait_for(&self, outcome: &str, spans: u64) {
        let what = || format!("{} of {spans} {outcome}", self.counted(outcome));
        eventually(what, async || self.counted(outcome) >= spans).await;
    }

    async fn end(&self) {
        self.tracer.shutdown(Duration::from_secs(10)).await;
    }
}

#[tokio::test]
async fn the_resource_says_which_cloud_run_instance_it_is() {
    let metadata = MockServer::start().await;
    for (what, answer) in [
        ("instance/region", "projects/123/regions/europe-west1"),
        ("instance/id", "00bf4bf02d"),
        ("project/project-id", "acme"),
    ] {
        Mock::given(path(format!("/computeMetadata/v1/{what}")))
            .and(header("metadata-flavor", "Google"))
            .respond_with(ResponseTemplate::new(200).set_body_string(answer))
            .mount(&metadata)
            .await;
    }
    let collector = Collector::start().await;
    let given = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let alone = Alone::new(&OtlpConfig {
        service_name: Some("contracts".to_owned()),
        attributes: vec![
            given("service.name", "overruled"),
            given("cloud.account.id", "other"),
        ],
        metadata_host: Some(metadata.address().to_string()),
        ..config(collector.url(), OtlpProtocol::Http)
    });

    alone.record("a");
    alone.wait_for("exported", 1).await;
    alone.end().await;

    let (_, resource) = collector.first();
    for (name, value) in [
        ("service.name", "contracts"),
        ("service.version", "hookyard-00042"),
        ("cloud.provider", "gcp"),
        ("cloud.platform", "gcp_cloud_run"),
        ("cloud.region", "europe-west1"),
        ("cloud.account.id", "other"),
        ("faas.name", "hookyard"),
        ("faas.version", "hookyard-00042"),
        ("faas.instance", "00bf4bf02d"),
    ] {
        assert_eq!(attribute(&resource, name).as_deref(), Some(value));
        let count = resource.iter().filter(|it| it.key == name).count();
        assert_eq!(count, 1, "{name}");
    }
}

#[tokio::test]
async fn a_service_elsewhere_does_not_say_that_it_is_on_cloud_run() {
    let collector = Collector::start().await;
    let alone = Alone::new(&config(collector.url(), OtlpProtocol::Http));

    alone.record("a");
    alone.wait_for("exported", 1).await;
    alone.end().await;

    let (_, resource) = collector.first();
    assert_eq!(attribute(&resource, "cloud.provider"), None);
    assert_eq!(
        attribute(&resource, "service.name").as_deref(),
        Some("hookyard")
    );
}

#[tokio::test]
async fn a_collector_that_is_away_does_not_disturb_events() {
    for protocol in ["http/protobuf", "grpc"] {
        let app = TestApp::builder()
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            .variable("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .start()
            .await;

        for i in 0..5 {
            let event = contract_event(&format!("away{i}"), "signed", "active");
            assert_eq!(app.push(&event).await.status, StatusCode::OK);
        }

        assert_eq!(app.events().len(), 5);
        let metrics = app.running.app().metrics().clone();
        app.running.shutdown().await;
        let failed = metrics.spans.with_label_values(&["failed"]).get();
        assert!(failed >= 5, "{protocol}: {failed}");
    }
}

#[tokio::test]
async fn a_collector_that_hangs_neither_slows_spans_nor_fills_the_memory() {
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let alone = Alone::new(&config(url, OtlpProtocol::Http));

    for _ in 0..5000 {
        alone.record("waits");
    }

    // Nothing has run in the background yet: this test has not let go of the thread.
    assert_eq!(alone.counted("dropped"), 5000 - 2048);
    // Given up at once when there is no time left.
    alone.tracer.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_tried_again_and_another_is_not() {
    let collector = Collector::start().await;
    for protocol in [OtlpProtocol::Http, OtlpProtocol::Grpc] {
        let alone = Alone::new(&config(collector.url(), protocol));
        let before = collector.refused();
        collector.refuse(&[StatusCode::SERVICE_UNAVAILABLE; 2]);

        alone.record("patient");
        alone.wait_for("exported", 1).await;

        assert_eq!(collector.refused() - before, 2);
        assert_eq!(alone.counted("failed"), 0);
        alone.end().await;
    }

    let alone = Alone::new(&config(collector.url(), OtlpProtocol::Http));
    let before = collector.refused();
    collector.refuse(&[StatusCode::BAD_REQUEST]);
    alone.record("hopeless");
    alone.wait_for("failed", 1).await;
    alone.end().await;
    assert_eq!(collector.refused() - before, 1);
    assert_eq!(alone.counted("failed"), 1);
}

#[tokio::test]
async fn a_collector_that_refuses_is_complained_about_once_a_minute() {
    let (logged, _default, guard) = Kept::log();
    let collector = Collector::start().await;
    collector.refuse(&[StatusCode::FORBIDDEN; 6]);
    let alone = Alone::new(&config(collector.url(), OtlpProtocol::Http));

    for batch in 1..=5 {
        if batch == 5 {
            alone.clock.advance(Duration::from_secs(60));
        }
        alone.record("refused");
        alone.wait_for("failed", batch).await;
    }
    alone.end().await;

    drop(guard);
    let lines = logged.lines();
    let told: Vec<_> = lines.iter().map(|line| &line["spans"]).collect();
    assert_eq!(told, [1, 4]);
    assert_eq!(lines[0]["severity"], "WARNING");
    assert_eq!(lines[0]["status"], 403);
}

#[tokio::test]
async fn nothing_is_exported_unless_an_endpoint_is_set() {
    let app = TestApp::start().await;
    assert_eq!(
        app.push(&contract_event("off", "signed", "active"))
            .await
            .status,
        StatusCode::OK
    );
    let metrics = app.get("/metrics").await.text();
    assert!(
        !metrics.contains("hookyard_spans_total"),
        "{}",
        json!(metrics)
    );
    assert!(!Tracer::off().exports());
}
