//! Which handlers take which events, and under which conditions.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;

use super::handler::{Completion, Context, Effects, Handler, Payload, Repeated};
use super::stale::Stale;
use crate::error::Result;
use crate::event::{Body, Event, Op};

/// The conditions of a registration: data, so that they can be shown and checked in one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct When {
    ops: Option<&'static [Op]>,
    changed: Option<&'static [&'static str]>,
    role: Option<&'static str>,
    trigger: Option<&'static str>,
}

impl When {
    /// No condition.
    pub const fn always() -> Self {
        Self {
            ops: None,
            changed: None,
            role: None,
            trigger: None,
        }
    }

    /// Only for these operations.
    #[must_use]
    pub const fn op(mut self, ops: &'static [Op]) -> Self {
        self.ops = Some(ops);
        self
    }

    /// Only when at least one of these columns changed (INSERT and DELETE change them all).
    #[must_use]
    pub const fn changed(mut self, columns: &'static [&'static str]) -> Self {
        self.changed = Some(columns);
        self
    }

    /// Only for changes made by this Hasura role.
    #[must_use]
    pub const fn role(mut self, role: &'static str) -> Self {
        self.role = Some(role);
        self
    }

    /// Only for events of this Hasura trigger.
    #[must_use]
    pub const fn trigger(mut self, name: &'static str) -> Self {
        self.trigger = Some(name);
        self
    }

    /// Returns the operations it is limited to.
    pub fn ops(&self) -> Option<&'static [Op]> {
        self.ops
    }

    /// Returns the columns of which one has to change.
    pub fn columns(&self) -> Option<&'static [&'static str]> {
        self.changed
    }

    /// Returns the name of the only trigger it takes events of.
    pub fn trigger_name(&self) -> Option<&'static str> {
        self.trigger
    }

    fn holds_for(&self, event: &Event) -> bool {
        let row = match &event.body {
            Body::Row(row) => Some(row),
            Body::Scheduled(_) | Body::Message(_) => None,
        };
        self.trigger
            .is_none_or(|name| event.trigger.as_deref() == Some(name))
            && self
                .ops
                .is_none_or(|ops| row.is_some_and(|row| ops.contains(&row.op())))
            && self
                .changed
                .is_none_or(|all| row.is_some_and(|row| all.iter().any(|name| row.changed(name))))
            && self
                .role
                .is_none_or(|role| event.role().as_deref() == Some(role))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(ops) = self.ops {
            parts.push(
                ops.iter()
                    .map(|op| op.as_str())
                    .collect::<Vec<_>>()
                    .join(" or "),
            );
        }
        if let Some(columns) = self.changed {
            parts.push(format!("{} changed", columns.join(" or ")));
        }
        if let Some(role) = self.role {
            parts.push(format!("role {role}"));
        }
        if let Some(trigger) = self.trigger {
            parts.push(format!("trigger {trigger}"));
        }
        f.write_str(if parts.is_empty() { "always" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

type Run<'a> = Pin<Box<dyn Future<Output = Result<Completion>> + Send + 'a>>;

/// A handler whose payload type is forgotten, so that all kinds fit in one list.
trait AnyHandler: Send + Sync {
    fn run<'a>(&'a self, cx: &'a Context) -> Run<'a>;
}

impl<H: Handler> AnyHandler for H {
    fn run<'a>(&'a self, cx: &'a Context) -> Run<'a> {
        Box::pin(async move { self.handle(cx, H::Payload::from_event(cx.event())?).await })
    }
}

/// One registered handler.
pub struct Registration {
    /// The handler's name.
    pub name: &'static str,
    events: &'static [&'static str],
    about: &'static str,
    when: When,
    on_redelivery: Repeated,
    replay: Repeated,
    effects: Effects,
    stale: Stale,
    handler: Box<dyn AnyHandler>,
}

impl Registration {
    pub(super) fn run<'a>(&'a self, cx: &'a Context) -> Run<'a> {
        self.handler.run(cx)
    }

    /// Returns the event types it takes.
    pub fn events(&self) -> &'static [&'static str] {
        self.events
    }

    /// Returns what it does with what an operator has delivered again.
    pub fn on_redelivery(&self) -> Repeated {
        self.on_redelivery
    }

    /// Returns whether replays run it.
    pub fn replay(&self) -> Repeated {
        self.replay
    }

    /// Returns what it does with a change when a newer one was handled before.
    pub fn stale(&self) -> Stale {
        self.stale
    }

    /// Returns where its effects are.
    pub fn effects(&self) -> Effects {
        self.effects
    }

    /// Returns the conditions under which it takes them.
    pub fn when(&self) -> &When {
        &self.when
    }
}

/// One line of `hookyard handlers`.
#[derive(Debug, Clone, Serialize)]
pub struct HandlerInfo {
    /// The event types it takes.
    pub event_types: Vec<&'static str>,
    /// Under which conditions.
    pub condition: String,
    /// The handler's name.
    pub handler: &'static str,
    /// What it does.
    pub about: &'static str,
    /// `skip` or `run` what an operator has Hasura deliver again.
    pub on_redelivery: &'static str,
    /// Whether replays `skip` or `run` it.
    pub replay: &'static str,
}

/// Something is wrong with the list of handlers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Two handlers would share their claims, so one would never run.
    #[error("two handlers are named `{0}`; give each its own NAME")]
    DuplicateName(&'static str),
    /// It would never run.
    #[error("handler `{0}` names no event type; add one to EVENTS")]
    NoEvents(&'static str),
    /// Metrics and routes speak of these words themselves.
    #[error("`{0}` cannot be a handler's name; use lower-case words joined by underscores")]
    BadName(&'static str),
}

/// What an event type leads to.
pub enum Routes {
    /// Nobody takes this event type.
    Unknown,
    /// Handlers take it, but none wants this event.
    Unwanted,
    /// These want it.
    To(Vec<Arc<Registration>>),
}

/// The handlers of a service.
#[derive(Default)]
pub struct Registry {
    by_event: HashMap<&'static str, Vec<Arc<Registration>>>,
    by_name: BTreeMap<&'static str, Arc<Registration>>,
}

impl Registry {
    /// Makes an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler.
    ///
    /// # Errors
    /// [`RegistryError`] when the handler can never run or would hide another.
    pub fn register<H: Handler>(&mut self, handler: H) -> Result<(), RegistryError> {
        let reserved = ["unrouted", "undecodable"];
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if H::NAME.is_empty() || !H::NAME.bytes().all(plain) || reserved.contains(&H::NAME) {
            return Err(RegistryError::BadName(H::NAME));
        }
        if H::EVENTS.is_empty() {
            return Err(RegistryError::NoEvents(H::NAME));
        }
        if self.by_name.contains_key(H::NAME) {
            return Err(RegistryError::DuplicateName(H::NAME));
        }
        let registration = Arc::new(Registration {
            name: H::NAME,
            events: H::EVENTS,
            about: H::ABOUT,
            when: handler.when(),
            on_redelivery: H::ON_REDELIVERY,
            replay: H::REPLAY,
            effects: H::EFFECTS,
            stale: H::STALE,
            handler: Box::new(handler),
        });
        for event in H::EVENTS {
            let list = self.by_event.entry(event).or_default();
            if !list.iter().any(|other| other.name == H::NAME) {
                list.push(Arc::clone(&registration));
            }
        }
        self.by_name.insert(H::NAME, registration);
        Ok(())
    }

    /// Finds who wants an event.
    pub fn routes(&self, event: &Event) -> Routes {
        let Some(list) = self.by_event.get(event.event_type.as_str()) else {
            return Routes::Unknown;
        };
        let wanted: Vec<_> = list
            .iter()
            .filter(|route| route.when.holds_for(event))
            .cloned()
            .collect();
        if wanted.is_empty() {
            Routes::Unwanted
        } else {
            Routes::To(wanted)
        }
    }

    /// Returns every registration, sorted by name.
    pub fn registrations(&self) -> impl Iterator<Item = &Registration> {
        self.by_name.values().map(Arc::as_ref)
    }

    /// Describes every handler, sorted by name.
    pub fn describe(&self) -> Vec<HandlerInfo> {
        self.by_name
            .values()
            .map(|registration| HandlerInfo {
                event_types: registration.events.to_vec(),
                condition: registration.when.to_string(),
                handler: registration.name,
                about: registration.about,
                on_redelivery: registration.on_redelivery.as_str(),
                replay: registration.replay.as_str(),
            })
            .collect()
    }
}
