//! A Chargebee site in small: keeps subscriptions and customers, knows idempotency keys.
//!
//! API: <https://apidocs.chargebee.com/docs/api>, idempotency:
//! <https://apidocs.chargebee.com/docs/api/idempotency>.

mod answers;
mod routes;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use self::answers::{IDEMPOTENCY_HEADER, IDEMPOTENCY_REPLAYED, refused};
use super::faults::{Fault, Faults, identity};
use super::http::{Reply, Request};
use super::journal::{Did, Entry, Journal};
use super::lock;
use crate::clock::SharedClock;

/// How long Chargebee remembers an idempotency key.
const REMEMBERED: Duration = Duration::from_secs(30 * 60);

/// Longest accepted idempotency key.
const MAX_KEY: usize = 100;

/// A row: its columns by name.
type Row = Map<String, Value>;

/// A stateful stand-in for a Chargebee site. Cheap to clone; all clones share the rows.
#[derive(Clone)]
pub struct Chargebee {
    state: Arc<Mutex<State>>,
    authorization: String,
    faults: Faults,
    journal: Journal,
    clock: SharedClock,
}

#[derive(Default)]
struct State {
    subscriptions: BTreeMap<String, Row>,
    customers: BTreeMap<String, Row>,
    remembered: HashMap<String, Remembered>,
    auto_seed: bool,
    versions: u64,
}

/// What was answered under an idempotency key.
struct Remembered {
    at: Instant,
    fingerprint: u64,
    reply: Reply,
}

/// What a request did, for the journal.
struct Worked {
    reply: Reply,
    did: Did,
}

impl Chargebee {
    /// Makes a site without rows that takes this API key.
    pub fn new(api_key: &str, journal: Journal, clock: SharedClock) -> Self {
        Self {
            state: Arc::default(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{api_key}:"))),
            faults: Faults::default(),
            journal,
            clock,
        }
    }

    /// Returns the faults of this site.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Lets subscriptions come into being when they are asked for, so that events about any
    /// contract can be tried out.
    pub fn set_auto_seed(&self, on: bool) {
        lock(&self.state).auto_seed = on;
    }

    /// Puts an active subscription of a customer of its own into the site.
    pub fn seed_subscription(&self, id: &str) {
        lock(&self.state).seed(id);
    }

    /// Puts a customer into the site.
    pub fn seed_customer(&self, id: &str, fields: Value) {
        let mut row = fields.as_object().cloned().unwrap_or_default();
        row.insert("id".to_owned(), id.into());
        row.insert("object".to_owned(), "customer".into());
        lock(&self.state).customers.insert(id.to_owned(), row);
    }

    /// Sets one field of a subscription, as somebody in Chargebee's console would.
    pub fn set(&self, subscription: &str, field: &str, value: Value) {
        if let Some(row) = lock(&self.state).subscriptions.get_mut(subscription) {
            row.insert(field.to_owned(), value);
        }
    }

    /// Returns a subscription as the API shows it.
    pub fn subscription(&self, id: &str) -> Option<Value> {
        lock(&self.state)
            .subscriptions
            .get(id)
            .cloned()
            .map(Value::Object)
    }

    /// Returns a customer as the API shows it.
    pub fn customer(&self, id: &str) -> Option<Value> {
        lock(&self.state)
            .customers
            .get(id)
            .cloned()
            .map(Value::Object)
    }

    /// Returns the number of subscriptions and of customers.
    pub fn counts(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.subscriptions.len(), state.customers.len())
    }

    /// Forgets every idempotency key, as Chargebee does after 30 minutes.
    pub fn forget_idempotency_keys(&self) {
        lock(&self.state).remembered.clear();
    }

    pub(super) async fn answer(&self, request: Request) -> Reply {
        let key = request.header(IDEMPOTENCY_HEADER).map(str::to_owned);
        let hash = identity(&request.path, &request.body);
        let told = format!(
            "{} {} {hash}",
            request.method,
            key.as_deref().unwrap_or_default()
        );
        let fault = self.faults.draw(told.as_bytes());
        let lost = fault.as_ref().is_some_and(Fault::loses_the_request);
        let mut entry = Entry {
            at: self.clock.now(),
            upstream: "chargebee",
            request: format!("{} {}", request.method, request.path),
            subject: routes::subject(&request),
            key,
            hash,
            did: Did::Lost,
            status: 0,
            fault: fault.as_ref().map(Fault::name),
        };
        if lost {
            self.journal.write(entry.clone());
        }
        if let Some(fault) = &fault
            && let Some(reply) = fault.before(&self.clock).await
        {
            return reply;
        }
        let worked = self.work(&request, entry.key.as_deref(), hash);
        entry.did = worked.did;
        entry.status = worked.reply.status;
        self.journal.write(entry);
        match fault {
            Some(fault) => fault.after(worked.reply, &self.clock).await,
            None => worked.reply,
        }
    }

    /// Checks credentials and the idempotency key around the work itself.
    fn work(&self, request: &Request, key: Option<&str>, fingerprint: u64) -> Worked {
        if request.header("authorization") != Some(self.authorization.as_str()) {
            return refused(
                401,
                "api_authentication_failed",
                "Sorry, authentication failed",
                None,
            );
        }
        let mut state = lock(&self.state);
        let Some(key) = key.filter(|_| request.method == http::Method::POST) else {
            return routes::work(&mut state, request, &self.clock);
        };
        if key.is_empty() || key.len() > MAX_KEY {
            let what = "idempotency key has to be 1 to 100 characters long";
            return refused(400, "param_wrong_value", what, Some(IDEMPOTENCY_HEADER));
        }
        let now = self.clock.monotonic();
        let known = state
            .remembered
            .get(key)
            .filter(|known| now.saturating_duration_since(known.at) < REMEMBERED);
        if let Some(known) = known {
            if known.fingerprint != fingerprint {
                let what = "the idempotency key was used for another request";
                return refused(422, "unable_to_process_request", what, None);
            }
            let reply = known.reply.clone().with(IDEMPOTENCY_REPLAYED, "true");
            return Worked {
                reply,
                did: Did::Replay,
            };
        }
        let worked = routes::work(&mut state, request, &self.clock);
        if worked.reply.status == 200 {
            let reply = worked.reply.clone();
            let known = Remembered {
                at: now,
                fingerprint,
                reply,
            };
            state.remembered.insert(key.to_owned(), known);
        }
        worked
    }
}

impl State {
    fn seed(&mut self, id: &str) {
        let customer = format!("cust_{id}");
        let row = json!({
            "id": id, "customer_id": customer, "status": "active", "object": "subscription",
            "currency_code": "EUR", "billing_period": 1, "billing_period_unit": "month",
            "current_term_end": 1_900_000_000, "resource_version": 1, "deleted": false,
        });
        self.subscriptions
            .insert(id.to_owned(), row.as_object().cloned().unwrap_or_default());
        let row = json!({"id": customer, "object": "customer", "deleted": false});
        let row = row.as_object().cloned().unwrap_or_default();
        self.customers.entry(customer).or_insert(row);
    }
}
