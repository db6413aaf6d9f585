//! One item of a redrive: its event is made again from what was kept, and runs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Runner, TRIES};
use crate::error::Result;
use crate::event::{Event, TableRow};
use crate::pipeline::{HandlerInfo, Outcome, Terms};
use crate::store::inbox::Mode;
use crate::store::redrives::{self, Ended, Endings, Item, Leased, REPLAY, RedriveRow, StoredEvent};
use crate::store::{DeliveryNote, time_of};

impl Runner {
    /// Runs one item, and says how long to wait before it is tried again.
    pub(super) async fn run_item(&self, leased: &Leased, item: &Item) -> (Ended, Duration) {
        match self.try_item(&leased.redrive, item).await {
            Ok(ended) => ended,
            // Our own database: nothing is known, so nothing is counted.
            Err(_) => (Ended::Again(false), Outcome::SOON),
        }
    }

    async fn try_item(&self, redrive: &RedriveRow, item: &Item) -> Result<(Ended, Duration)> {
        let over = |ended| Ok((ended, Duration::ZERO));
        let failed = |why: &str| over(Ended::Failed(why.to_owned()));
        let replay = redrive.kind == REPLAY;
        let (store, id) = (&self.store, &item.item_id);
        let stored = if replay {
            store.in_time(redrives::of_row(store, id)).await?
        } else {
            store.in_time(redrives::of_dead_letter(store, id)).await?
        };
        let Some(stored) = stored else {
            return failed("it is gone");
        };
        if stored.source == "outbox" {
            return over(Ended::Publish);
        }
        let source = source(&stored.source);
        let event = match event_of(stored) {
            Ok(event) => event,
            Err(why) => return failed(why),
        };
        if let Some(why) = self.nobody(item, &event) {
            return failed(why);
        }
        // A delivery that was not decoded when it was kept was not counted under its event's id.
        let known = event.id.as_str() == item.event_id;
        let mode = if known && redrive.mode == "force" {
            Mode::Generation(item.generation)
        } else {
            Mode::IfNotDone
        };
        // An instance that died may have run it and not come to say so.
        if item.is_resumed() {
            match store.in_time(redrives::endings(store, item)).await? {
                Endings::Well => return over(Ended::Done("done")),
                Endings::Badly => return over(Ended::DeadLettered("failed".to_owned())),
                Endings::None => {}
            }
            // Other failures end it before: these were counted and nobody came back.
            if item.attempts >= TRIES {
                return failed("each time it ran the process ended: mend the handler first");
            }
        }
        let declared = !redrive.query.contains(r#""side_effects":"run""#);
        let terms = Terms {
            mode,
            source,
            handler: item.handler.clone(),
            replay: replay && declared,
        };
        let budget = self.pipeline.budget();
        let settled = self.pipeline.run_on(Arc::new(event), terms, budget).await;
        let code = settled
            .failure
            .as_ref()
            .map(|it| it.code.as_str().to_owned());
        match settled.outcome {
            Outcome::Done | Outcome::Kept => over(Ended::Done("done")),
            Outcome::Skipped(why) => over(Ended::Skipped(why.to_owned())),
            Outcome::Unrouted => failed("no handler takes this event type"),
            Outcome::DeadLettered(code) => over(Ended::DeadLettered(code.to_string())),
            Outcome::Duplicate(_) => over(Ended::Skipped("was done meanwhile".to_owned())),
            Outcome::Retry(after) => {
                // Nothing was tried when somebody else has it or its upstream rests.
                let counts = code.as_deref().is_some_and(|code| code != "breaker_open");
                if counts && item.attempts + 1 >= TRIES {
                    let code = code.unwrap_or_default();
                    return failed(&format!("not possible after {TRIES} tries ({code})"));
                }
                let exponent = u32::try_from(item.attempts).unwrap_or_default().min(6);
                let pause = after.max(Duration::from_secs(1 << exponent));
                Ok((Ended::Again(counts), pause))
            }
        }
    }

    /// Says why an item's handler would not run at all.
    fn nobody(&self, item: &Item, event: &Event) -> Option<&'static str> {
        let handlers = self.pipeline.handlers();
        let takes = |it: &HandlerInfo| it.event_types.contains(&event.event_type.as_str());
        let Some(name) = item.handler.as_deref() else {
            return (!handlers.iter().any(takes)).then_some("no handler takes this event type");
        };
        match handlers.iter().find(|it| it.handler == name) {
            None => Some("there is no such handler any more"),
            Some(it) if !takes(it) => Some("the handler does not take this event type any more"),
            Some(_) => None,
        }
    }
}

/// The same words as constants, which is what the pipeline takes.
fn source(source: &str) -> &'static str {
    match source {
        "push" => "push",
        "subscription" => "subscription",
        _ => "events",
    }
}

/// Makes an event again from what was kept of it.
fn event_of(stored: StoredEvent) -> Result<Event, &'static str> {
    if let Some(original) = stored.original {
        let note = stored.delivery.as_deref().map(DeliveryNote::parse);
        let delivery = note.unwrap_or_default().with(Bytes::from(original));
        return Event::of_kept(delivery).map_err(|undecodable| undecodable.reason.what);
    }
    let metadata: Map<String, Value> = stored
        .metadata
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let row = TableRow {
        id: stored.event_id,
        event_type: stored.event_type,
        subject: stored.subject,
        payload: stored.payload,
        created_at: Some(time_of(stored.created)),
        ..TableRow::default()
    };
    Event::of_row(row.noted(&metadata)).ok_or("its id cannot be an event's")
}
