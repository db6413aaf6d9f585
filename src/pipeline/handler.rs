//! Business logic: what a handler is, and what it reaches the world through.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Stale, When};
use crate::clients::Call;
use crate::clients::chargebee::{Chargebee, ChargebeeCalls};
use crate::clients::hasura::{Hasura, HasuraCalls};
use crate::clock::Deadline;
use crate::egress::{Emitted, Emitter};
use crate::error::Result;
use crate::event::contracts::DomainEvent;
use crate::event::{Body, Change, Event, Scheduled, parse_json};
use crate::store::Write;

/// Typed business logic for one or more event types.
///
/// A handler returns; it never acknowledges, never picks a status code, never logs its own
/// failure. It may be run again for the same event (a redelivery after a failure, a crash between
/// its work and the acknowledgement), at any point of a half-finished earlier run, so it looks at
/// the present state before it writes and every write carries an idempotency key.
pub trait Handler: Send + Sync + 'static {
    /// Its name: key of its claims, label of its metrics. Renaming it runs past events again.
    const NAME: &'static str;

    /// The event types it takes: `contracts.update`, `cron.nightly`, `contract.activated`.
    const EVENTS: &'static [&'static str];

    /// What it does, one line for `hookyard handlers`.
    const ABOUT: &'static str;

    /// What it wants to read: [`Change<T>`] for table events, [`Scheduled<T>`] for cron and
    /// one-off triggers, [`Json<T>`] for domain events.
    type Payload: Payload;

    /// What to do when an operator has Hasura deliver an event again that was completed long ago;
    /// needs a database, which tells such a delivery from a late repeat.
    const ON_REDELIVERY: Repeated = Repeated::Skip;

    /// Whether a replay of processed events runs it; `Skip` for what must not happen again, such
    /// as a mail to a customer.
    const REPLAY: Repeated = Repeated::Run;

    /// What to do with a change of a row when a newer one was handled before.
    const STALE: Stale = Stale::Run;

    /// Where its effects are. The more is known of that, the fewer writes an event takes.
    const EFFECTS: Effects = Effects::Anywhere;

    /// Returns the conditions under which it wants to run.
    fn when(&self) -> When {
        When::always()
    }

    /// Does the work.
    ///
    /// # Errors
    /// Whatever went wrong; [`Error::class`](crate::error::Error::class) decides between trying
    /// again and a dead letter.
    fn handle(
        &self,
        cx: &Context,
        payload: Self::Payload,
    ) -> impl Future<Output = Result<Completion>> + Send;
}

/// What to do with an event that was completed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// Nothing; it is counted and can be seen.
    Skip,
    /// It is run again.
    Run,
}

impl Repeated {
    /// Returns the word used where handlers are described.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Run => "run",
        }
    }
}

/// Where a handler's effects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effects {
    /// Anywhere: the event is claimed before the handler runs.
    Anywhere,
    /// Only in requests made on behalf of [`Context::call`], as those of [`Context::chargebee`] and
    /// [`Context::hasura`] are, in [`Context::write`] and [`Context::emit`]: the event is claimed
    /// when the first request is about to leave. One that is skipped without a request is never
    /// claimed, which saves a write.
    Calls,
    /// Only in [`Context::write`] and [`Context::emit`]: two runs at once do no harm, because one
    /// of them is undone, so nothing has to be claimed before.
    Transaction,
}

/// How a handler ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// The work is done.
    Done,
    /// There was nothing to do, and why. A constant, so that it cannot hold a row value.
    Skipped(&'static str),
}

/// Something a handler can read an event as.
pub trait Payload: Sized + Send {
    /// Parses the event.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::error::Error::Malformed) when it does not fit.
    fn from_event(event: &Event) -> Result<Self>;
}

/// The whole payload of an event in the type a handler asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send> Payload for Change<T> {
    fn from_event(event: &Event) -> Result<Self> {
        match &event.body {
            Body::Row(row) => Self::parse(row, event.event_type.as_str()),
            Body::Scheduled(_) | Body::Message(_) => Err(not_a("table event", event)),
        }
    }
}

