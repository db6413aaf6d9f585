//! The event trigger of the stand-in: what it says about a row that an operation has changed.
//!
//! What it copies: <https://hasura.io/docs/2.0/event-triggers/payload/>.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::http::Request;
use super::super::rfc3339;
use super::Row;

/// Takes the event of a fired trigger.
pub(super) type Trigger = Arc<dyn Fn(Value) + Send + Sync>;

/// Makes the event about a changed contract.
pub(super) fn event(request: &Request, old: Row, new: Row, now: SystemTime) -> Value {
    json!({
        "id": Uuid::new_v4(),
        "created_at": rfc3339(now),
        "delivery_info": {"current_retry": 0, "max_retries": 5},
        "trigger": {"name": "contract_events"},
        "table": {"schema": "public", "name": "contracts"},
        "event": {
            "op": "UPDATE",
            "data": {"old": old, "new": new},
            "session_variables": session(request),
            "trace_context": null,
        },
    })
}

/// Beside the admin secret every `x-hasura-` header becomes a session variable
/// (<https://hasura.io/docs/2.0/auth/authentication/admin-secret-access/>).
fn session(request: &Request) -> Map<String, Value> {
    let mut session = Map::new();
    session.insert("x-hasura-role".to_owned(), "admin".into());
    for (name, value) in &request.headers {
        let secret = name.as_str() == "x-hasura-admin-secret";
        if name.as_str().starts_with("x-hasura-") && !secret {
            let value = value.to_str().unwrap_or_default();
            session.insert(name.to_string(), value.into());
        }
    }
    session
}
