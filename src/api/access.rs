//! Who asks, and what he may do.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::ApiState;
use super::error::{ApiError, no_store};
use super::request::Answer;
use crate::config::Access;
use crate::desk::{By, Desk, DeskResult, Length};
use crate::telemetry::RequestId;

/// The header in which an operator's tool says for whom it acts.
pub const ACTOR_HEADER: &str = "x-hookyard-actor";

/// Longest name of an actor, in characters.
const MAX_ACTOR: usize = 100;

/// A caller whose token was checked. No admin route does anything without one.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) request_id: RequestId,
    access: Access,
    /// Whose name goes into the audit. It is what the caller says: whoever has the token may give
    /// any name.
    actor: String,
}

/// Checks the token, before anything else of the request is looked at: 401, or 403 when there is no
/// admin token at all.
impl FromRequestParts<Arc<ApiState>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        let request_id = RequestId::of(headers);
        if state.server.admin.is_closed() {
            return Err(ApiError::admin_closed(request_id));
        }
        let Some(access) = access(state, headers) else {
            return Err(ApiError::unauthorized(request_id));
        };
        let Some(actor) = actor(headers) else {
            let message = "x-hookyard-actor must be one name of 1 to 100 visible characters";
            return Err(ApiError::bad_request("bad_actor", message, request_id));
        };
        Ok(Self {
            request_id,
            access,
            actor,
        })
    }
}

impl Caller {
    /// Lets on whoever may change things.
    ///
    /// # Errors
    /// 403 with a token that may only look.
    pub(super) fn may_change(&self) -> Result<(), ApiError> {
        let message = "this token may only look; changes need one of ADMIN_TOKEN";
        self.needs_full("read_only_token", message)
    }

    /// Lets on whoever may see rows, where they are asked for; says for the audit who it is.
    ///
    /// # Errors
    /// 403 with a token that may only look at what holds no values.
    pub(super) fn looks_at(&self, payload: bool) -> Result<Option<By>, ApiError> {
        if !payload {
            return Ok(None);
        }
        let message = "payloads hold rows: seeing them needs one of ADMIN_TOKEN";
        self.needs_full("payload_is_closed", message)?;
        Ok(Some(self.because("payload looked at")))
    }

    fn needs_full(&self, code: &'static str, message: &'static str) -> Result<(), ApiError> {
        let id = self.request_id.clone();
        match self.access {
            Access::Full => Ok(()),
            Access::Read => Err(ApiError::new(StatusCode::FORBIDDEN, code, message, id)),
        }
    }

    /// Says for the audit who did it and why.
    pub(super) fn because(&self, reason: impl Into<String>) -> By {
        By {
            actor: self.actor.clone(),
            reason: reason.into(),
        }
    }

    /// Answers with what the desk says in time: 400, 404, 409 or 503 where it refuses.
    pub(super) fn answer<'a, T: Serialize + Send + 'a>(
        self,
        desk: &'a Desk,
        answer: impl Future<Output = DeskResult<T>> + Send + 'a,
    ) -> BoxFuture<'a, Answer> {
        self.answer_at(Length::Usual, StatusCode::OK, desk, answer)
    }

    /// Answers that the desk has begun something.
    pub(super) fn begun<'a, T: Serialize + Send + 'a>(
        self,
        desk: &'a Desk,
        answer: impl Future<Output = DeskResult<T>> + Send + 'a,
    ) -> BoxFuture<'a, Answer> {
        self.answer_at(Length::Choosing, StatusCode::ACCEPTED, desk, answer)
    }

    /// As [`Caller::answer`], where the desk may take longer.
    pub(super) fn answer_at<'a, T: Serialize + Send + 'a>(
        self,
        length: Length,
        status: StatusCode,
        desk: &'a Desk,
        answer: impl Future<Output = DeskResult<T>> + Send + 'a,
    ) -> BoxFuture<'a, Answer> {
        let work = async move {
            let answer = self.ask(length, desk, answer).await?;
            Ok(self.finish((status, Json(answer)).into_response()))
        };
        work.boxed()
    }

    /// Waits for what the desk says: every question of ours goes through here.
    ///
    /// # Errors
    /// What the desk refused, as 400, 404, 409 or 503.
    pub(super) async fn ask<T>(
        &self,
        length: Length,
        desk: &Desk,
        answer: impl Future<Output = DeskResult<T>> + Send,
    ) -> Result<T, ApiError> {
        let answer = desk.in_time(length, answer.boxed()).await;
        answer.map_err(|error| ApiError::of_desk(&error, self.request_id.clone()))
    }

    /// Puts on an answer what all of them carry.
    pub(super) fn finish(self, mut response: Response) -> Response {
        no_store(&mut response);
        self.request_id.put(response.headers_mut());
        response
    }
}

/// Returns what the token in `headers` allows; a doubled header allows nothing.
pub(super) fn access(state: &ApiState, headers: &HeaderMap) -> Option<Access> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer
        .then(|| token.trim_start_matches(' '))
        .and_then(|token| state.server.admin.access(token))
}

fn actor(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(ACTOR_HEADER).iter();
    let Some(first) = given.next() else {
        return Some("admin".to_owned());
    };
    // Names are UTF-8 here, as every tool sends them.
    let name = std::str::from_utf8(first.as_bytes()).ok()?.trim();
    let plain = !name.is_empty()
        && name.chars().count() <= MAX_ACTOR
        && !name.chars().any(char::is_control);
    (plain && given.next().is_none()).then(|| name.to_owned())
}
