//! Where traces go, under the names OpenTelemetry gives these variables.
//!
//! Names and formats: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::reader::{Reader, Variable};

const ENDPOINT: Variable = Variable::optional(
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "–",
    "where traces are sent, such as `http://localhost:4318`; unset = no traces are exported",
);
const PROTOCOL: Variable = Variable::defaulted(
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "http/protobuf",
    "`http/protobuf` (`/v1/traces` is appended to the endpoint) or `grpc`",
);
const HEADERS: Variable = Variable::optional(
    "OTEL_EXPORTER_OTLP_HEADERS",
    "–",
    "headers of every export, `name=value` separated by commas, values percent-encoded; a secret",
);
const SAMPLER: Variable = Variable::defaulted(
    "OTEL_TRACES_SAMPLER",
    "parentbased_always_on",
    "which traces are exported: `always_on`, `always_off`, `traceidratio`, or one of these after \
     `parentbased_`, which asks only when the publisher has not decided",
);
const SAMPLER_ARG: Variable = Variable::defaulted(
    "OTEL_TRACES_SAMPLER_ARG",
    "1",
    "share of the traces for the `traceidratio` samplers, 0 to 1",
);
const SERVICE_NAME: Variable = Variable::optional(
    "OTEL_SERVICE_NAME",
    "`K_SERVICE`",
    "`service.name` of the exported traces",
);
const RESOURCE_ATTRIBUTES: Variable = Variable::optional(
    "OTEL_RESOURCE_ATTRIBUTES",
    "–",
    "more attributes of the exported traces' resource, `name=value` separated by commas, values \
     percent-encoded; they win over what is found out on Cloud Run",
);
/// Set by Cloud Run only; the log's name of the service has a default.
const CLOUD_RUN_SERVICE: Variable = Variable::optional("K_SERVICE", "–", "");
/// As in Google's own clients, for stand-ins.
const METADATA_HOST: Variable = Variable::defaulted("GCE_METADATA_HOST", "169.254.169.254", "");

pub(super) const VARIABLES: &[&Variable] = &[
    &ENDPOINT,
    &PROTOCOL,
    &HEADERS,
    &SAMPLER,
    &SAMPLER_ARG,
    &SERVICE_NAME,
    &RESOURCE_ATTRIBUTES,
];

/// How traces are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protobuf over HTTP.
    Http,
    /// Protobuf over gRPC.
    Grpc,
}

/// Which traces are exported when nobody has decided yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RootSampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// This share of them, 0 to 1, the same ones in every service that asks the trace id.
    Ratio(f64),
}

/// Which traces are exported (`OTEL_TRACES_SAMPLER`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerConfig {
    /// Whether the decision of whoever made the trace is taken over.
    pub parent_based: bool,
    /// What is decided otherwise.
    pub root: RootSampler,
}

/// Where traces go and what is said about this service in them.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// Base URL (`OTEL_EXPORTER_OTLP_ENDPOINT`).
    pub endpoint: String,
    /// How to talk to it (`OTEL_EXPORTER_OTLP_PROTOCOL`).
    pub protocol: OtlpProtocol,
    /// Sent along, all marked as sensitive (`OTEL_EXPORTER_OTLP_HEADERS`).
    pub headers: HeaderMap,
    /// Which traces are exported.
    pub sampler: SamplerConfig,
    /// `service.name` (`OTEL_SERVICE_NAME`), when it is set.
    pub service_name: Option<String>,
    /// More resource attributes (`OTEL_RESOURCE_ATTRIBUTES`).
    pub attributes: Vec<(String, String)>,
    /// The metadata server, when this runs on Cloud Run (`K_SERVICE` is set).
    pub metadata_host: Option<String>,
}

/// What the service tells about itself beside logs and metrics.
#[derive(Debug, Clone, Default)]
pub struct TelemetryConfig {
    /// Where traces go; `None` when they are not exported.
    pub otlp: Option<OtlpConfig>,
}

