//! A Hasura GraphQL endpoint in small: keeps contracts, answers by root field.
//!
//! Its answers are HTTP 200 whatever went wrong, as Hasura's `/v1/graphql` answers.

mod document;
mod trigger;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use self::document::Field;
use self::trigger::Trigger;
use super::faults::{Fault, Faults, identity};
use super::http::{Reply, Request};
use super::journal::{Did, Entry, Journal};
use super::lock;
use crate::clock::SharedClock;

type Row = Map<String, Value>;

/// Columns of `contracts`; asking for another one is a validation error.
const COLUMNS: [&str; 7] = [
    "id",
    "subscription_id",
    "chargebee_subscription_id",
    "status",
    "amount_cents",
    "notes",
    "updated_at",
];

/// A stateful stand-in for Hasura. Cheap to clone; all clones share the rows.
#[derive(Clone)]
pub struct Hasura {
    state: Arc<Mutex<State>>,
    trigger: Arc<Mutex<Option<Trigger>>>,
    admin_secret: String,
    faults: Faults,
    journal: Journal,
    clock: SharedClock,
}

#[derive(Default)]
struct State {
    contracts: BTreeMap<String, Row>,
    auto_seed: bool,
    /// The row before and after the operation that runs.
    changed: Option<(Row, Row)>,
}

/// Why an operation is refused.
struct Refusal {
    code: &'static str,
    message: String,
}

fn refusal(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        message: message.into(),
    }
}

impl Hasura {
    /// Makes an endpoint without rows that takes this admin secret.
    pub fn new(admin_secret: &str, journal: Journal, clock: SharedClock) -> Self {
        Self {
            state: Arc::default(),
            trigger: Arc::default(),
            admin_secret: admin_secret.to_owned(),
            faults: Faults::default(),
            journal,
            clock,
        }
    }

    /// Returns the faults of this endpoint.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Lets contracts come into being when they are asked for, so that events about any contract
    /// can be tried out.
    pub fn set_auto_seed(&self, on: bool) {
        lock(&self.state).auto_seed = on;
    }

    /// Fires an event trigger on every changed contract: `trigger` gets the event.
    pub(super) fn set_trigger(&self, trigger: Trigger) {
        *lock(&self.trigger) = Some(trigger);
    }

    /// Puts a contract into the database.
    pub fn seed_contract(&self, id: &str, status: &str) {
        lock(&self.state).seed(id, status);
    }

    /// Takes a contract out of the database.
    pub fn delete_contract(&self, id: &str) {
        lock(&self.state).contracts.remove(id);
    }

    /// Returns a contract with all its columns.
    pub fn contract(&self, id: &str) -> Option<Value> {
        lock(&self.state)
            .contracts
            .get(id)
            .cloned()
            .map(Value::Object)
    }

    /// Returns the number of contracts.
    pub fn count(&self) -> usize {
        lock(&self.state).contracts.len()
    }

