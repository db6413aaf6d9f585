//! What each endpoint does to the rows.

use std::time::UNIX_EPOCH;

use http::Method;
use serde_json::{Value, json};

use super::answers::{found, not_found, refused, written};
use super::{Row, State, Worked};
use crate::clock::SharedClock;
use crate::sandbox::http::Request;

/// The decoded pairs of a form body.
type Form = Vec<(String, String)>;

/// Does what an authenticated request asks for.
pub(super) fn work(state: &mut State, request: &Request, clock: &SharedClock) -> Worked {
    let segments = request.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let now = clock
        .now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["api", "v2", "subscriptions"]) => list(state, request),
        ("GET", ["api", "v2", "subscriptions", id]) => match state.subscription(id) {
            Some(row) => {
                let row = row.clone();
                found(&state.shown(&row))
            }
            None => not_found(id),
        },
        ("GET", ["api", "v2", "customers", id]) => match state.customers.get(*id) {
            Some(row) => found(&json!({"customer": row})),
            None => not_found(id),
        },
        ("POST", ["api", "v2", path @ ..]) => {
            let form = match form(request) {
                Ok(form) => form,
                Err(refused) => return refused,
            };
            match path {
                ["subscriptions", id] | ["subscriptions", id, "update_for_items"] => {
                    update(state, id, &form, now)
                }
                ["subscriptions", id, "cancel" | "cancel_for_items"] => {
                    cancel(state, id, &form, now)
                }
                ["customers"] => create_customer(state, &form, now),
                ["customers", id] => update_customer(state, id, &form, now),
                _ => no_such_path(),
            }
        }
        _ if request.method == Method::GET => no_such_path(),
        _ => refused(
            405,
            "http_method_not_supported",
            "the method is not supported",
            None,
        ),
    }
}

/// Returns what a request is about: the id in its path or, when it creates something, in its body.
pub(super) fn subject(request: &Request) -> String {
    let in_path = request.segments().into_iter().nth(3);
    let mut form = url::form_urlencoded::parse(&request.body);
    let given = || {
        form.find(|(name, _)| name == "id")
            .map(|(_, id)| id.into_owned())
    };
    in_path.or_else(given).unwrap_or_default()
}

fn no_such_path() -> Worked {
    refused(404, "site_not_found", "there is no such path", None)
}

fn list(state: &State, request: &Request) -> Worked {
    let limit = request
        .parameter("limit")
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    if !(1..=100).contains(&limit) {
        return refused(
            400,
            "param_wrong_value",
            "limit : must be 1 to 100",
            Some("limit"),
        );
    }
    let rows: Vec<Value> = state
        .subscriptions
        .values()
        .take(limit)
        .map(|row| state.shown(row))
        .collect();
    found(&json!({"list": rows}))
}

fn form(request: &Request) -> Result<Form, Worked> {
    let kind = request.header("content-type").unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") && !request.body.is_empty() {
        let what = "the body has to be application/x-www-form-urlencoded";
        return Err(refused(400, "invalid_request", what, None));
    }
    Ok(url::form_urlencoded::parse(&request.body)
        .into_owned()
        .collect())
}

fn update(state: &mut State, id: &str, form: &Form, now: u64) -> Worked {
    if state.subscription(id).is_none() {
        return not_found(id);
    }
    if let Some((name, _)) = form
        .iter()
        .find(|(name, _)| !is_subscription_parameter(name))
    {
        let what = format!("{name} : unknown parameter");
        return refused(400, "invalid_request", &what, Some(name));
    }
    let version = state.next_version();
    let Some(row) = state.subscriptions.get_mut(id) else {
        return not_found(id);
    };
    let changed = write(row, form, version, now);
    let row = row.clone();
    written(&state.shown(&row), changed)
}

