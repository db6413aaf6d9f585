//! What Chargebee's errors mean for the event: its `api_error_code` first, then the status.
//!
//! Codes: the error schemas of Chargebee's API v2 specification.

use serde_json::Value;

use crate::clients::http::Answer;
use crate::error::{Code, Error};

/// Judges an answer that is not a success; `what` was looked for.
pub(super) fn error_of(answer: &Answer, what: &'static str) -> Error {
    // A server error passes whatever its body says, and 502 and 504 come as HTML.
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    let Some(word) = body.get("api_error_code").and_then(Value::as_str) else {
        return answer.error_by_status();
    };
    let code = Code::from_upstream(word);
    if answer.status.is_server_error() {
        return answer.unavailable(code);
    }
    match word {
        "resource_not_found" => Error::NotFound {
            service: answer.service,
            what,
        },
        "api_authentication_failed"
        | "basic_authentication_failed"
        | "api_authorization_failed"
        | "request_blocked"
        | "site_not_found" => answer.credentials(code),
        "api_request_limit_exceeded"
        | "third_party_api_request_limit_exceeded"
        | "lock_timeout"
        | "internal_error"
        | "internal_temporary_error"
        | "db_connection_failure"
        | "site_read_only_mode"
        | "site_not_ready" => answer.unavailable(code),
        // One key, two requests: the key or the request is not derived as it should be.
        "unable_to_process_request" => {
            tracing::error!(
                alert = "idempotency_key_reused",
                upstream.name = answer.service,
                "upstream has seen this idempotency key with another request"
            );
            answer.rejected(code)
        }
        "invalid_request"
        | "param_wrong_value"
        | "duplicate_entry"
        | "resource_limit_exhausted"
        | "resource_limit_exceeded"
        | "configuration_incompatible"
        | "payment_processing_failed"
        | "payment_method_not_present"
        | "payment_method_verification_failed"
        | "payment_intent_invalid"
        | "payment_intent_invalid_amount"
        | "payment_gateway_currency_incompatible"
        | "http_method_not_supported"
        | "invalid_state_for_request" => answer.rejected(code),
        // Unknown words: the status decides, the word is kept.
        _ => match answer.error_by_status() {
            Error::Credentials { .. } => answer.credentials(code),
            Error::Unavailable { .. } => answer.unavailable(code),
            _ => answer.rejected(code),
        },
    }
}
