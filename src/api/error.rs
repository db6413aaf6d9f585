//! The one shape of an error on our own routes: `{"error":{"code","message","request_id"}}`, and
//! `field` where one is at fault.

use std::borrow::Cow;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::desk::DeskError;
use crate::telemetry::RequestId;

/// An error answer. Code and message are made of constants; of the request at most the name
/// of a field comes back.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    field: Option<String>,
    request_id: RequestId,
}

impl ApiError {
    /// Makes an error answer.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: &'static str,
        request_id: RequestId,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            field: None,
            request_id,
        }
    }

    /// Says which field of the request is at fault, if that is a plain path such as `filter.limit`.
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.[]".contains(&b);
        let tells = field != "." && (1..=64).contains(&field.len()) && field.bytes().all(plain);
        self.field = tells.then(|| field.to_owned());
        self
    }

    /// 400: the request cannot be meant.
    pub fn bad_request(code: &'static str, message: &'static str, id: RequestId) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message, id)
    }

    /// 404: there is no such path.
    pub fn not_found(id: RequestId) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "no such path", id)
    }

    /// 405: the path knows other methods; axum adds which.
    pub fn method_not_allowed(id: RequestId) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let message = "this path does not take this method";
        Self::new(status, "method_not_allowed", message, id)
    }

    /// 401: the admin token is missing or wrong.
    pub fn unauthorized(id: RequestId) -> Self {
        let message = "send `Authorization: Bearer` with the admin token";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message, id)
    }

    /// 403: no admin token is configured.
    pub fn admin_closed(id: RequestId) -> Self {
        let message = "closed until the operator sets ADMIN_TOKEN";
        Self::new(StatusCode::FORBIDDEN, "admin_closed", message, id)
    }

    /// 408: the body did not arrive in time.
    pub fn body_timeout(id: RequestId) -> Self {
        let message = "the body took too long";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message, id)
    }

    /// 501: there is no database in which anything could be looked up.
    pub fn needs_database(id: RequestId) -> Self {
        let message = "nothing is kept here: this needs DATABASE_URL";
        Self::new(StatusCode::NOT_IMPLEMENTED, "needs_database", message, id)
    }

    /// 404: the path is known, but not what it names.
    pub fn no_such(what: &'static str, id: RequestId) -> Self {
        let mut error = Self::new(StatusCode::NOT_FOUND, "not_found", "", id);
        error.message = format!("there is no such {what}").into();
        error
    }

    /// 503: the database does not answer.
    pub fn database_away(id: RequestId) -> Self {
        let message = "the database does not answer; try again";
        Self::unavailable("database_unavailable", message, id)
    }

    /// What the desk refused: 400, 404, 409, or 503.
    pub fn of_desk(error: &DeskError, id: RequestId) -> Self {
        let status = match error {
            DeskError::Invalid { .. } => StatusCode::BAD_REQUEST,
            DeskError::NotFound(_) => StatusCode::NOT_FOUND,
            DeskError::Conflict { .. } => StatusCode::CONFLICT,
            DeskError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut answer = Self::new(status, "", "", id);
        answer.code = error.code().to_owned().into();
        answer.message = error.to_string().into();
        match error {
            DeskError::Invalid { field, .. } => answer.at(field),
            _ => answer,
        }
    }

    /// 413: the body is larger than `MAX_BODY_BYTES`.
    pub fn body_too_large(id: RequestId) -> Self {
        let message = "the body is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message, id)
    }

    /// 415: the body is compressed.
    pub fn unsupported_encoding(id: RequestId) -> Self {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let message = "compressed bodies are not taken";
        Self::new(status, "unsupported_encoding", message, id)
    }

    /// 503: not now; with `Retry-After`.
    pub fn unavailable(code: &'static str, message: &'static str, id: RequestId) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message, id)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({
            "code": self.code,
            "message": self.message,
            "request_id": self.request_id.as_str(),
        });
        if let Some(field) = self.field {
            error["field"] = field.into();
        }
        let body = json!({"error": error});
        let mut response = (self.status, Json(body)).into_response();
        no_store(&mut response);
        let headers = response.headers_mut();
        self.request_id.put(headers);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        } else if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Keeps an answer out of caches: the next one may be another.
pub(super) fn no_store(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
