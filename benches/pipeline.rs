//! What one push request costs, stage by stage: `cargo bench --bench pipeline`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a measuring tool that shares two files with the kit and uses half of them"
)]

#[path = "kit/requests.rs"]
mod requests;
#[path = "kit/tokens.rs"]
mod tokens;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hookyard::brokers::MemoryBroker;
use hookyard::clients::chargebee::Chargebee;
use hookyard::clients::hasura::Hasura;
use hookyard::clock::SystemClock;
use hookyard::config::{Config, DedupeConfig};
use hookyard::egress::Egress;
use hookyard::error::Result;
use hookyard::event::{Event, unwrap_push};
use hookyard::ingress::{OidcVerifier, TokenVerifier};
use hookyard::pipeline::{
    Claim, Completion, Context, DeadLetters, Handler, Inbox, Marks, Parts, Payload, Pipeline,
    Registry, Services,
};
use hookyard::telemetry::{Metrics, Tracer};
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

use requests::Request;
use tokens::Issuer;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn config(jwks_url: &str) -> Config {
    let config = Config::from_lookup(&|name| {
        let value = match name {
            "PUSH_AUDIENCE" => tokens::AUDIENCE,
            "PUSH_SERVICE_ACCOUNT" => tokens::ACCOUNT,
            "OIDC_JWKS_URL" => jwks_url,
            "HASURA_GRAPHQL_URL" => "http://localhost/v1/graphql",
            "CHARGEBEE_URL" => "http://localhost",
            "HASURA_ADMIN_SECRET" | "CHARGEBEE_API_KEY" => "secret",
            "EVENT_BUS_TYPE" => "memory",
            _ => return None,
        };
        Some(value.to_owned())
    });
    config.unwrap()
}

/// A verifier that has fetched the issuer's keys over a socket.
fn verifier(runtime: &Runtime, issuer: &Issuer) -> OidcVerifier {
    let modulus = issuer.modulus();
    runtime.block_on(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let verifier = OidcVerifier::new(
            &config(&url).push_auth,
            SystemClock::shared(),
            Metrics::new().unwrap(),
        );
        let kid = tokens::KID;
        let keys = format!(
            r#"{{"keys":[{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{kid}","n":"{modulus}","e":"AQAB"}}]}}"#
        );
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = stream.read(&mut [0; 4_096]).await.unwrap();
            assert!(read > 0);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", keys.len());
            stream.write_all((head + &keys).as_bytes()).await.unwrap();
        };
        tokio::join!(answer, verifier.refresh_due());
        verifier
    })
}

fn verify(criterion: &mut Criterion) {
    let runtime = runtime();
    let issuer = Issuer::new();
    let verifier = verifier(&runtime, &issuer);
    let _entered = runtime.enter();

    // More tokens than are remembered, so that every one is new when its turn comes.
    let tokens = issuer.pool(12_000);
    let mut next = tokens.iter().cycle();
    criterion.bench_function("verify/cold", |bencher| {
        bencher.iter(|| {
            let verdict = verifier.verify_now(next.next().unwrap());
            assert!(matches!(verdict, Some(Ok(_))));
        });
    });
    criterion.bench_function("verify/cached", |bencher| {
        bencher.iter(|| {
            let verdict = verifier.verify_now(black_box(&tokens[0]));
            assert!(matches!(verdict, Some(Ok(_))));
        });
    });
    let forged = tokens::forge(&tokens[0]);
    criterion.bench_function("verify/forged", |bencher| {
        bencher.iter(|| {
            let verdict = verifier.verify_now(black_box(&forged));
            assert!(matches!(verdict, Some(Err(_))));
        });
    });
}

fn push_body() -> Bytes {
    let request = Request::new("token", Some("draft"), "signed");
    let text = String::from_utf8(request.bytes).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    body.to_owned().into()
}

fn decode_once(body: &Bytes) -> Event {
    unwrap_push(&HeaderMap::new(), body.clone())
        .and_then(Event::decode)
        .unwrap()
}

fn decode(criterion: &mut Criterion) {
    let body = push_body();
    criterion.bench_function("decode", |bencher| {
        bencher.iter(|| decode_once(black_box(&body)));
    });
    let event = decode_once(&body);
    criterion.bench_function("decode/fingerprint", |bencher| {
        bencher.iter(|| black_box(&event).fingerprint());
    });
}