impl TelemetryConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let Some(endpoint) = reader.text(&ENDPOINT) else {
            return Self::default();
        };
        let endpoint = reader.url(&ENDPOINT, &endpoint);
        let protocol = match reader.required(&PROTOCOL).as_str() {
            "grpc" => OtlpProtocol::Grpc,
            "http/protobuf" => OtlpProtocol::Http,
            _ => {
                reader.problem(PROTOCOL.name, "must be http/protobuf or grpc");
                OtlpProtocol::Http
            }
        };
        let metadata_host = reader.required(&METADATA_HOST);
        let on_cloud_run = reader.text(&CLOUD_RUN_SERVICE).is_some();
        let otlp = OtlpConfig {
            endpoint,
            protocol,
            headers: read_headers(reader),
            sampler: read_sampler(reader),
            service_name: reader.text(&SERVICE_NAME),
            attributes: read_pairs(reader, &RESOURCE_ATTRIBUTES),
            metadata_host: on_cloud_run.then_some(metadata_host),
        };
        Self { otlp: Some(otlp) }
    }
}

fn read_sampler(reader: &mut Reader<'_>) -> SamplerConfig {
    let name = reader.required(&SAMPLER);
    let (parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name.as_str()),
    };
    let root = match root {
        "always_on" => RootSampler::AlwaysOn,
        "always_off" => RootSampler::AlwaysOff,
        "traceidratio" => {
            let share: f64 = reader.parsed(&SAMPLER_ARG, "a number from 0 to 1");
            if !(0.0..=1.0).contains(&share) {
                reader.problem(SAMPLER_ARG.name, "must be a number from 0 to 1");
            }
            RootSampler::Ratio(share)
        }
        _ => {
            reader.problem(
                SAMPLER.name,
                "must be always_on, always_off, traceidratio, or one of these after parentbased_",
            );
            RootSampler::AlwaysOff
        }
    };
    SamplerConfig { parent_based, root }
}

fn read_headers(reader: &mut Reader<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in read_pairs(reader, &HEADERS) {
        let name = HeaderName::try_from(name.to_ascii_lowercase());
        // A gRPC name in `-bin` would ask for another encoding.
        let name = name.ok().filter(|name| !name.as_str().ends_with("-bin"));
        match (name, HeaderValue::try_from(value)) {
            (Some(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            _ => reader.problem(HEADERS.name, "holds something that cannot be a header"),
        }
    }
    headers
}

/// Reads `name=value,name=value` with percent-encoded values.
fn read_pairs(reader: &mut Reader<'_>, variable: &Variable) -> Vec<(String, String)> {
    let text = reader.text(variable).unwrap_or_default();
    let mut pairs = Vec::new();
    for item in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let pair = item.split_once('=').and_then(|(name, value)| {
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
        });
        match pair {
            Some(pair) => pairs.push(pair),
            None => reader.problem(
                variable.name,
                "must be name=value pairs separated by commas, values percent-encoded",
            ),
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::super::ConfigError;
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<TelemetryConfig, ConfigError> {
        let lookup = |name: &str| {
            let found = set.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let mut reader = Reader::new(&lookup);
        let config = TelemetryConfig::read(&mut reader);
        reader.finish().map(|()| config)
    }

    const LOCAL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        let config = read(&[("OTEL_TRACES_SAMPLER", "always_on")]).unwrap();
        assert!(config.otlp.is_none());
    }

    #[test]
    fn the_standard_variables_are_read() {
        let otlp = read(&[
            LOCAL,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "Authorization=Bearer%20canary, x-team = a",
            ),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test,a=b%2Cc",
            ),
        ]);
        let otlp = otlp.unwrap().otlp.unwrap();

        assert_eq!(otlp.protocol, OtlpProtocol::Grpc);
        assert_eq!(otlp.headers["authorization"], "Bearer canary");
        assert_eq!(otlp.headers["x-team"], "a");
        assert!(!format!("{otlp:?}").contains("canary"));
        let sampler = SamplerConfig {
            parent_based: true,
            root: RootSampler::Ratio(0.25),
        };
        assert_eq!(otlp.sampler, sampler);
        assert_eq!(otlp.attributes[1], ("a".to_owned(), "b,c".to_owned()));
        assert_eq!(otlp.metadata_host, None);
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_value() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "canary"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://canary.example.com"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=canary%0A"),
            ("OTEL_TRACES_SAMPLER", "canary"),
        ] {
            let error = read(&[(name, value), LOCAL]).unwrap_err();
            assert_eq!(error.0[0].variable, name);
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let share = [
            LOCAL,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ];
        assert_eq!(
            read(&share).unwrap_err().0[0].variable,
            "OTEL_TRACES_SAMPLER_ARG"
        );
    }
}
