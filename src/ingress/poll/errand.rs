//! What the loop sends out and waits for: questions to the database, and rows that run.

use std::future::pending;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;

use super::floor::{Look, RowInHand};
use crate::error::Result;
use crate::pipeline::Settled;
use crate::store::events::DueEvent;
use crate::store::marks::{Mark, mark};
use crate::store::{Lease, Micros, Store};

/// What an errand to the database brought back.
pub(super) enum Brought {
    Lanes(Result<Vec<Lease>>, usize),
    Renewed(Vec<Lease>, Result<Vec<Lease>>),
    Others(Result<usize>),
    Done(Result<()>),
}

pub(super) type Errand<T> = Option<BoxFuture<'static, T>>;
pub(super) type Report = (RowInHand, Settled);
pub(super) type Found = (Look, Result<Vec<DueEvent>>);
pub(super) type Marks = Vec<(RowInHand, Mark)>;

/// Sends a row's report, also when its run was cut off.
pub(super) struct ReportBack {
    row: Option<RowInHand>,
    to: UnboundedSender<Report>,
}

impl ReportBack {
    pub(super) fn new(row: RowInHand, to: UnboundedSender<Report>) -> Self {
        Self { row: Some(row), to }
    }

    pub(super) fn send(mut self, settled: Settled) {
        if let Some(row) = self.row.take() {
            self.to.send((row, settled)).ok();
        }
    }
}

impl Drop for ReportBack {
    fn drop(&mut self) {
        if let Some(row) = self.row.take() {
            self.to.send((row, Settled::cut_off())).ok();
        }
    }
}

/// Marks rows.
pub(super) fn marked(store: Store, batch: Marks) -> BoxFuture<'static, (Marks, Result<()>)> {
    async move {
        let marks: Vec<Mark> = batch.iter().map(|(_, mark)| mark.clone()).collect();
        let marked = store.in_time(mark(&store, &marks)).await;
        (batch, marked)
    }
    .boxed()
}

pub(super) fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX)
}

/// Waits for an errand, for ever when there is none.
pub(super) async fn of<T>(errand: &mut Errand<T>) -> T {
    let Some(work) = errand else {
        return pending().await;
    };
    let brought = work.await;
    *errand = None;
    brought
}
