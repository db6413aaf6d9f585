//! The single steps of a relay: each is one question to the database or the broker.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::window::{BYTES, Place, ROWS, Want, Window};
use crate::brokers::Message;
use crate::clock::{Deadline, SharedClock};
use crate::egress::Egress;
use crate::error::{Code, Error, Result};
use crate::event::TraceContext;
use crate::failpoint;
use crate::store::dead_letters::{self, NewDeadLetter};
use crate::store::lanes::still_ours;
use crate::store::outbox::{self, Backlog, Marks, WaitingRow};
use crate::store::{DeliveryNote, LaneKind, Lease, Store};
use crate::telemetry::TraceSpan;

/// How long the broker is waited for.
const PUBLISH_TIME: Duration = Duration::from_secs(15);

/// What the steps are made with.
pub(super) struct Tools {
    pub(super) egress: Arc<Egress>,
    pub(super) store: Store,
    pub(super) clock: SharedClock,
}

/// A row that was tried, and is to be marked.
pub(super) struct Mark {
    pub(super) lease: Lease,
    pub(super) seq: i64,
    pub(super) made: Made,
}

/// What the broker said of a row.
pub(super) enum Made {
    /// It has it, under this id.
    Published(String),
    /// It did not take it: how often so far, and why.
    Failed(i32, Code),
}

/// Lanes that were read, with those that were taken just before.
pub(super) struct Seen {
    pub(super) claimed: Vec<Lease>,
    pub(super) wants: Vec<Want>,
    pub(super) rows: Vec<WaitingRow>,
}

/// The end of a step.
pub(super) enum Answer {
    Seen(Result<Seen>),
    Paced,
    Published(Place, Box<WaitingRow>, Result<String>),
    Parked(Place, Box<WaitingRow>, Result<bool>),
    Marked(Vec<Mark>, Result<Vec<i16>>),
    Renewed(Vec<Lease>, Result<Vec<Lease>>),
    Released,
    Counted(Result<Backlog>),
}

impl Tools {
    /// Takes at most `claim` more lanes, and reads these and what is wanted of those held.
    pub(super) async fn look(self: Arc<Self>, claim: usize, mut wants: Vec<Want>) -> Answer {
        let look = async {
            let claimed = match claim {
                0 => Vec::new(),
                max => self.store.claim_lanes(LaneKind::Outbox, max).await?,
            };
            wants.extend(claimed.iter().map(Window::of_new));
            let from: Vec<(i16, i64)> = wants.iter().map(|want| (want.lane, want.after)).collect();
            let rows = if from.is_empty() {
                Vec::new()
            } else {
                let (rows, bytes) = (ROWS as i64, BYTES as i64);
                self.store.waiting_rows(&from, rows, bytes).await?
            };
            Ok(Seen {
                claimed,
                wants,
                rows,
            })
        };
        Answer::Seen(self.store.in_time(look).await)
    }

    pub(super) async fn publish(self: Arc<Self>, place: Place, row: WaitingRow) -> Answer {
        let left = place.lease.until.saturating_sub(self.store.now());
        let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
        let deadline = Deadline::after(&self.clock, PUBLISH_TIME.min(left));
        let sent = AssertUnwindSafe(self.send(&row, &deadline)).catch_unwind();
        // A client that panics over one message must not end the publication of all others.
        let result = sent.await.unwrap_or_else(|_| {
            Err(Error::Unpublished {
                topic: row.row.topic.clone(),
                code: Code::new("panic"),
            })
        });
        Answer::Published(place, Box::new(row), result)
    }

    async fn send(&self, row: &WaitingRow, deadline: &Deadline) -> Result<String> {
        let out = &row.row;
        let attributes: Vec<(String, String)> =
            serde_json::from_str(&row.attributes).map_err(|_| Error::Unpublishable {
                topic: out.topic.clone(),
                code: Code::new("attributes_unreadable"),
            })?;
        let traceparent = attributes.iter().find(|(name, _)| name == "traceparent");
        let trace = traceparent.and_then(|(_, value)| TraceContext::parse(value));
        let span = trace.map_or_else(TraceSpan::none, |trace| {
            self.egress.span(&out.topic, &trace.child(), &trace)
        });
        let message = Message {
            data: out.data.clone(),
            attributes,
            ordering_key: out.ordering_key.clone(),
        };
        self.egress
            .publish(&out.topic, message, deadline, span)
            .await
    }

