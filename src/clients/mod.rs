//! The APIs this service calls, all through one HTTP client that times out, retries and rests.

pub mod http;

pub mod chargebee;
pub mod hasura;

mod breaker;
mod exchange;
mod retry;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::{Deadline, SharedClock};
use crate::error::{Error, Result};
use crate::event::{EventId, TraceContext, derived_id};
use crate::telemetry::Tracer;

/// How long one check may take, asking a person to wait.
const CHECK_BUDGET: Duration = Duration::from_secs(10);

/// On whose behalf a call is made: one run of one handler for one event.
#[derive(Debug, Clone)]
pub struct Call {
    /// The event that is handled.
    pub event_id: EventId,
    /// 0, and one more for every run an operator asked for: what it does is done anew.
    pub generation: i32,
    /// The handler's name.
    pub handler: &'static str,
    /// How many of our own writes lie behind that event.
    pub depth: u32,
    /// When everything has to be over.
    pub deadline: Deadline,
    /// The trace to continue.
    pub trace: TraceContext,
    /// Records the calls.
    pub tracer: Tracer,
    /// What upstreams have confirmed so far.
    pub steps: Steps,
    /// What the first request waits for.
    pub gate: Gate,
}

/// What requests of one run wait for before they leave: the right to do something that cannot be
/// undone.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<dyn Admission>>);

/// Decides whether a run may reach out.
pub trait Admission: Send + Sync {
    /// Resolves when requests may leave; never, when they may not, and the run is ended from
    /// outside.
    fn admitted(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl Gate {
    /// Makes one that asks.
    pub fn of(admission: Arc<dyn Admission>) -> Self {
        Self(Some(admission))
    }

    /// Resolves when requests may leave. [`Upstream::send`](http::Upstream::send) waits for it; a
    /// client that goes another way has to do so itself.
    pub async fn passed(&self) {
        if let Some(admission) = &self.0 {
            admission.admitted().await;
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "asks" } else { "open" })
    }
}

/// The writes of one run that upstreams have confirmed: whoever decides about a run that failed
/// half-way wants to know what was done. Names of steps only, no ids.
#[derive(Debug, Clone, Default)]
pub struct Steps(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Steps {
    fn note(&self, service: &'static str, step: String) {
        self.lock().push((service, step));
    }

    /// Lists what was confirmed before a run ended with `error`, in order.
    pub fn before(&self, error: &Error) -> Vec<String> {
        let mut steps = self.lock().clone();
        // A write that found nothing to change was answered well and has done nothing.
        if let Error::NotFound { service, .. } = error
            && steps.last().is_some_and(|(last, _)| last == service)
        {
            steps.pop();
        }
        let spell = |(service, step): (&str, String)| format!("{service} {step}");
        steps.into_iter().map(spell).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    /// Makes a call that no event asked for: `hookyard check` tries an upstream.
    pub(crate) fn for_check(clock: &SharedClock) -> Result<Self> {
        Ok(Self {
            event_id: EventId::new("check").ok_or_else(|| Error::permanent("bad_id"))?,
            generation: 0,
            handler: "check",
            depth: 0,
            deadline: Deadline::after(clock, CHECK_BUDGET),
            trace: TraceContext::new_root(),
            tracer: Tracer::off(),
            steps: Steps::default(),
            gate: Gate::default(),
        })
    }

    /// Returns the id of one step of this run, the same on every retry and redelivery.
    ///
    /// 36 characters, so it fits Chargebee's idempotency key (at most 100) whatever the length of
    /// the event's own id.
    pub fn idempotency_key(&self, step: &str) -> Uuid {
        match self.generation {
            0 => derived_id(&[self.event_id.as_str(), self.handler, step]),
            later => derived_id(&[
                self.event_id.as_str(),
                self.handler,
                step,
                &later.to_string(),
            ]),
        }
    }
}
