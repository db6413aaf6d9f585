//! Chargebee's answers: its error shape and its words.

use serde_json::{Value, json};

use super::Worked;
use crate::sandbox::http::Reply;
use crate::sandbox::journal::Did;

pub(super) const IDEMPOTENCY_HEADER: &str = "chargebee-idempotency-key";
pub(super) const IDEMPOTENCY_REPLAYED: &str = "chargebee-idempotency-replayed";

/// Answers with an error as Chargebee shapes it
/// (<https://apidocs.chargebee.com/docs/api/error-handling>).
pub(super) fn refused(status: u16, code: &str, message: &str, param: Option<&str>) -> Worked {
    let mut body = json!({
        "message": message,
        "type": "invalid_request",
        "api_error_code": code,
        "error_code": code,
        "error_msg": message,
        "http_status_code": status,
    });
    if let Some(param) = param {
        body["param"] = param.into();
    }
    Worked {
        reply: Reply::json(status, &body),
        did: Did::Refused,
    }
}

pub(super) fn not_found(id: &str) -> Worked {
    refused(404, "resource_not_found", &format!("{id} not found"), None)
}

pub(super) fn found(body: &Value) -> Worked {
    Worked {
        reply: Reply::json(200, body),
        did: Did::Read,
    }
}

pub(super) fn written(body: &Value, changed: bool) -> Worked {
    Worked {
        reply: Reply::json(200, body),
        did: if changed { Did::Effect } else { Did::Nothing },
    }
}
