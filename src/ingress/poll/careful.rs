//! Rows that may end the process: each try of theirs is counted before it begins.
//!
//! Nothing can be written down by a process that dies, so it is written down before. That costs a
//! statement, hence it is done only where there is reason to: in lanes whose last holder never gave
//! them back, and for rows in the middle of whose last run a process ended.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;

use super::errand::{Errand, ReportBack, micros};
use super::floor::RowInHand;
use super::foreman::Foreman;
use super::judge::{deadly, give_up_deadly, is_deadly, wait};
use crate::error::Result;
use crate::pipeline::{Outcome, Settled};
use crate::store::crashes::Tries;
use crate::store::events::DueEvent;
use crate::store::marks::RowRun;
use crate::store::{Lease, Micros, Store};

/// Rows that were to be counted, and the ids of those that were.
pub(super) type Counted = (Vec<RowInHand>, Result<HashSet<String>>);

/// What is begun with care.
#[derive(Default)]
pub(super) struct Careful {
    waiting: Vec<RowInHand>,
    /// Rows (`seq`) whose present try is counted already.
    counted: HashSet<i64>,
    /// Those of them that have run and are not marked yet: the next one might take along what is
    /// known of them, and each death would be counted as theirs.
    unmarked: HashSet<i64>,
    /// The rows that are being counted.
    pub(super) counting: Errand<Counted>,
}

impl Careful {
    /// Begins to count the tries of what waits for it.
    pub(super) fn count(&mut self, store: &Store) {
        let busy = self.counting.is_some() || !self.unmarked.is_empty();
        if busy || self.waiting.is_empty() {
            return;
        }
        let rows = std::mem::take(&mut self.waiting);
        let store = store.clone();
        let now = store.now();
        let tries = |row: &RowInHand| tries(row, due_after_death(row, &store, now));
        let tries: Vec<Tries> = rows.iter().map(tries).collect();
        self.counting = Some(
            async move {
                let counted = store.in_time(store.count_ahead(&tries)).await;
                (rows, counted)
            }
            .boxed(),
        );
    }

    /// Says that a row has run; tells whether its try was counted.
    pub(super) fn end(&mut self, row: &DueEvent) -> bool {
        let counted = self.counted.remove(&row.seq);
        if counted {
            self.unmarked.insert(row.seq);
        }
        counted
    }

    /// Says that what became of a row is written down.
    pub(super) fn marked(&mut self, row: &DueEvent) {
        self.unmarked.remove(&row.seq);
    }
}

impl Foreman {
    /// Begins a row: runs it, has its try counted first, or gives it up.
    pub(super) fn begin(&mut self, row: RowInHand, now: Micros) {
        if !self.floor.is_watched(&row) {
            self.run(row);
        } else if is_deadly(&row, self.worker.settings.max_retries) {
            let failed = deadly();
            let mut mark = give_up_deadly(&row, &failed, now);
            self.describe(&row, &failed, &mut mark);
            self.floor.ended(&row, true);
            self.count(&row, &mark);
            self.marks.push((row, mark));
        } else {
            self.careful.waiting.push(row);
        }
    }

    /// Lets go of the rows whose tries are not counted yet.
    pub(super) fn put_back_uncounted(&mut self) {
        for row in std::mem::take(&mut self.careful.waiting) {
            self.put_back(&row);
        }
    }

    fn run(&self, row: RowInHand) {
        let report = ReportBack::new(Arc::clone(&row), self.reporter.clone());
        let run = self.worker.rows.run(row);
        self.runs.spawn(async move { report.send(run.await) });
    }

    /// Lets go of a row that was to start.
    fn put_back(&mut self, row: &DueEvent) {
        self.floor.ended(row, false);
        self.floor.let_go(row);
    }

    pub(super) fn take_counted(&mut self, (rows, counted): Counted) {
        match counted {
            Ok(counted) => {
                self.is_back();
                for row in rows {
                    if !counted.contains(&row.id) {
                        // Found again as it is now.
                        self.put_back(&row);
                        continue;
                    }
                    self.careful.counted.insert(row.seq);
                    match self.open {
                        true => self.run(row),
                        false => ReportBack::new(row, self.reporter.clone()).send(Settled {
                            outcome: Outcome::Retry(Outcome::SOON),
                            failure: None,
                        }),
                    }
                }
            }
            Err(error) => {
                for row in &rows {
                    self.put_back(row);
                }
                self.is_away(error);
            }
        }
    }
}

/// Says that lanes were never given back.
pub(super) fn tell_of_left(leases: &[Lease]) {
    let lanes = leases.iter().filter(|lease| lease.left).count();
    if lanes > 0 {
        tracing::warn!(
            lanes,
            "an instance ended without giving its lanes back: their rows are begun with care"
        );
    }
}

/// Returns the tries of a row without the one that was counted ahead.
pub(super) fn tries(row: &DueEvent, until: Micros) -> Tries {
    Tries {
        run: RowRun {
            id: row.id.clone(),
            generation: row.generation,
        },
        attempts: row.attempts,
        until,
    }
}

/// Should it take the process along, it is due some time after its lane is free again: whatever
/// else is in there has a chance before it.
fn due_after_death(row: &Arc<DueEvent>, store: &Store, now: Micros) -> Micros {
    let pause = wait(row.attempts.saturating_add(1), 1.0);
    now.saturating_add(store.lease())
        .saturating_add(micros(pause))
}
