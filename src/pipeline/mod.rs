//! What happens to every event: route, claim, handle, settle.

mod batcher;
mod dead_letters;
mod detach;
mod durable;
mod handler;
mod inbox;
mod later;
mod ledger;
mod loops;
mod outcome;
mod registry;
mod repeats;
mod run;
mod stale;
mod unrouted;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use moka::sync::Cache;
use tokio_util::task::TaskTracker;

pub use dead_letters::{ATTRIBUTE_PREFIX, Cause, DeadLetters};
pub use handler::{Completion, Context, Effects, Handler, Json, Payload, Repeated, Services};
pub use inbox::{Claim, Earlier, Ending, Guard, Inbox, Marks, Waiter};
pub use ledger::Ledger;
pub use outcome::{Before, Outcome};
pub use registry::{HandlerInfo, Registration, Registry, RegistryError, Routes, When};
pub use stale::Stale;
pub use unrouted::UnroutedInfo;

/// Statements of the handlers of community events, which name no other folder.
pub use crate::store::community;

use crate::clients::Steps;
use crate::clock::{Deadline, SharedClock};
use crate::config::WorkConfig;
use crate::egress::Egress;
use crate::error::{Class, Code};
use crate::event::{Event, Undecodable};
use crate::store::commit::Bury;
use crate::store::inbox::Mode;
use crate::telemetry::{Metrics, Tracer};
use detach::Detach;
use outcome::Ran;
use run::Job;
use unrouted::Unrouted;

/// Kept back from the ack deadline for the answer's way home.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// By when a delivery has to be worked off. Made when it arrives.
#[derive(Debug, Clone)]
pub struct Budget {
    /// For waiting until somebody else's run of the same event has ended.
    pub claim: Deadline,
    /// For claims, handlers and their retries.
    pub work: Deadline,
    /// For publications and dead letters after that; before Pub/Sub's ack deadline.
    pub settle: Deadline,
}

/// On what terms an event is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Which run of it.
    pub mode: Mode,
    /// Where it came from, for its dead letter: `push`, `events`, `subscription`.
    pub source: &'static str,
    /// The only handler that is to run it.
    pub handler: Option<String>,
    /// Whether it is a replay, which not every handler takes part in.
    pub replay: bool,
}

impl Terms {
    /// Those of a delivery.
    pub const PUSHED: Self = Self {
        mode: Mode::Generation(0),
        source: "push",
        handler: None,
        replay: false,
    };

    fn wants(&self, route: &Registration) -> bool {
        let named = self
            .handler
            .as_deref()
            .is_none_or(|name| name == route.name);
        named && (!self.replay || route.replay() == Repeated::Run)
    }
}

/// What became of an event, with what its door has to know to try it again itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What became of it.
    pub outcome: Outcome,
    /// Why, when it did not end well.
    pub failure: Option<Failed>,
}

/// Why an event did not end well. Holds words of this program only, no values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The handler at fault.
    pub handler: &'static str,
    /// Whether trying again can help.
    pub class: Class,
    /// Machine-readable; `breaker_open` was no try at all.
    pub code: Code,
    /// For people.
    pub message: String,
    /// Whether the event was not really tried: the upstream rests, or refuses our credentials, or
    /// the database is away.
    pub no_try: bool,
}

/// The parts a pipeline is made of.
pub struct Parts {
    /// Who takes which events.
    pub registry: Registry,
    /// Who has run what.
    pub inbox: Inbox,
    /// The durable inbox; `None` without a database.
    pub ledger: Option<Arc<Ledger>>,
    /// Where failures are kept.
    pub dead_letters: DeadLetters,
    /// Where emitted events go.
    pub egress: Arc<Egress>,
    /// What handlers call.
    pub services: Arc<Services>,
    /// Time.
    pub clock: SharedClock,
    /// Time budgets.
    pub work: WorkConfig,
    /// Longest chain of events caused by our own writes.
    pub max_event_depth: u32,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Records what happens to an event.
    pub tracer: Tracer,
    /// Where effects run, so that shutdown can wait for them.
    pub tasks: TaskTracker,
}

/// Runs every event through its handlers, once for each of them.
pub struct Pipeline {
    parts: Parts,
    unrouted: Unrouted,
    /// Panics per (handler, event id): a handler that panics on an event again and again is a
    /// bug that redelivery does not mend.
    panics: Cache<(&'static str, Arc<str>), u32>,
}

impl Pipeline {
    /// Makes a pipeline.
    pub fn new(parts: Parts) -> Self {
        let panics = Cache::builder()
            .max_capacity(10_000)
            .time_to_live(Duration::from_secs(24 * 3600))
            .build();
        Self {
            parts,
            unrouted: Unrouted::default(),
            panics,
        }
    }

    /// Returns what records the events' traces.
    pub fn tracer(&self) -> &Tracer {
        &self.parts.tracer
    }

    /// Starts the time budget of a delivery that arrives now.
    pub fn budget(&self) -> Budget {
        let Parts { clock, work, .. } = &self.parts;
        let settle = work
            .ack_deadline
            .saturating_sub(ANSWER_MARGIN)
            .max(work.handler_timeout);
        Budget {
            claim: Deadline::after(clock, work.handler_timeout),
            work: Deadline::after(clock, work.handler_timeout),
            settle: Deadline::after(clock, settle),
        }
    }