fn claim(criterion: &mut Criterion) {
    let config = DedupeConfig {
        ttl: Duration::from_secs(3_600),
        capacity: 1_000_000,
    };
    let inbox = Inbox::new(&config, SystemClock::shared());
    let next = AtomicU64::new(0);
    criterion.bench_function("claim/new, completed", |bencher| {
        bencher.iter_batched(
            || {
                format!(
                    "85558393-c75d-4d2f-9c15-{:012}",
                    next.fetch_add(1, Ordering::Relaxed)
                )
            },
            |id| {
                if let Claim::Ours(guard) =
                    inbox.claim("activate_contract", &id, Marks::default(), false)
                {
                    guard.complete(1);
                }
            },
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("claim/duplicate", |bencher| {
        let id = "85558393-c75d-4d2f-9c15-000000000000";
        bencher.iter(|| {
            let claim = inbox.claim("activate_contract", black_box(id), Marks::default(), false);
            assert!(matches!(claim, Claim::Done { .. }));
        });
    });
}

/// Reads the row, as any handler would, and has nothing to do.
struct Idle;

impl Handler for Idle {
    const NAME: &'static str = "idle";
    const EVENTS: &'static [&'static str] = &["contracts.update"];
    const ABOUT: &'static str = "does nothing";
    type Payload = Nothing;

    async fn handle(&self, _: &Context, _: Nothing) -> Result<Completion> {
        Ok(Completion::Skipped("there is nothing to do"))
    }
}

struct Nothing;

impl Payload for Nothing {
    fn from_event(_: &Event) -> Result<Self> {
        Ok(Self)
    }
}

fn pipeline_of(registry: Registry) -> Arc<Pipeline> {
    let config = config("http://localhost/jwks");
    let clock = SystemClock::shared();
    let metrics = Metrics::new().unwrap();
    let egress = Arc::new(Egress::new(
        Arc::new(MemoryBroker::new()),
        config.bus.events_topic.clone(),
        config.bus.dead_letter_topic.clone(),
        metrics.clone(),
    ));
    let services = Services {
        chargebee: Chargebee::new(&config.chargebee, metrics.clone(), clock.clone()).unwrap(),
        hasura: Hasura::new(&config.hasura, metrics.clone(), clock.clone()).unwrap(),
    };
    Arc::new(Pipeline::new(Parts {
        registry,
        ledger: None,
        inbox: Inbox::new(&config.dedupe, clock.clone()),
        dead_letters: DeadLetters::new(egress.clone(), clock.clone(), "bench".to_owned()),
        egress,
        services: Arc::new(services),
        clock,
        work: config.work,
        max_event_depth: config.worker.max_event_depth,
        metrics,
        tracer: Tracer::off(),
        tasks: TaskTracker::new(),
    }))
}

fn pipeline(criterion: &mut Criterion) {
    let runtime = runtime();
    let next = AtomicU64::new(0);
    let request = Request::new("token", Some("draft"), "signed");
    let fresh_event = || {
        let mut request = request.clone();
        request.set_number(next.fetch_add(1, Ordering::Relaxed));
        let end = request
            .bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let body = Bytes::from(request.bytes.split_off(end.unwrap() + 4));
        decode_once(&body)
    };
    for (name, registry) in [
        ("one idle handler", idle()),
        ("reference handlers, skip", reference()),
    ] {
        let pipeline = pipeline_of(registry);
        criterion.bench_function(&format!("pipeline/{name}"), |bencher| {
            bencher.to_async(&runtime).iter_batched(
                fresh_event,
                |event| pipeline.process(event, pipeline.budget(), ()),
                BatchSize::SmallInput,
            );
        });
    }
}

fn idle() -> Registry {
    let mut registry = Registry::default();
    registry.register(Idle).unwrap();
    registry
}

fn reference() -> Registry {
    let mut registry = Registry::default();
    hookyard::handlers::register(&mut registry).unwrap();
    registry
}

criterion_group!(benches, verify, decode, claim, pipeline);
criterion_main!(benches);
