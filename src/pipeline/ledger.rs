//! The durable inbox: claims with leases, and completions together with what follows from them.
//!
//! The database decides who runs what. A claim is a lease that is renewed while the handler runs,
//! with a fence that grows with every claim; a run whose fence is no longer the newest leaves
//! nothing behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Budget;
use super::batcher::Batcher;
use crate::clock::Deadline;
use crate::error::{Class, Error, Result};
use crate::failpoint;
use crate::store::Store;
use crate::store::commit::{self, Failure, GiveBack, Kept, Step};
use crate::store::inbox::{self, Ask, Claimed, Ended, RunKey};

/// Most claims or completions of one transaction.
const BATCH: usize = 512;

/// Loops that claim, and as many that commit: the second helps when the first takes long.
const LOOPS: usize = 2;

/// How long to wait between two looks at a run of somebody else, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The durable inbox of one process.
pub struct Ledger {
    store: Store,
    claims: Batcher<Ask, Claimed>,
    commits: Batcher<Step, Result<Kept>>,
    held: Held,
}

type HeldRuns = HashMap<(RunKey, i64), CancellationToken>;

/// The claims this process holds, with what tells a run that it has lost its own.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<HeldRuns>>);

impl Held {
    fn runs(&self) -> MutexGuard<'_, HeldRuns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a claim.
pub(super) enum Answer {
    /// The caller runs it.
    Ours(Lease),
    /// It has ended.
    Ended(Ended),
    /// Somebody else still runs it at the deadline.
    Running,
}

impl Ledger {
    /// Starts the loops on `tasks`; they end with the ledger.
    pub fn start(store: Store, tasks: &TaskTracker) -> Arc<Self> {
        let (for_claims, for_commits) = (store.clone(), store.clone());
        let claims = Batcher::start(tasks, LOOPS, BATCH, move |asks: Vec<Ask>| {
            let store = for_claims.clone();
            async move { inbox::claim(&store, &asks).await }
        });
        let commits = Batcher::start(tasks, LOOPS, BATCH, move |steps: Vec<Step>| {
            let store = for_commits.clone();
            async move { commit::commit(&store, &steps).await }
        });
        let ledger = Arc::new(Self {
            store,
            claims,
            commits,
            held: Held::default(),
        });
        tasks.spawn(renew_for_ever(Arc::downgrade(&ledger)));
        ledger
    }

    /// Returns the database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Asks for the right to run, and waits for a run of somebody else to end.
    pub(super) async fn claim(self: &Arc<Self>, ask: Ask, budget: &Budget) -> Result<Answer> {
        failpoint::reach("before_claim");
        let deadline = &budget.work;
        let mut pause = FIRST_LOOK;
        loop {
            let asked = deadline.run(self.claims.ask(ask.clone())).await;
            let claimed = asked.map_err(|_| out_of_time())??;
            match claimed {
                Claimed::Ours {
                    generation,
                    fence,
                    attempt,
                } => {
                    let key = RunKey {
                        event_id: ask.event_id,
                        handler: ask.handler,
                        generation,
                    };
                    let lease = Lease::new(self, key, fence, attempt);
                    failpoint::reach("after_claim");
                    return Ok(Answer::Ours(lease));
                }
                Claimed::Ended(ended) => return Ok(Answer::Ended(ended)),
                Claimed::Running { .. } => {}
            }
            if budget.claim.remaining() <= pause {
                return Ok(Answer::Running);
            }
            deadline.clock().sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// Keeps something; `Err` when it is not known whether it is kept.
    pub(super) async fn keep(&self, step: Step, deadline: &Deadline) -> Result<Kept> {
        let asked = deadline.run(self.commits.ask(step)).await;
        asked.map_err(|_| out_of_time())??
    }

    /// Keeps something that is good to have but nothing depends on.
    pub(super) fn note(&self, step: Step) {
        self.commits.tell(step);
    }

    /// Waits until everything handed over is kept or has failed.
    pub async fn flush(&self) {
        self.claims.idle().await;
        self.commits.idle().await;
    }

    /// Returns how many claims this process holds.
    pub fn held(&self) -> usize {
        self.held.runs().len()
    }

    async fn renew(&self) {
        let held: Vec<(RunKey, i64)> = self.held.runs().keys().cloned().collect();
        if held.is_empty() {
            return;
        }
        let renewed = self.store.in_time(inbox::renew(&self.store, &held));
        let still = match renewed.await {
            Ok(still) => still,
            Err(error) => {
                // The leases last a while yet, and the next round may succeed.
                tracing::warn!(error.code = %error.code(), "leases could not be renewed");
                return;
            }
        };
        let runs = self.held.runs();
        for (key, _) in held.iter().zip(still).filter(|(_, still)| !still) {
            if let Some(lost) = runs.get(key) {
                lost.cancel();
            }
        }
    }
}

async fn renew_for_ever(ledger: Weak<Ledger>) {
    // The machine's time, not the service's clock: a clock that tests move would spin here.
    let mut rounds: u64 = 0;
    loop {
        let Some(pause) = ledger
            .upgrade()
            .map(|ledger| Duration::from_micros(ledger.store.lease().unsigned_abs() / 3))
        else {
            return;
        };
        tokio::time::sleep(pause).await;
        let Some(ledger) = ledger.upgrade() else {
            return;
        };
        ledger.renew().await;
        rounds += 1;
        if rounds.is_multiple_of(6)
            && let Err(error) = ledger.store.in_time(ledger.store.sync_clock()).await
        {
            tracing::debug!(error.code = %error.code(), "the clock could not be set");
        }
    }
}

/// A claim that is held. Dropped before it ended, it is given back.
pub(super) struct Lease {
    ledger: Arc<Ledger>,
    key: RunKey,
    fence: i64,
    attempt: i32,
    lost: CancellationToken,
    open: bool,
}

impl Lease {
    fn new(ledger: &Arc<Ledger>, key: RunKey, fence: i64, attempt: i32) -> Self {
        let lost = CancellationToken::new();
        let held = (key.clone(), fence);
        ledger.held.runs().insert(held, lost.clone());
        Self {
            ledger: Arc::clone(ledger),
            key,
            fence,
            attempt,
            lost,
            open: true,
        }
    }

    pub(super) fn key(&self) -> &RunKey {
        &self.key
    }

    pub(super) fn fence(&self) -> i64 {
        self.fence
    }

    /// Which try of this run this is, from 1.
    pub(super) fn attempt(&self) -> i32 {
        self.attempt
    }

    /// Resolves when somebody else has taken the claim over.
    pub(super) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Says that the run has ended in the database, or that the claim is no longer ours.
    pub(super) fn close(mut self) {
        self.open = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = (self.key.clone(), self.fence);
        self.ledger.held.runs().remove(&held);
        if self.open {
            self.ledger.note(Step::GiveBack(Box::new(GiveBack {
                key: held.0,
                fence: Some(held.1),
                failure: None,
            })));
        }
    }
}

/// Notes why a try failed.
pub(super) fn failure(attempt: i32, error: &Error) -> Failure {
    Failure {
        attempt,
        class: error.class().as_str(),
        code: error.code().to_string(),
        message: error.to_string(),
    }
}

/// Another holder has taken the run over; it decides what becomes of it.
pub(super) fn lease_lost() -> Error {
    let error = Error::transient("lease_lost");
    debug_assert_eq!(error.class(), Class::Transient);
    error
}

fn out_of_time() -> Error {
    Error::OutOfTime {
        during: "the database's answer",
    }
}
