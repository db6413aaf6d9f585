//! Google's REST APIs, asked without changing anything.

use std::sync::Arc;
use std::time::Duration;

use google_cloud_auth::credentials::{Builder, CacheableResource};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::report::Finding;
use super::Places;
use crate::clients::Call;
use crate::clients::http::{Policy, Request, Upstream};
use crate::clock::SharedClock;
use crate::telemetry::Metrics;

/// Time to find credentials: outside of Google Cloud nobody answers where they would be.
const FINDING_CREDENTIALS: Duration = Duration::from_secs(5);

/// Why something was not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unseen {
    /// It does not exist.
    Absent,
    /// It could not be looked at.
    Hidden {
        why: String,
        /// What makes it visible.
        command: Option<String>,
    },
}

impl Unseen {
    pub(super) fn hidden(why: impl Into<String>) -> Self {
        Self::Hidden {
            why: why.into(),
            command: None,
        }
    }

    /// Makes the row of something that could not be looked at.
    pub(super) fn skip(&self, check: &str) -> Finding {
        match self {
            Self::Absent => Finding::skipped(check, "does not exist"),
            Self::Hidden { why, command } => {
                let finding = Finding::skipped(check, why.as_str());
                match command {
                    Some(command) => finding.mend(command),
                    None => finding,
                }
            }
        }
    }
}

/// The APIs, each with what is needed to look at it.
pub(in super::super) struct Google {
    pub(super) pubsub: Api,
    /// Rights on topics and subscriptions, which the emulator does not have.
    pub(super) pubsub_rights: Api,
    pub(super) run: Api,
    pub(super) accounts: Api,
    pub(super) projects: Api,
}

/// One API.
pub(super) struct Api {
    upstream: Result<Upstream, Unseen>,
    clock: SharedClock,
    /// Its name for `gcloud services enable`.
    name: &'static str,
    /// The role that lets somebody look.
    role: &'static str,
}

impl Google {
    /// Finds credentials. With an emulator and no token of the caller's none are looked for:
    /// a real project is not what is looked at then.
    pub(in super::super) async fn connect(
        places: &Places,
        token: Option<&SecretString>,
        emulator: Option<&str>,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let credentials = match (token, emulator) {
            (Some(token), _) => bearer(token),
            (None, Some(_)) => Err(Unseen::hidden("the emulator does not have it")),
            (None, None) => default_credentials().await,
        };
        let api = |name, role, url: &str, headers: Result<HeaderMap, Unseen>| Api {
            upstream: headers.and_then(|headers| upstream(name, url, headers, metrics, clock)),
            clock: Arc::clone(clock),
            name,
            role,
        };
        let emulated = emulator.map(|host| format!("http://{host}/v1"));
        let pubsub = |role, url: &str, headers| api("pubsub.googleapis.com", role, url, headers);
        Self {
            pubsub: match &emulated {
                Some(url) => pubsub("roles/pubsub.viewer", url, Ok(HeaderMap::new())),
                None => pubsub("roles/pubsub.viewer", &places.pubsub, credentials.clone()),
            },
            pubsub_rights: pubsub(
                "roles/iam.securityReviewer",
                places.pubsub_rights.as_ref().unwrap_or(&places.pubsub),
                credentials.clone(),
            ),
            run: api(
                "run.googleapis.com",
                "roles/run.viewer",
                &places.run,
                credentials.clone(),
            ),
            accounts: api(
                "iam.googleapis.com",
                "roles/iam.securityReviewer",
                &places.accounts,
                credentials.clone(),
            ),
            projects: api(
                "cloudresourcemanager.googleapis.com",
                "roles/iam.securityReviewer",
                &places.projects,
                credentials,
            ),
        }
    }
}

impl Api {
    /// Reads a resource of `project`; `path` begins with a slash.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        project: &str,
        path: &str,
    ) -> Result<T, Unseen> {
        self.ask(project, Request::get(path)).await
    }

    /// Asks a question that takes a body.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        project: &str,
        path: &str,
    ) -> Result<T, Unseen> {
        let request = Request::post(path, "application/json", "{}");
        self.ask(project, request).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        project: &str,
        question: Request,
    ) -> Result<T, Unseen> {
        let upstream = self.upstream.as_ref().map_err(Clone::clone)?;
        let call = Call::for_check(&self.clock).map_err(|e| Unseen::hidden(e.to_string()))?;
        let (status, body) = upstream
            .send(&call, "look", question.once(), |answer| {
                Ok((answer.status, answer.body.clone()))
            })
            .await
            .map_err(|error| Unseen::hidden(error.to_string()))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| Unseen::hidden(format!("{} gave an unreadable answer", self.name)));
        }
        Err(self.refusal(project, status, &body))
    }

    fn refusal(&self, project: &str, status: StatusCode, body: &[u8]) -> Unseen {
        let body: Refusal = serde_json::from_slice(body).unwrap_or_default();
        let disabled = |detail: &Detail| detail.reason == "SERVICE_DISABLED";
        let (why, command) = match status.as_u16() {
            404 => return Unseen::Absent,
            401 => ("Google does not take the access token".to_owned(), {
                Some(GET_TOKEN.to_owned())
            }),
            403 if body.error.details.iter().any(disabled) => (
                format!("the API {} is not enabled", self.name),
                Some(format!(
                    "gcloud services enable {} --project={project}",
                    self.name
                )),
            ),
            403 => (
                format!("we may not look, which takes {}", self.role),
                Some(format!(
                    "gcloud projects add-iam-policy-binding {project} \
                     --member=\"user:$(gcloud config get account)\" --role={}",
                    self.role
                )),
            ),
            501 => ("the emulator does not have it".to_owned(), None),
            other => (format!("{} answered {other}", self.name), None),
        };
        Unseen::Hidden { why, command }
    }
}

/// The part of Google's error answer that matters: <https://google.aip.dev/193>.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    reason: String,
}

const GET_TOKEN: &str = "export GOOGLE_OAUTH_ACCESS_TOKEN=\"$(gcloud auth print-access-token)\"";

fn upstream(
    name: &'static str,
    url: &str,
    headers: HeaderMap,
    metrics: &Arc<Metrics>,
    clock: &SharedClock,
) -> Result<Upstream, Unseen> {
    let policy = Policy::default().with_max_answer_bytes(4 << 20);
    let made = Upstream::new(name, url, Arc::clone(metrics), Arc::clone(clock), policy);
    let mut upstream = made.map_err(|error| Unseen::hidden(error.to_string()))?;
    for (name, value) in &headers {
        upstream = upstream.with_header(name.clone(), value.clone());
    }
    Ok(upstream)
}

fn bearer(token: &SecretString) -> Result<HeaderMap, Unseen> {
    let value = format!("Bearer {}", token.expose_secret().trim());
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| Unseen::hidden("the access token cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// Asks for Application Default Credentials: the metadata server's on Google Cloud, else those of
/// `gcloud auth application-default login`.
async fn default_credentials() -> Result<HeaderMap, Unseen> {
    let asked = async {
        let credentials = Builder::default().build().ok()?;
        match credentials.headers(Extensions::new()).await.ok()? {
            CacheableResource::New { data, .. } => Some(data),
            CacheableResource::NotModified => None,
        }
    };
    let found = tokio::time::timeout(FINDING_CREDENTIALS, asked).await;
    found.ok().flatten().ok_or_else(|| Unseen::Hidden {
        why: "no Google credentials on this machine".to_owned(),
        command: Some(GET_TOKEN.to_owned()),
    })
}
