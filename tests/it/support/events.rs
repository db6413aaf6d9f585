//! Events as Hasura writes them.

/// An update of `contracts` from one status to another; row and subscription are named after the
/// event. With `-` as the old status there is no old row.
pub(crate) fn contract_event(id: &str, old: &str, new: &str) -> String {
    let row = |status: &str| {
        format!(
            r#"{{"id":"{id}-contract","subscription_id":"{id}-sub","status":"{status}","amount_cents":29700,"updated_at":"2026-01-05T10:00:00.000001+00:00","notes":null}}"#
        )
    };
    let old = if old == "-" {
        "null".to_owned()
    } else {
        row(old)
    };
    event(id, "contracts", "UPDATE", &old, &row(new))
}

/// A change of a customer.
pub(crate) fn customer_event(id: &str, op: &str, customer: &str, first_name: &str) -> String {
    let row = format!(
        r#"{{"id":"{customer}","email":"someone@example.com","first_name":"{first_name}","last_name":"L"}}"#
    );
    let (old, new) = match op {
        "INSERT" => ("null", row.as_str()),
        "DELETE" => (row.as_str(), "null"),
        _ => (row.as_str(), row.as_str()),
    };
    event(id, "customers", op, old, new)
}

/// An event for [`super::Probe`].
pub(crate) fn probe_event(id: &str) -> String {
    event(id, "probes", "UPDATE", "null", "{}")
}

/// Any table event.
pub(crate) fn event(id: &str, table: &str, op: &str, old: &str, new: &str) -> String {
    format!(
        r#"{{"id":"{id}","created_at":"2026-01-05T10:00:00.601701Z","delivery_info":{{"current_retry":0,"max_retries":5}},"trigger":{{"name":"{table}_events"}},"table":{{"schema":"public","name":"{table}"}},"event":{{"op":"{op}","data":{{"old":{old},"new":{new}}},"session_variables":{{"x-hasura-role":"user"}},"trace_context":null}}}}"#
    )
}