    pub(super) async fn answer(&self, request: Request) -> Reply {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let operation = body["operationName"].as_str().unwrap_or("(unnamed)");
        let hash = identity(&request.path, &request.body);
        let fault = self.faults.draw(&hash.to_le_bytes());
        let mut entry = Entry {
            at: self.clock.now(),
            upstream: "hasura",
            request: operation.to_owned(),
            subject: body["variables"]["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            key: None,
            hash,
            did: Did::Lost,
            status: 0,
            fault: fault.as_ref().map(Fault::name),
        };
        if fault.as_ref().is_some_and(Fault::loses_the_request) {
            self.journal.write(entry.clone());
        }
        if let Some(fault) = &fault
            && let Some(reply) = fault.before(&self.clock).await
        {
            return reply;
        }
        let (reply, did) = match self.work(&request, &body) {
            Ok((data, did)) => (Reply::json(200, &json!({"data": data})), did),
            Err(Refusal { code, message }) => {
                let error = json!({
                    "message": message, "extensions": {"path": "$", "code": code},
                });
                (Reply::json(200, &json!({"errors": [error]})), Did::Refused)
            }
        };
        entry.did = did;
        entry.status = reply.status;
        self.journal.write(entry);
        match fault {
            Some(fault) => fault.after(reply, &self.clock).await,
            None => reply,
        }
    }

    fn work(&self, request: &Request, body: &Value) -> Result<(Value, Did), Refusal> {
        match request.header("x-hasura-admin-secret") {
            Some(secret) if secret == self.admin_secret => {}
            Some(_) => {
                let message = "invalid \"x-hasura-admin-secret\"/\"x-hasura-access-key\"";
                return Err(refusal("access-denied", message));
            }
            None => {
                let message = "x-hasura-admin-secret/x-hasura-access-key required, but not found";
                return Err(refusal("access-denied", message));
            }
        }
        let query = body["query"].as_str();
        let query = query.ok_or_else(|| refusal("bad-request", "the key 'query' is missing"))?;
        let name = body["operationName"].as_str();
        let field = document::root_field(query, name, &body["variables"])
            .ok_or_else(|| refusal("validation-failed", "not a valid graphql query"))?;
        let (answer, changed) = {
            let mut state = lock(&self.state);
            (state.run(&field), state.changed.take())
        };
        if let Some((old, new)) = changed
            && let Some(trigger) = lock(&self.trigger).clone()
        {
            trigger(trigger::event(request, old, new, self.clock.now()));
        }
        answer
    }
}

impl State {
    fn seed(&mut self, id: &str, status: &str) {
        let mut row: Row = COLUMNS
            .iter()
            .map(|name| ((*name).to_owned(), Value::Null))
            .collect();
        row.insert("id".to_owned(), id.into());
        row.insert("status".to_owned(), status.into());
        self.contracts.insert(id.to_owned(), row);
    }

    fn contract(&mut self, id: &str) -> Option<&mut Row> {
        if self.auto_seed && !self.contracts.contains_key(id) {
            self.seed(id, "active");
        }
        self.contracts.get_mut(id)
    }

    fn run(&mut self, field: &Field) -> Result<(Value, Did), Refusal> {
        let unknown = field
            .selection
            .iter()
            .find(|name| !COLUMNS.contains(&name.as_str()) && name.as_str() != "__typename");
        if let Some(unknown) = unknown {
            let message = format!("field '{unknown}' not found in type: 'contracts'");
            return Err(refusal("validation-failed", message));
        }
        let argument = |path: &str| {
            let missing = || {
                refusal(
                    "validation-failed",
                    format!("missing required field '{path}'"),
                )
            };
            field
                .arguments
                .pointer(path)
                .filter(|value| !value.is_null())
                .ok_or_else(missing)
        };
        let key = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match (field.operation.as_str(), field.name.as_str()) {
            (_, "__typename") => {
                let name = format!("{}_root", field.operation);
                Ok((json!({"__typename": name}), Did::Read))
            }
            ("query", "contracts_by_pk") => {
                let id = key(argument("/id")?);
                let row = self.contract(&id).map(|row| pick(row, &field.selection));
                Ok((json!({"contracts_by_pk": row}), Did::Read))
            }
            ("mutation", "update_contracts_by_pk") => {
                let id = key(argument("/pk_columns/id")?);
                let set = argument("/_set")?.as_object().cloned().unwrap_or_default();
                if let Some(name) = set.keys().find(|name| !COLUMNS.contains(&name.as_str())) {
                    let message =
                        format!("field '{name}' not found in type: 'contracts_set_input'");
                    return Err(refusal("validation-failed", message));
                }
                let Some(row) = self.contract(&id) else {
                    return Ok((json!({"update_contracts_by_pk": null}), Did::Nothing));
                };
                let old = row.clone();
                let mut did = Did::Nothing;
                for (name, value) in set {
                    if row.get(&name) != Some(&value) {
                        did = Did::Effect;
                    }
                    row.insert(name, value);
                }
                let changed = (did == Did::Effect).then(|| (old, row.clone()));
                let row = pick(row, &field.selection);
                self.changed = changed;
                Ok((json!({"update_contracts_by_pk": row}), did))
            }
            (operation, name) => {
                let message = format!("field '{name}' not found in type: '{operation}_root'");
                Err(refusal("validation-failed", message))
            }
        }
    }
}

fn pick(row: &Row, selection: &[String]) -> Value {
    let column = |name: &String| match name.as_str() {
        "__typename" => (name.clone(), "contracts".into()),
        _ => (name.clone(), row.get(name).cloned().unwrap_or_default()),
    };
    Value::Object(selection.iter().map(column).collect())
}
