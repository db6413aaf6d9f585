//! Why a webhook request was not taken, and what Hasura is told: its console shows the answer.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::json;

use crate::error::{Class, Error};
use crate::event::Reason;
use crate::ingress::BodyError;
use crate::telemetry::RequestId;

/// After a short trouble: a full house, a broker that is away.
const SOON: Duration = Duration::from_secs(5);

/// After a trouble that a person has to mend.
const LATER: Duration = Duration::from_secs(60);

/// Why a webhook request was not taken.
///
/// With `Retry-After` Hasura tries for as long as it takes. Without, it gives up when the
/// trigger's `num_retries` are used up and keeps the event in its own log as failed, from where
/// it can be delivered again: so only what will never be taken goes without.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No secret is configured.
    Closed,
    /// The secret header is missing, or there are several.
    NoSecret,
    /// It holds none of the secrets.
    WrongSecret,
    /// Every place is taken.
    Full,
    /// The body was not read.
    Body(BodyError),
    /// The body is no event of Hasura's.
    NoEvent(Reason),
    /// The broker did not confirm the message.
    Unpublished(Error),
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Unpublished(error)
    }
}

impl Refusal {
    /// Returns the word for the answer and for `hookyard_push_rejected_total{reason}`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Closed => "bridge_closed",
            Self::NoSecret => "secret_missing",
            Self::WrongSecret => "secret_wrong",
            Self::Full => "overloaded",
            Self::Body(error) => error.reason(),
            Self::NoEvent(reason) => reason.code,
            Self::Unpublished(error) if is_too_large(error) => "body_too_large",
            Self::Unpublished(error) => match error.class() {
                Class::Transient => "not_published",
                Class::Permanent => "not_publishable",
            },
        }
    }

    /// Returns the broker's word for it, when the broker is the reason.
    pub(super) fn cause(&self) -> Option<String> {
        match self {
            Self::Unpublished(error) => Some(error.code().to_string()),
            _ => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Closed | Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSecret | Self::WrongSecret => StatusCode::UNAUTHORIZED,
            Self::Body(error) => error.status(),
            Self::NoEvent(_) => StatusCode::BAD_REQUEST,
            Self::Unpublished(error) if is_too_large(error) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unpublished(error) => match error.class() {
                Class::Transient => StatusCode::SERVICE_UNAVAILABLE,
                Class::Permanent => StatusCode::UNPROCESSABLE_ENTITY,
            },
        }
    }

    fn message(&self) -> &'static str {
        match self {
            Self::Closed => "closed until the operator of the bridge sets BRIDGE_SECRET",
            Self::NoSecret => "send the shared secret in one header x-hookyard-secret",
            Self::WrongSecret => "the secret in x-hookyard-secret is none the bridge accepts",
            Self::Full => "too many events at once",
            Self::Body(BodyError::TooLarge) => TOO_LARGE,
            Self::Body(BodyError::Timeout) => "the body took too long to arrive",
            Self::Body(BodyError::Broken) => "the body broke off",
            Self::Body(BodyError::Encoded) => "compressed bodies are not taken",
            Self::NoEvent(reason) => reason.what,
            Self::Unpublished(error) if is_too_large(error) => TOO_LARGE,
            Self::Unpublished(error) => match error.class() {
                Class::Transient => "the topic did not confirm the event",
                Class::Permanent => "the topic will not take this event",
            },
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            // A secret changed on one side only delays events and loses none.
            Self::Closed | Self::NoSecret | Self::WrongSecret => Some(LATER),
            Self::Full | Self::Body(BodyError::Timeout | BodyError::Broken) => Some(SOON),
            Self::Body(BodyError::TooLarge | BodyError::Encoded) | Self::NoEvent(_) => None,
            Self::Unpublished(error) => match error.class() {
                Class::Transient => Some(error.retry_after().unwrap_or(SOON)),
                Class::Permanent => None,
            },
        }
    }

    /// Returns the answer: `{"error":{"code","message","request_id"}}`, all of it constant.
    pub(super) fn answer(&self, request_id: &RequestId) -> Response {
        let body = json!({"error": {
            "code": self.code(),
            "message": self.message(),
            "request_id": request_id.as_str(),
        }});
        let mut response = (self.status(), Json(body)).into_response();
        if let Some(after) = self.retry_after() {
            // Hasura reads whole seconds, and takes 0 for none.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(RETRY_AFTER, seconds.max(1).into());
        }
        response
    }
}

const TOO_LARGE: &str =
    "the event is larger than a message may be; leave columns out of the trigger's payload";

fn is_too_large(error: &Error) -> bool {
    error.code().as_str() == "message_too_large"
}
