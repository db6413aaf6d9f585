//! What `dev --chaos` sends: a history drawn from a seed, and what has to come of it.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Published per second, on average.
const RATE: f64 = 60.0;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A contract becomes active.
    Activate,
    /// A contract is drawn up; the same contract may become active before this arrives.
    Draft,
    /// A contract is cancelled.
    Cancel,
    /// A customer is new.
    CustomerNew,
    /// A customer known to Chargebee changes.
    CustomerChange,
    /// A customer is deleted.
    CustomerDelete,
    /// A table nobody handles.
    Unrouted,
    /// Something that can never be processed.
    Poison(Poison),
}

/// Why an event can never be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poison {
    /// Not JSON.
    CutOff,
    /// Its subscription does not exist.
    NoSubscription,
    /// Chargebee refuses its data.
    BadEmail,
    /// A column has another type than the handler declares.
    WrongType,
}

impl Poison {
    /// Returns the code its dead letter has to carry.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::CutOff => "not_json",
            Self::NoSubscription => "not_found",
            Self::BadEmail => "param_wrong_value",
            Self::WrongType => "malformed_payload",
        }
    }
}

/// One event of the history.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) event_id: String,
    pub(super) kind: Kind,
    /// The row's id: a contract or a customer.
    pub(super) subject: String,
    /// The contract's subscription.
    pub(super) subscription: String,
    /// What is published.
    pub(super) json: String,
}

impl Planned {
    /// Returns the type of the event that has to follow.
    pub(super) fn emits(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Activate => Some("contract.activated"),
            Kind::Cancel => Some("contract.cancelled"),
            Kind::CustomerNew => Some("customer.created"),
            Kind::CustomerChange => Some("customer.updated"),
            Kind::CustomerDelete => Some("customer.deleted"),
            Kind::Draft | Kind::Unrouted | Kind::Poison(_) => None,
        }
    }

    /// Returns what Chargebee has to be told to change, `None` for nothing.
    pub(super) fn chargebee_subject(&self) -> Option<&str> {
        match self.kind {
            Kind::Activate | Kind::Cancel => Some(&self.subscription),
            Kind::CustomerNew | Kind::CustomerChange => Some(&self.subject),
            _ => None,
        }
    }

    /// Returns the contract Hasura has to be told to change, `None` for nothing.
    pub(super) fn hasura_subject(&self) -> Option<&str> {
        (self.kind == Kind::Activate).then_some(self.subject.as_str())
    }
}

/// Something that happens at a moment of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The event is published.
    Publish(usize),
    /// Its message is delivered once more, acknowledged or not.
    Redeliver(usize),
    /// Hasura tries again: the same event as a new message.
    PublishAgain(usize),
}

/// A history.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) events: Vec<Planned>,
    /// In order of time since the start.
    pub(super) actions: Vec<(Duration, Action)>,
}

impl Plan {
    /// Draws a history of `count` events.
    pub(super) fn draw(count: u32, seed: u64) -> Self {
        Self::draw_at(count, seed, RATE)
    }

    /// Draws a history of `count` events of which so many are published per second.
    pub(super) fn draw_at(count: u32, seed: u64, rate: f64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut events: Vec<Planned> = Vec::new();
        let mut actions = Vec::new();
        let span = f64::from(count) / rate;
        for number in 0..count as usize {
            let event = draw_event(&mut rng, seed, number, &events);
            events.push(event);
            // Anywhere in the whole history: the order of drawing is not the order of arrival.
            let at = rng.random_range(0.0..span);
            actions.push((at, Action::Publish(number)));
            if rng.random_bool(0.06) {
                actions.push((at + rng.random_range(0.0..3.0), Action::Redeliver(number)));
            }
            if rng.random_bool(0.06) {
                actions.push((
                    at + rng.random_range(0.0..3.0),
                    Action::PublishAgain(number),
                ));
            }
        }
        actions.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let timed = actions
            .into_iter()
            .map(|(at, action)| (Duration::from_secs_f64(at), action));
        Self {
            events,
            actions: timed.collect(),
        }
    }

    /// Adds an event that nothing plays by itself; returns its place.
    pub(super) fn add(&mut self, kind: Kind, event_id: &str) -> usize {
        let (subject, subscription) = (format!("row-of-{event_id}"), format!("sub_{event_id}"));
        let event = make(kind, event_id.to_owned(), subject, subscription);
        self.events.push(event);
        self.events.len() - 1
    }

