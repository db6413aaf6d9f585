//! A collector that keeps what it is sent, over HTTP and gRPC on one port.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A collector, listening until it is dropped.
pub(crate) struct Collector {
    kept: Arc<Kept>,
    address: std::net::SocketAddr,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Kept {
    requests: Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>,
    /// Statuses that are answered before anything is taken.
    refusals: Mutex<Vec<StatusCode>>,
    refused: Mutex<usize>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let kept = Arc::new(Kept::default());
        let routes = Router::new()
            .route("/v1/traces", post(take_http))
            .route(EXPORT, post(take_grpc))
            .with_state(kept.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            kept,
            address,
            _server: server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the next exports fail.
    pub(crate) fn refuse(&self, statuses: &[StatusCode]) {
        self.kept.refusals.lock().unwrap().extend(statuses);
    }

    pub(crate) fn refused(&self) -> usize {
        *self.kept.refused.lock().unwrap()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.kept.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|(_, it)| &it.resource_spans);
        let scopes = resources.flat_map(|it| &it.scope_spans);
        scopes.flat_map(|it| it.spans.clone()).collect()
    }

    /// Returns the only span of this name.
    pub(crate) fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        let mut named = spans.iter().filter(|span| span.name == name);
        let found = named.next().cloned();
        assert!(named.next().is_none(), "more than one {name}");
        found.unwrap_or_else(|| {
            let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
            panic!("no {name} among {names:?}")
        })
    }

    /// Returns the first request's headers and resource attributes.
    pub(crate) fn first(&self) -> (HeaderMap, Vec<KeyValue>) {
        let requests = self.kept.requests.lock().unwrap();
        let (headers, request) = &requests[0];
        let resource = request.resource_spans[0].resource.clone().unwrap();
        (headers.clone(), resource.attributes)
    }
}

impl Kept {
    fn take(&self, headers: HeaderMap, message: &[u8]) -> Result<Vec<u8>, StatusCode> {
        let mut refusals = self.refusals.lock().unwrap();
        if !refusals.is_empty() {
            *self.refused.lock().unwrap() += 1;
            return Err(refusals.remove(0));
        }
        let request = ExportTraceServiceRequest::decode(message).unwrap();
        self.requests.lock().unwrap().push((headers, request));
        Ok(ExportTraceServiceResponse::default().encode_to_vec())
    }
}

async fn take_http(State(kept): State<Arc<Kept>>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    match kept.take(headers, &body) {
        Ok(answer) => answer.into_response(),
        Err(status) => status.into_response(),
    }
}

/// gRPC by hand: a byte for the compression, four for the length, the message; the status is a
/// trailer.
async fn take_grpc(State(kept): State<Arc<Kept>>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["content-type"], "application/grpc");
    assert_eq!(body[0], 0);
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
    assert_eq!(length as usize, body.len() - 5);
    let (frame, status) = match kept.take(headers, &body[5..]) {
        Ok(answer) => {
            let mut frame = vec![0];
            frame.extend((answer.len() as u32).to_be_bytes());
            frame.extend(answer);
            (frame, "0")
        }
        Err(_) => (Vec::new(), "14"), // UNAVAILABLE
    };
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(status),
    )]);
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// Returns an attribute as text.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|it| it.key == name)?;
    match found.value.as_ref()? {
        AnyValue {
            value: Some(Value::StringValue(text)),
        } => Some(text.clone()),
        AnyValue {
            value: Some(Value::IntValue(number)),
        } => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