    /// Runs an event to its end.
    ///
    /// The work goes on in a task of its own when the caller is dropped: a client that hangs up
    /// does not cut a handler in half. `place` is what the event occupies; it is dropped when the
    /// work is over, not when the caller is.
    pub async fn process(
        self: &Arc<Self>,
        event: Event,
        budget: Budget,
        place: impl Send + 'static,
    ) -> Outcome {
        let pipeline = Arc::clone(self);
        self.to_its_end(async move {
            let settled = pipeline.run(Arc::new(event), &Terms::PUSHED, budget).await;
            drop(place);
            settled.outcome
        })
        .await
        .unwrap_or(Outcome::Retry(Outcome::SOON))
    }

    /// Runs an event on other terms than those of a delivery: out of the `events` table, a dead
    /// letter once more, a replay. Goes on when the caller is dropped, as [`Pipeline::process`].
    pub async fn run_on(
        self: &Arc<Self>,
        event: Arc<Event>,
        terms: Terms,
        budget: Budget,
    ) -> Settled {
        let pipeline = Arc::clone(self);
        self.to_its_end(async move { pipeline.run(event, &terms, budget).await })
            .await
            .unwrap_or_else(Settled::cut_off)
    }

    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        // Handlers' panics are caught closer; this is the net below the pipeline itself.
        let work = AssertUnwindSafe(work).catch_unwind();
        Detach::new(&self.parts.tasks, work).await.ok()
    }

    async fn run(&self, event: Arc<Event>, terms: &Terms, budget: Budget) -> Settled {
        let started = self.parts.clock.monotonic();
        self.observe_age(&event);
        let outcome = match self.parts.registry.routes(&event) {
            Routes::Unknown => return self.keep_unrouted(&event, terms, &budget).await,
            Routes::Unwanted => {
                self.count("none", "skipped");
                let ran = Ran::skipped("no condition holds");
                return self.report(&event, &[ran], started);
            }
            Routes::To(mut routes) => {
                routes.retain(|route| terms.wants(route));
                let job = |registration| Job {
                    registration,
                    event: &event,
                    budget: &budget,
                    mode: terms.mode,
                    source: terms.source,
                    steps: Steps::default(),
                };
                match routes.as_slice() {
                    [] => vec![Ran::skipped("no handler is to run it again")],
                    [only] => vec![self.run_handler(&job(only)).await],
                    several => {
                        let jobs: Vec<Job<'_>> = several.iter().map(|it| job(it)).collect();
                        join_all(jobs.iter().map(|job| self.run_handler(job))).await
                    }
                }
            }
        };
        self.report(&event, &outcome, started)
    }

    /// Keeps a delivery that holds no event.
    pub async fn bury_undecodable(
        self: &Arc<Self>,
        undecodable: Box<Undecodable>,
        budget: Budget,
    ) -> Outcome {
        let pipeline = Arc::clone(self);
        let work = async move {
            let cause = Cause {
                reason: undecodable.reason.what.to_owned(),
                class: Class::Permanent,
                code: Code::new(undecodable.reason.code),
                handler: None,
                trace: None,
            };
            let delivery = &undecodable.delivery;
            let letters = &pipeline.parts.dead_letters;
            let kept = match &pipeline.parts.ledger {
                None => {
                    letters
                        .keep_delivery(delivery, &cause, &budget.settle)
                        .await
                }
                Some(_) => {
                    let bury = Bury {
                        dead_letter: letters.row_of_delivery(delivery, &cause, "push"),
                        outbox: letters.outbox_of_delivery(delivery, &cause),
                    };
                    pipeline.bury(bury, &budget).await
                }
            };
            pipeline.settle_undecodable(&undecodable, cause, kept)
        };
        self.to_its_end(work)
            .await
            .unwrap_or(Outcome::Retry(Outcome::SOON))
    }

    /// Returns the durable inbox, when there is a database.
    pub fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.parts.ledger.as_ref()
    }

    /// Tells whether anybody may want an event, so that it is worth keeping.
    pub fn is_wanted(&self, event: &Event) -> bool {
        matches!(self.parts.registry.routes(event), Routes::To(_))
    }

    /// Describes the handlers.
    pub fn handlers(&self) -> Vec<HandlerInfo> {
        self.parts.registry.describe()
    }

    /// Lists the kinds of events nobody takes.
    pub fn unrouted_kinds(&self) -> Vec<UnroutedInfo> {
        self.unrouted.list()
    }

    /// Brings gauges up to date, before they are read.
    pub fn refresh_metrics(&self) {
        let remembered = i64::try_from(self.parts.inbox.remembered()).unwrap_or(i64::MAX);
        self.parts.metrics.inbox_entries.set(remembered);
    }

    fn observe_age(&self, event: &Event) {
        let created = event.created_at.or(event.delivery.publish_time);
        if let Some(age) = created.and_then(|at| self.parts.clock.now().duration_since(at).ok()) {
            self.parts.metrics.event_age.observe(age.as_secs_f64());
        }
    }

    fn count(&self, handler: &str, outcome: &str) {
        let now = self.parts.clock.now();
        self.parts.metrics.count(handler, outcome, now);
    }
}