    /// Returns how often each thing has to be changed, by the id it has upstream.
    pub(super) fn changes(
        &self,
        subject: impl Fn(&Planned) -> Option<&str>,
    ) -> HashMap<&str, usize> {
        let mut changes = HashMap::new();
        for event in &self.events {
            if let Some(subject) = subject(event) {
                *changes.entry(subject).or_default() += 1;
            }
        }
        changes
    }

    pub(super) fn poison(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event.kind, Kind::Poison(_)))
            .count()
    }
}

fn draw_event(rng: &mut StdRng, seed: u64, number: usize, earlier: &[Planned]) -> Planned {
    let kind = match rng.random_range(0..100) {
        0..40 => Kind::Activate,
        40..50 => Kind::Draft,
        50..65 => Kind::Cancel,
        65..75 => Kind::CustomerNew,
        75..84 => Kind::CustomerChange,
        84..89 => Kind::CustomerDelete,
        89..94 => Kind::Unrouted,
        94..96 => Kind::Poison(Poison::CutOff),
        96..98 => Kind::Poison(Poison::NoSubscription),
        98 => Kind::Poison(Poison::BadEmail),
        _ => Kind::Poison(Poison::WrongType),
    };
    let mut subject = format!("row-{number}");
    let mut subscription = format!("sub_{number}");
    let activated = || {
        earlier
            .iter()
            .rev()
            .find(|event| event.kind == Kind::Activate)
    };
    if let (Kind::Draft, Some(other)) = (kind, activated()) {
        subject.clone_from(&other.subject);
        subscription.clone_from(&other.subscription);
    }
    make(
        kind,
        format!("chaos-{seed}-{number}"),
        subject,
        subscription,
    )
}

/// Writes an event down as Hasura would.
fn make(kind: Kind, event_id: String, subject: String, subscription: String) -> Planned {
    let contract = |status: &str| {
        json!({"id": subject, "subscription_id": subscription, "status": status,
               "amount_cents": 29_700, "notes": null})
    };
    let customer =
        |name: &str, email: &str| json!({"id": subject, "first_name": name, "email": email});
    let good = "someone@example.com";
    let event = |table: &str, op: &str, old: Value, new: Value| {
        json!({
            "id": event_id, "created_at": "2026-03-02T09:15:04.201733",
            "delivery_info": {"current_retry": 0, "max_retries": 5},
            "trigger": {"name": format!("{table}_events")},
            "table": {"schema": "public", "name": table},
            "event": {"op": op, "data": {"old": old, "new": new},
                      "session_variables": null, "trace_context": null},
        })
        .to_string()
    };
    let json = match kind {
        Kind::Activate => event(
            "contracts",
            "UPDATE",
            contract("signed"),
            contract("active"),
        ),
        Kind::Draft => event("contracts", "INSERT", Value::Null, contract("draft")),
        Kind::Cancel => event(
            "contracts",
            "UPDATE",
            contract("active"),
            contract("cancelled"),
        ),
        Kind::CustomerNew => event("customers", "INSERT", Value::Null, customer("New", good)),
        Kind::CustomerChange => event(
            "customers",
            "UPDATE",
            customer("Old", good),
            customer("New", good),
        ),
        Kind::CustomerDelete => event("customers", "DELETE", customer("Old", good), Value::Null),
        Kind::Unrouted => event("invoices", "INSERT", Value::Null, json!({"id": subject})),
        Kind::Poison(Poison::CutOff) => format!("{{\"id\": \"{event_id}\", \"event\": {{"),
        Kind::Poison(Poison::NoSubscription) => event(
            "contracts",
            "UPDATE",
            contract("signed"),
            contract("active"),
        ),
        Kind::Poison(Poison::BadEmail) => event(
            "customers",
            "INSERT",
            Value::Null,
            customer("New", "nowhere"),
        ),
        Kind::Poison(Poison::WrongType) => {
            let row = json!({"id": subject, "subscription_id": 17, "status": "active"});
            event("contracts", "INSERT", Value::Null, row)
        }
    };
    Planned {
        event_id,
        kind,
        subject,
        subscription,
        json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_history() {
        let (one, same, other) = (Plan::draw(50, 7), Plan::draw(50, 7), Plan::draw(50, 8));

        assert_eq!(one.actions, same.actions);
        assert_ne!(one.actions, other.actions);
    }
}
