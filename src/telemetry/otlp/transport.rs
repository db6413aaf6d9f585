//! Sends one batch, over HTTP or gRPC, and says what became of it.
//!
//! Protocol: <https://opentelemetry.io/docs/specs/otlp/>.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::config::{OtlpConfig, OtlpProtocol};

const USER_AGENT: &str = concat!("hookyard/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read; it holds a number and a sentence.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Traces cannot be exported with this configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("traces cannot be exported: {0}")]
pub struct SetupError(&'static str);

/// Why a batch was not taken. Words of this program and of the protocol only.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) status: Option<u16>,
    pub(super) may_pass: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    fn passing(code: &'static str) -> Self {
        Self {
            code,
            status: None,
            may_pass: true,
            retry_after: None,
        }
    }

    pub(super) fn rejected_some() -> Self {
        Self {
            may_pass: false,
            ..Self::passing("the collector rejected some spans")
        }
    }
}

/// The way to the collector.
pub(super) enum Transport {
    Http {
        client: reqwest::Client,
        url: String,
        headers: HeaderMap,
    },
    Grpc {
        client: TraceServiceClient<Channel>,
        headers: MetadataMap,
    },
}

impl Transport {
    /// Makes the way; nothing is connected before the first batch.
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, SetupError> {
        let base = config.endpoint.trim_end_matches('/');
        let mut headers = config.headers.clone();
        match config.protocol {
            OtlpProtocol::Http => {
                headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-protobuf"),
                );
                let client = reqwest::Client::builder()
                    .user_agent(USER_AGENT)
                    .connect_timeout(CONNECT_TIMEOUT)
                    .timeout(TRY_TIMEOUT)
                    // The headers hold a secret, which must not travel on.
                    .redirect(reqwest::redirect::Policy::none())
                    .referer(false)
                    .no_proxy()
                    .retry(reqwest::retry::never())
                    .build();
                Ok(Self::Http {
                    client: client.map_err(|_| SetupError("TLS is not available"))?,
                    url: format!("{base}/v1/traces"),
                    headers,
                })
            }
            OtlpProtocol::Grpc => {
                let not_usable = |_| SetupError("the endpoint is not usable for gRPC");
                let mut endpoint = Endpoint::from_shared(base.to_owned())
                    .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
                    .map_err(not_usable)?
                    .connect_timeout(CONNECT_TIMEOUT)
                    .timeout(TRY_TIMEOUT);
                if base.starts_with("https:") {
                    let tls = ClientTlsConfig::new().with_enabled_roots();
                    endpoint = endpoint.tls_config(tls).map_err(not_usable)?;
                }
                Ok(Self::Grpc {
                    client: TraceServiceClient::new(endpoint.connect_lazy())
                        .max_decoding_message_size(MAX_ANSWER_BYTES),
                    headers: MetadataMap::from_headers(headers),
                })
            }
        }
    }

    /// Sends a batch; returns how many of its spans were rejected.
    pub(super) async fn send(
        &mut self,
        request: ExportTraceServiceRequest,
    ) -> Result<usize, Failure> {
        let answer = match self {
            Self::Http {
                client,
                url,
                headers,
            } => {
                let post = client.post(&*url).headers(headers.clone());
                post_http(post.body(request.encode_to_vec())).await?
            }
            Self::Grpc { client, headers } => {
                let mut request = tonic::Request::new(request);
                *request.metadata_mut() = headers.clone();
                let answer = client.export(request).await;
                answer.map_err(|status| by_grpc_code(&status))?.into_inner()
            }
        };
        let rejected = answer.partial_success.map_or(0, |some| some.rejected_spans);
        Ok(usize::try_from(rejected).unwrap_or(0))
    }
}

async fn post_http(post: reqwest::RequestBuilder) -> Result<ExportTraceServiceResponse, Failure> {
    // What the error says is dropped: it names the endpoint.
    let lost = |error: reqwest::Error| {
        Failure::passing(if error.is_timeout() {
            "the collector does not answer in time"
        } else {
            "the collector cannot be reached"
        })
    };
    let mut answer = post.send().await.map_err(lost)?;
    let status = answer.status();
    if !status.is_success() {
        let seconds = answer.headers().get(RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        return Err(Failure {
            status: Some(status.as_u16()),
            may_pass: matches!(status.as_u16(), 429 | 502 | 503 | 504),
            retry_after: seconds.map(Duration::from_secs),
            ..Failure::passing("the collector refuses traces")
        });
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Ok(ExportTraceServiceResponse::default());
        }
        body.extend_from_slice(&chunk);
    }
    // It was taken, whatever the rest says.
    Ok(ExportTraceServiceResponse::decode(Bytes::from(body)).unwrap_or_default())
}

/// Which codes may pass: <https://opentelemetry.io/docs/specs/otlp/#failures>.
fn by_grpc_code(status: &tonic::Status) -> Failure {
    use tonic::Code;
    let code = status.code();
    Failure {
        may_pass: matches!(
            code,
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss
        ),
        // The status's own words may name the endpoint.
        ..Failure::passing(code.description())
    }
}
