//! A live Hasura: its metadata and its GraphQL schema.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, StatusCode};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::metadata::Metadata;
use crate::clients::http::{Policy, Request, Upstream};
use crate::clients::{Call, Gate, Steps};
use crate::clock::{Deadline, SharedClock, SystemClock};
use crate::config::HasuraConfig;
use crate::error::{BoxError, Error};
use crate::event::{EventId, TraceContext};
use crate::telemetry::{Metrics, Tracer};

const JSON: &str = "application/json";
const ADMIN_SECRET: HeaderName = HeaderName::from_static("x-hasura-admin-secret");
const ROLE: HeaderName = HeaderName::from_static("x-hasura-role");

/// Metadata and schemas of a large database are tens of megabytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Applying builds triggers in the database.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest text of Hasura's that is shown.
const MAX_TEXT: usize = 300;

/// Which Hasura to ask.
#[derive(Args, Default)]
pub(super) struct ConnectionArgs {
    /// URL of the metadata API, when it is not that of HASURA_GRAPHQL_URL with /v1/metadata
    /// instead of /v1/graphql. The secret is HASURA_ADMIN_SECRET.
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
}

/// A live Hasura.
pub(super) struct Connection {
    config: HasuraConfig,
    metadata_url: Option<String>,
    clock: SharedClock,
}

/// What `export_metadata` (version 2) answers.
#[derive(Deserialize)]
pub(super) struct Exported {
    /// Changes with every change of the metadata.
    pub(super) resource_version: u64,
    pub(super) metadata: Metadata,
}

/// What Hasura answers instead of success.
#[derive(Deserialize)]
struct Refusal {
    code: Option<String>,
    error: Option<String>,
}

impl Connection {
    /// Reads `HASURA_GRAPHQL_URL` and `HASURA_ADMIN_SECRET`.
    ///
    /// # Errors
    /// When one of them is missing or unusable.
    pub(super) fn open(args: &ConnectionArgs) -> Result<Self, BoxError> {
        Ok(Self {
            config: HasuraConfig::from_env()?,
            metadata_url: args.metadata_url.clone(),
            clock: SystemClock::shared(),
        })
    }

    /// Returns the metadata and its version.
    ///
    /// # Errors
    /// What is wrong with URL, secret or answer.
    pub(super) async fn export(&self) -> Result<Exported, BoxError> {
        let command = json!({"type": "export_metadata", "version": 2, "args": {}});
        let request = Request::post("", JSON, serde_json::to_vec(&command)?);
        let answer = self
            .ask(&self.metadata_url()?, request.repeatable())
            .await?;
        serde_json::from_slice(&answer)
            .map_err(|_| "Hasura's metadata is not in the shape of version 3".into())
    }

    /// Runs commands, all or none, unless the metadata is no longer of this version.
    ///
    /// # Errors
    /// Why Hasura did not.
    pub(super) async fn apply(&self, commands: &[Value], version: u64) -> Result<(), BoxError> {
        let bulk = json!({"type": "bulk", "resource_version": version, "args": commands});
        let request = Request::post("", JSON, serde_json::to_vec(&bulk)?);
        self.ask(&self.metadata_url()?, request.once()).await?;
        Ok(())
    }

    /// Runs a GraphQL query, as a role or as admin, and returns its `data`.
    ///
    /// # Errors
    /// What is wrong with URL, secret or answer.
    pub(super) async fn query(&self, query: &str, role: Option<&str>) -> Result<Value, BoxError> {
        let mut request = Request::post("", JSON, serde_json::to_vec(&json!({"query": query}))?);
        if let Some(role) = role {
            let role =
                HeaderValue::from_str(role).map_err(|_| "--role cannot be sent in a header")?;
            request = request.with_header(ROLE, role);
        }
        let answer = self
            .ask(&self.config.graphql_url, request.repeatable())
            .await?;
        let answer: Value =
            serde_json::from_slice(&answer).map_err(|_| "Hasura's answer is not JSON")?;
        // GraphQL says 200 to errors as well.
        if let Some(error) = answer["errors"].get(0) {
            let refusal = Refusal {
                code: text(&error["extensions"]["code"]),
                error: text(&error["message"]),
            };
            return Err(self.refused(StatusCode::OK, &refusal).into());
        }
        match &answer["data"] {
            Value::Null => Err("Hasura's answer holds no data".into()),
            data => Ok(data.clone()),
        }
    }

    fn metadata_url(&self) -> Result<String, BoxError> {
        if let Some(url) = &self.metadata_url {
            return Ok(url.clone());
        }
        let url = self.config.graphql_url.trim_end_matches('/');
        match url.strip_suffix("/v1/graphql") {
            Some(base) => Ok(format!("{base}/v1/metadata")),
            None => {
                Err("HASURA_GRAPHQL_URL does not end in /v1/graphql; give --metadata-url".into())
            }
        }
    }

    async fn ask(&self, url: &str, request: Request) -> Result<Bytes, BoxError> {
        let policy = Policy::default()
            .with_try_timeout(PATIENCE)
            .with_max_answer_bytes(MAX_ANSWER_BYTES);
        let mut secret = HeaderValue::from_str(self.config.admin_secret.expose_secret())
            .map_err(|_| "HASURA_ADMIN_SECRET cannot be sent in a header")?;
        secret.set_sensitive(true);
        let upstream = Upstream::new("hasura", url, Metrics::new()?, self.clock.clone(), policy)?
            .with_header(ADMIN_SECRET, secret);
        let call = Call {
            event_id: EventId::new("command").ok_or("no id")?,
            generation: 0,
            handler: "command",
            depth: 0,
            deadline: Deadline::after(&self.clock, PATIENCE),
            trace: TraceContext::new_root(),
            tracer: Tracer::off(),
            steps: Steps::default(),
            gate: Gate::default(),
        };
        let answer = upstream.send(&call, "POST", request, |answer| {
            if answer.status.is_server_error() {
                return Err(answer.error_by_status());
            }
            Ok((answer.status, answer.body.clone()))
        });
        let (status, body) = answer.await.map_err(|error| unreachable_because(&error))?;
        if status.is_success() {
            return Ok(body);
        }
        let refusal = serde_json::from_slice(&body).unwrap_or(Refusal {
            code: None,
            error: None,
        });
        Err(self.refused(status, &refusal).into())
    }

    /// Says what Hasura said. Its words name tables and variables; the secret is not among them.
    fn refused(&self, status: StatusCode, refusal: &Refusal) -> String {
        let code = refusal.code.as_deref().unwrap_or(status.as_str());
        let text = refusal.error.as_deref().unwrap_or_default();
        let text = text.replace(self.config.admin_secret.expose_secret(), "…");
        let text: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_TEXT)
            .collect();
        let hint = match code {
            "access-denied" => "; check HASURA_ADMIN_SECRET",
            "404" => "; check HASURA_GRAPHQL_URL",
            "conflict" => "; somebody changed the metadata meanwhile, look again",
            _ => "",
        };
        format!("Hasura refused ({code}): {text}{hint}")
    }
}

fn unreachable_because(error: &Error) -> String {
    let code = error.code();
    format!(
        "Hasura did not answer ({code}); check HASURA_GRAPHQL_URL, and that it is reachable from here"
    )
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