    /// Keeps a row as a dead letter and takes it out of the queue; `false` when its lane is lost.
    pub(super) async fn park(
        self: Arc<Self>,
        place: Place,
        row: Box<WaitingRow>,
        error: Error,
    ) -> Answer {
        let park = async {
            let mut tx = self.store.begin().await?;
            if still_ours(&mut tx, LaneKind::Outbox, &[place.lease])
                .await?
                .is_empty()
            {
                return Ok(false);
            }
            let (out, tries) = (&row.row, row.attempts.saturating_add(1));
            let note = DeliveryNote {
                ordering_key: out.ordering_key.clone(),
                attributes: serde_json::from_str(&row.attributes).unwrap_or_default(),
                ..DeliveryNote::default()
            };
            let letter = NewDeadLetter {
                event_key: out.message_id.clone(),
                event_type: out.event_type.clone(),
                source: "outbox",
                handler: Some(out.handler.clone()),
                // One that was put back and is refused again is another failure.
                generation: row.attempts,
                error_class: error.class().as_str().to_owned(),
                error_code: error.code().as_str().to_owned(),
                error_message: error.to_string(),
                retry_count: tries,
                correlation_id: out.correlation_id.clone(),
                trace_id: out.trace_id.clone(),
                original: out.data.to_vec(),
                delivery: note.to_json(),
                first_at: row.created_at,
                ..NewDeadLetter::default()
            };
            dead_letters::insert(&mut tx, &letter, self.store.now()).await?;
            outbox::park(&mut tx, row.seq, tries, error.code().as_str()).await?;
            tx.commit().await?;
            tracing::error!(
                event.id = out.message_id.as_str(),
                event.r#type = out.event_type.as_str(),
                handler.name = out.handler.as_str(),
                error.code = error.code().as_str(),
                "the broker refuses an event for good; it was kept as a dead letter"
            );
            Ok(true)
        };
        let result = self.store.in_time(park).await;
        Answer::Parked(place, row, result)
    }

    /// Marks rows; says which lanes were still ours, the others' rows are left alone.
    pub(super) async fn mark(self: Arc<Self>, marks: Vec<Mark>) -> Answer {
        failpoint::reach("after_publish");
        let mark = async {
            let mut leases: Vec<Lease> = Vec::new();
            for mark in &marks {
                let same = |lease: &Lease| {
                    (lease.lane, lease.fence) == (mark.lease.lane, mark.lease.fence)
                };
                if !leases.iter().any(same) {
                    leases.push(mark.lease);
                }
            }
            let mut tx = self.store.begin().await?;
            let ours = still_ours(&mut tx, LaneKind::Outbox, &leases).await?;
            let mut held = Marks::default();
            for mark in marks.iter().filter(|mark| ours.contains(&mark.lease.lane)) {
                match &mark.made {
                    Made::Published(id) => held.published.push((mark.seq, id.clone())),
                    Made::Failed(tries, code) => {
                        held.failed
                            .push((mark.seq, *tries, code.as_str().to_owned()));
                    }
                }
            }
            outbox::mark(&mut tx, &held, self.store.now()).await?;
            tx.commit().await?;
            failpoint::reach("after_mark");
            Ok(ours)
        };
        let result = self.store.in_time(mark).await;
        Answer::Marked(marks, result)
    }

    pub(super) async fn renew(self: Arc<Self>, leases: Vec<Lease>) -> Answer {
        let renew = self.store.renew_lanes(LaneKind::Outbox, &leases);
        let renewed = self.store.in_time(renew).await;
        Answer::Renewed(leases, renewed)
    }

    pub(super) async fn release(self: Arc<Self>, leases: Vec<Lease>) -> Answer {
        // Leases that cannot be given back end by themselves.
        let release = self.store.release_lanes(LaneKind::Outbox, &leases);
        self.store.in_time(release).await.ok();
        Answer::Released
    }

    pub(super) async fn count(self: Arc<Self>) -> Answer {
        let counted = self.store.outbox_backlog();
        Answer::Counted(self.store.in_time(counted).await)
    }
}