fn cancel(state: &mut State, id: &str, form: &Form, now: u64) -> Worked {
    let version = state.next_version();
    if state.subscription(id).is_none() {
        return not_found(id);
    }
    let Some(row) = state.subscriptions.get_mut(id) else {
        return not_found(id);
    };
    let at_term_end = form.iter().any(|(name, value)| match name.as_str() {
        "end_of_term" => value == "true",
        "cancel_option" => value == "end_of_term",
        _ => false,
    });
    let status = row
        .get("status")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if status == "cancelled" || (status == "non_renewing" && at_term_end) {
        let what = "the subscription is cancelled already";
        return refused(409, "invalid_state_for_request", what, None);
    }
    let (status, when) = match at_term_end {
        true => (
            "non_renewing",
            row.get("current_term_end").cloned().unwrap_or(now.into()),
        ),
        false => ("cancelled", now.into()),
    };
    row.insert("status".to_owned(), status.into());
    row.insert("cancelled_at".to_owned(), when);
    touch(row, version, now);
    let row = row.clone();
    written(&state.shown(&row), true)
}

fn create_customer(state: &mut State, form: &Form, now: u64) -> Worked {
    if let Some(refused) = bad_customer(form) {
        return refused;
    }
    let version = state.next_version();
    let given = form
        .iter()
        .find(|(name, _)| name == "id")
        .map(|(_, value)| value.clone());
    let id = given.unwrap_or_else(|| format!("cust_{version}"));
    if state.customers.contains_key(&id) {
        let what = format!("id : The value {id} is already present.");
        return refused(400, "duplicate_entry", &what, Some("id"));
    }
    let mut row = Row::new();
    row.insert("id".to_owned(), id.clone().into());
    row.insert("object".to_owned(), "customer".into());
    row.insert("deleted".to_owned(), false.into());
    row.insert("created_at".to_owned(), now.into());
    write(&mut row, form, version, now);
    let shown = json!({"customer": row});
    state.customers.insert(id, row);
    written(&shown, true)
}

fn update_customer(state: &mut State, id: &str, form: &Form, now: u64) -> Worked {
    if let Some(refused) = bad_customer(form) {
        return refused;
    }
    let version = state.next_version();
    let Some(row) = state.customers.get_mut(id) else {
        return not_found(id);
    };
    let changed = write(row, form, version, now);
    written(&json!({"customer": row}), changed)
}

fn bad_customer(form: &Form) -> Option<Worked> {
    let bad = form.iter().find(|(name, value)| {
        (name == "email" && !value.is_empty() && !value.contains('@'))
            || (name != "email" && value.len() > 250)
    });
    bad.map(|(name, _)| {
        let what = format!("{name} : is not valid");
        refused(400, "param_wrong_value", &what, Some(name))
    })
}

/// Chargebee refuses parameters it does not know; these are some of those it does.
fn is_subscription_parameter(name: &str) -> bool {
    let name = name.split('[').next().unwrap_or_default();
    name.starts_with("cf_")
        || matches!(
            name,
            "meta_data"
                | "end_of_term"
                | "subscription_items"
                | "plan_id"
                | "po_number"
                | "invoice_notes"
                | "prorate"
                | "replace_items_list"
                | "shipping_address"
        )
}

/// Sets the form's fields; tells whether any of them had another value.
fn write(row: &mut Row, form: &Form, version: u64, now: u64) -> bool {
    let mut changed = false;
    for (name, value) in form.iter().filter(|(name, _)| name != "end_of_term") {
        let before = match value.as_str() {
            "" => row.remove(name), // Chargebee leaves out what is empty
            value => row.insert(name.clone(), value.into()),
        };
        changed |= before.as_ref().and_then(Value::as_str).unwrap_or_default() != value;
    }
    touch(row, version, now);
    changed
}

fn touch(row: &mut Row, version: u64, now: u64) {
    row.insert("resource_version".to_owned(), version.into());
    row.insert("updated_at".to_owned(), now.into());
}

impl State {
    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        1_700_000_000_000 + self.versions
    }

    fn subscription(&mut self, id: &str) -> Option<&Row> {
        if self.auto_seed && !self.subscriptions.contains_key(id) {
            self.seed(id);
        }
        self.subscriptions.get(id)
    }

    /// Returns a subscription with its customer, as the API does.
    fn shown(&self, row: &Row) -> Value {
        let customer = row
            .get("customer_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        json!({"subscription": row, "customer": self.customers.get(customer)})
    }
}
