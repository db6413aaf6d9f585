//! Hasura: its triggers against our handlers, and our operations against its schema.

mod metadata;
mod operations;
mod triggers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use self::metadata::Metadata;
use super::report::Finding;
use crate::cli;
use crate::clients::Call;
use crate::clients::http::{Policy, Request, Upstream};
use crate::clock::SharedClock;
use crate::config::HasuraConfig;
use crate::pipeline::{HandlerInfo, RegistryError};
use crate::telemetry::Metrics;

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct HasuraArgs {
    /// Hasura role the operations have to be possible for; without it, the admin.
    #[arg(long, env = "HASURA_ROLE")]
    hasura_role: Option<String>,
    /// What the bridge waits for the broker, to hold triggers' timeouts against.
    #[arg(long, env = "BRIDGE_TIMEOUT_MS", default_value_t = 30_000)]
    bridge_timeout_ms: u64,
}

/// One Hasura, asked without changing anything.
struct Api {
    upstream: Upstream,
    clock: SharedClock,
    role: Option<HeaderValue>,
}

/// Looks at triggers and operations.
pub(super) async fn all(
    config: &HasuraConfig,
    args: &HasuraArgs,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> Vec<Finding> {
    let api = match Api::new(config, args, clock, metrics) {
        Ok(api) => api,
        Err(why) => return vec![Finding::skipped("Hasura triggers", why)],
    };
    let role = api.role.is_some();
    let (metadata, whole, allowed) =
        tokio::join!(api.metadata(), operations::schema(&api, false), async {
            match role {
                true => Some(operations::schema(&api, true).await),
                false => None,
            }
        },);
    let mut findings = match (metadata, handlers()) {
        (Ok(metadata), Ok(handlers)) => {
            let bridge = Duration::from_millis(args.bridge_timeout_ms);
            let mut findings = triggers::judge(&metadata, &handlers, bridge);
            // Whether operations fit needs the same answer, and says why there is none.
            if let Ok(schema) = &whole {
                findings.extend(metadata.whole_rows().iter().filter_map(|row| {
                    let large = operations::large_columns(schema, &row.type_name);
                    triggers::payload(row, &large)
                }));
            }
            findings
        }
        (Err(why), _) => vec![Finding::skipped("Hasura triggers", why)],
        (_, Err(error)) => vec![Finding::skipped("Hasura triggers", error.to_string())],
    };
    let role = args.hasura_role.as_deref().map(str::trim).filter(|_| role);
    findings.extend(operations::judge(allowed.unwrap_or(whole), role));
    findings
}

fn handlers() -> Result<Vec<HandlerInfo>, RegistryError> {
    Ok(cli::registry()?.describe())
}

impl Api {
    fn new(
        config: &HasuraConfig,
        args: &HasuraArgs,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, &'static str> {
        let url = config.graphql_url.trim_end_matches('/');
        let base = url
            .strip_suffix("/v1/graphql")
            .ok_or("HASURA_GRAPHQL_URL does not end with /v1/graphql")?;
        let secret = HeaderValue::from_str(config.admin_secret.expose_secret());
        let mut secret = secret.map_err(|_| "the admin secret cannot be sent in a header")?;
        secret.set_sensitive(true);
        let role = match args.hasura_role.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(role) => Some(HeaderValue::from_str(role).map_err(|_| "the role is no header")?),
        };
        // Metadata and schema of a large Hasura are tens of megabytes.
        let policy = Policy::default().with_max_answer_bytes(256 << 20);
        let upstream = Upstream::new(
            "hasura",
            base,
            Arc::clone(metrics),
            Arc::clone(clock),
            policy,
        );
        Ok(Self {
            upstream: upstream
                .map_err(|_| "no client can be made")?
                .with_header(HeaderName::from_static("x-hasura-admin-secret"), secret),
            clock: Arc::clone(clock),
            role,
        })
    }

    async fn metadata(&self) -> Result<Metadata, String> {
        let question = json!({"type": "export_metadata", "version": 2, "args": {}});
        let answer = self.post("/v1/metadata", &question, None).await?;
        // Version 2 wraps what version 1 answers.
        let metadata = match answer.get("metadata") {
            Some(metadata) => metadata.clone(),
            None => answer,
        };
        serde_json::from_value(metadata).map_err(|_| "the metadata has an unknown shape".to_owned())
    }

    /// Asks about the schema as the role sees it, or as the admin does.
    async fn introspect(&self, query: &str, as_role: bool) -> Result<Value, String> {
        let role = self.role.as_ref().filter(|_| as_role);
        let question = json!({"query": query});
        let mut answer = self.post("/v1/graphql", &question, role).await?;
        if let Some(errors) = answer.get("errors") {
            let code = errors.pointer("/0/extensions/code").and_then(Value::as_str);
            let plain = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            let code = code.filter(plain).unwrap_or("no code");
            return Err(format!("introspection is refused ({code})"));
        }
        Ok(answer["data"].take())
    }

    async fn post(
        &self,
        path: &str,
        question: &Value,
        role: Option<&HeaderValue>,
    ) -> Result<Value, String> {
        let call = Call::for_check(&self.clock).map_err(|error| error.to_string())?;
        let body = Bytes::from(question.to_string());
        let mut request = Request::post(path, "application/json", body).once();
        if let Some(role) = role {
            let name = HeaderName::from_static("x-hasura-role");
            request = request.with_header(name, role.clone());
        }
        let (status, body) = self
            .upstream
            .send(&call, "look", request, |answer| {
                Ok((answer.status, answer.body.clone()))
            })
            .await
            .map_err(|error| error.to_string())?;
        match status {
            StatusCode::OK => {
                serde_json::from_slice(&body).map_err(|_| "the answer is no JSON".to_owned())
            }
            StatusCode::NOT_FOUND => Err(format!("{path} is not served")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err("HASURA_ADMIN_SECRET is not accepted".to_owned())
            }
            other => Err(format!("Hasura answered {}", other.as_u16())),
        }
    }
}
