//! What Hasura's answers mean: HTTP says 200 to everything, `extensions.code` says what happened.
//!
//! Codes: Hasura's `Hasura.Base.Error` and its documentation.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::clients::http::Answer;
use crate::error::{Code, Error, Result};

/// A GraphQL reply, or the `{"path", "error", "code"}` of Hasura's other endpoints.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    errors: Value,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    code: Value,
}

/// Reads `data`; errors beside it count, whatever it holds.
pub(super) fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T> {
    let Ok(reply) = serde_json::from_slice::<Reply<'_>>(&answer.body) else {
        return Err(if answer.status.is_success() {
            answer.unreadable("not_graphql")
        } else {
            error_by_status(answer)
        });
    };
    if let Some(error) = reply.error(answer) {
        return Err(error);
    }
    if !answer.status.is_success() {
        return Err(error_by_status(answer));
    }
    let data = reply.data.ok_or_else(|| answer.unreadable("no_data"))?;
    // The parser's words quote values, and stay here.
    serde_json::from_str(data.get()).map_err(|_| answer.unreadable("unexpected_shape"))
}

impl Reply<'_> {
    /// Returns the worst of the errors: one that needs us before one that stays before one that
    /// passes.
    fn error(&self, answer: &Answer) -> Option<Error> {
        let codes: Vec<&Value> = match &self.errors {
            Value::Array(errors) => errors
                .iter()
                .map(|error| &error["extensions"]["code"])
                .collect(),
            Value::Null if self.error.is_null() && self.code.is_null() => Vec::new(),
            Value::Null => vec![&self.code],
            _ => vec![&Value::Null],
        };
        let errors = codes.into_iter().map(|code| error_of(code, answer));
        errors.max_by_key(|error| match error {
            Error::Credentials { .. } => 2,
            Error::Rejected { .. } => 1,
            _ => 0,
        })
    }
}

fn error_of(code: &Value, answer: &Answer) -> Error {
    // `connection-not-established` comes with `extensions: null`.
    let Some(word) = code.as_str() else {
        return match answer.status.is_success() {
            true => answer.unavailable(Code::new("no_code")),
            false => error_by_status(answer),
        };
    };
    let code = Code::from_upstream(word);
    match word {
        // Ours to mend: secret, role, URL, or a schema that differs from the one compiled in.
        "access-denied"
        | "invalid-jwt"
        | "jwt-invalid-claims"
        | "jwt-missing-role-claims"
        | "invalid-headers"
        | "validation-failed"
        | "not-found" => answer.credentials(code),
        "constraint-violation"
        | "permission-error"
        | "data-exception"
        | "constraint-error"
        | "parse-failed"
        | "bad-request"
        | "invalid-params"
        | "invalid-json"
        | "not-exists"
        | "not-supported"
        | "already-exists"
        | "coercion-error"
        | "unexpected-payload"
        | "method-not-allowed"
        | "permission-denied" => answer.rejected(code),
        // `postgres-error`, `postgres-max-connections-error`, `timeout`, `concurrent-update`,
        // `busy`, `unexpected`, and what is not known: more is lost by giving up.
        _ => answer.unavailable(code),
    }
}

/// As for any API, but that a path which is not there means our URL is wrong.
fn error_by_status(answer: &Answer) -> Error {
    match answer.status.as_u16() {
        404 | 405 => answer.credentials(Code::new("wrong_url")),
        _ => answer.error_by_status(),
    }
}