impl<T: DeserializeOwned + Send> Payload for Scheduled<T> {
    fn from_event(event: &Event) -> Result<Self> {
        match &event.body {
            Body::Scheduled(scheduled) => scheduled.parse(event.event_type.as_str()),
            Body::Row(_) | Body::Message(_) => Err(not_a("scheduled trigger", event)),
        }
    }
}

impl<T: DeserializeOwned + Send> Payload for Json<T> {
    fn from_event(event: &Event) -> Result<Self> {
        let bytes: &[u8] = match &event.body {
            Body::Message(bytes) => bytes,
            Body::Row(_) | Body::Scheduled(_) => &event.delivery.data,
        };
        let json = std::str::from_utf8(bytes).map_err(|_| not_a("text", event))?;
        parse_json(json, event.event_type.as_str(), "data").map(Self)
    }
}

fn not_a(what: &str, event: &Event) -> crate::error::Error {
    let event_type = event.event_type.to_string();
    crate::error::Error::Malformed {
        event_type,
        path: format!("(not a {what})"),
    }
}

/// Everything a handler reaches the world through, bound to one run of one handler.
pub struct Context {
    services: Arc<Services>,
    event: Arc<Event>,
    call: Call,
    emitter: Mutex<Emitter>,
    /// `None` without a database.
    writes: Option<Mutex<Vec<Write>>>,
}

/// The upstreams of the service.
pub struct Services {
    /// The Chargebee site.
    pub chargebee: Chargebee,
    /// The Hasura GraphQL endpoint.
    pub hasura: Hasura,
}

impl Context {
    pub(super) fn new(
        services: Arc<Services>,
        event: Arc<Event>,
        call: Call,
        durable: bool,
    ) -> Self {
        let emitter = Mutex::new(Emitter::new(
            event.id.clone(),
            call.handler,
            call.generation,
        ));
        Self {
            services,
            event,
            call,
            emitter,
            writes: durable.then(Mutex::default),
        }
    }

    /// Returns the event that is handled.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Returns on whose behalf calls are made, for upstreams of a team's own.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Returns when everything has to be over.
    pub fn deadline(&self) -> &Deadline {
        &self.call.deadline
    }

    /// Returns the present time.
    pub fn now(&self) -> SystemTime {
        self.call.deadline.clock().now()
    }

    /// Returns the idempotency key of a step, the same on every run for this event.
    pub fn idempotency_key(&self, step: &str) -> Uuid {
        self.call.idempotency_key(step)
    }

    /// Returns Chargebee, with this run's deadline and idempotency keys.
    pub fn chargebee(&self) -> ChargebeeCalls<'_> {
        self.services.chargebee.on_behalf_of(&self.call)
    }

    /// Returns Hasura, with this run's deadline and trace.
    pub fn hasura(&self) -> HasuraCalls<'_> {
        self.services.hasura.on_behalf_of(&self.call)
    }

    /// Emits an event. It is published and confirmed after the handler has returned without an
    /// error, and under the same id if that has to be done again.
    ///
    /// # Errors
    /// [`Error::Never`](crate::error::Error::Never) when it cannot be written as JSON.
    pub fn emit<E: DomainEvent>(&self, event: &E) -> Result<()> {
        self.emitter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .emit(event)
    }

    /// Tells whether there is a database, so that [`Context::write`] can be used.
    pub fn is_durable(&self) -> bool {
        self.writes.is_some()
    }

    /// Runs a statement in the transaction that completes this run, after the handler has
    /// returned without an error: it lasts together with the completion and what was emitted, or
    /// not at all.
    ///
    /// # Errors
    /// [`Error::Never`](crate::error::Error::Never) without a database.
    pub fn write(&self, write: Write) -> Result<()> {
        let Some(writes) = &self.writes else {
            return Err(crate::error::Error::permanent("needs_database"));
        };
        writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(write);
        Ok(())
    }

    pub(super) fn into_parts(self) -> (Vec<Emitted>, Vec<Write>) {
        let emitter = self
            .emitter
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let writes = self
            .writes
            .map(|writes| writes.into_inner().unwrap_or_else(PoisonError::into_inner));
        (emitter.into_emitted(), writes.unwrap_or_default())
    }
}
