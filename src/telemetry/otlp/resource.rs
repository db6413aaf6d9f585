//! What is said about this service in every batch.
//!
//! Names: <https://opentelemetry.io/docs/specs/semconv/resource/faas/> and
//! <https://opentelemetry.io/docs/specs/semconv/resource/cloud/>.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource as Message;

use super::span::key_value;
use crate::config::{LogConfig, OtlpConfig};

/// How long the metadata server may take; it is on the same machine.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_METADATA_BYTES: u64 = 1024;

/// Attributes of the resource, each name once; a later one of the same name wins.
pub(super) struct Resource {
    attributes: Vec<(String, String)>,
    /// What the operator said, which wins over what is found out.
    given: Vec<(String, String)>,
    metadata_host: Option<String>,
}

impl Resource {
    pub(super) fn new(config: &OtlpConfig, about: &LogConfig) -> Self {
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut attributes = vec![
            own("service.name", &about.service),
            own("service.version", &about.revision),
            own("telemetry.sdk.language", "rust"),
            own("telemetry.sdk.name", env!("CARGO_PKG_NAME")),
            own("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        if config.metadata_host.is_some() {
            attributes.extend([
                own("cloud.provider", "gcp"),
                own("cloud.platform", "gcp_cloud_run"),
                own("faas.name", &about.service),
                own("faas.version", &about.revision),
            ]);
        }
        let mut given = config.attributes.clone();
        given.extend(
            config
                .service_name
                .as_deref()
                .map(|it| own("service.name", it)),
        );
        Self {
            attributes,
            given,
            metadata_host: config.metadata_host.clone(),
        }
    }

    /// Asks Cloud Run's metadata server for what the environment does not say
    /// (<https://cloud.google.com/run/docs/container-contract#metadata-server>).
    pub(super) async fn complete(&mut self) {
        let Some(host) = self.metadata_host.take() else {
            return;
        };
        let client = reqwest::Client::builder()
            .timeout(METADATA_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build();
        let Ok(client) = client else { return };
        let ask = async |path: &str| {
            let url = format!("http://{host}/computeMetadata/v1/{path}");
            let answer = client.get(url).header("metadata-flavor", "Google");
            let answer = answer.send().await.ok()?.error_for_status().ok()?;
            let short = answer
                .content_length()
                .is_some_and(|n| n <= MAX_METADATA_BYTES);
            if short {
                answer.text().await.ok()
            } else {
                None
            }
        };
        let (region, instance, project) = tokio::join!(
            ask("instance/region"), // projects/123/regions/europe-west1
            ask("instance/id"),
            ask("project/project-id"),
        );
        let region = region.and_then(|it| it.rsplit('/').next().map(str::to_owned));
        let found = [
            ("cloud.region", region),
            ("faas.instance", instance),
            ("cloud.account.id", project),
        ];
        for (name, value) in found {
            let value = value.filter(|value| !value.is_empty());
            self.attributes
                .extend(value.map(|it| (name.to_owned(), it)));
        }
    }

    /// Returns the resource in the form in which it is sent.
    pub(super) fn message(&self) -> Message {
        let own = self.attributes.iter();
        let own = own.filter(|(name, _)| !self.given.iter().any(|(given, _)| given == name));
        let last = |(i, pair): (usize, &'_ (String, String))| {
            !self.given[i + 1..].iter().any(|(name, _)| *name == pair.0)
        };
        let given = self.given.iter().enumerate().filter(|it| last(*it));
        let all = own.chain(given.map(|(_, pair)| pair));
        let attributes = all
            .map(|(name, value)| key_value(name.as_str(), Value::StringValue(value.clone())))
            .collect();
        Message {
            attributes,
            ..Message::default()
        }
    }
}
