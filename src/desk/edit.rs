//! A corrected copy of a dead letter, under a new id.

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use super::check;
use super::dead_letters::decided;
use super::{By, DeadLetter, Desk, DeskError, DeskResult, Edit, Edited, RunMode};
use crate::event::{Event, derived_id, with_id};
use crate::store::DeliveryNote;
use crate::store::dead_letters::{NewDeadLetter, OriginalRow, Wanted};
use crate::store::redrives::{self, Copied, NewRedrive, What};

/// Longest accepted payload in bytes, Pub/Sub's own limit.
const MAX_PAYLOAD: usize = 10_000_000;

impl Desk {
    /// Makes a corrected copy of a dead letter under a new id, has it run, and closes the old one.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when it was decided already.
    pub async fn edit(&self, id: &str, ask: &Edit, by: &By) -> DeskResult<Edited> {
        let id = check::uuid("id", id)?;
        let author = check::author(by)?;
        if ask.payload.len() > MAX_PAYLOAD {
            return Err(DeskError::invalid("payload", "is longer than 10 MB"));
        }
        let (row, original) = self.kept(&id).await?;
        if row.source == "outbox" {
            return Err(DeskError::Conflict {
                code: "not_editable",
                what: "it is a message on its way out; correct the handler that emits it",
            });
        }
        let request = match &ask.request_id {
            Some(name) => check::text_of("request_id", name)?.to_owned(),
            None => Uuid::new_v4().to_string(),
        };
        let event_id = derived_id(&["edited", &id, &request]).to_string();
        let letter = copy(&row, original, &ask.payload, &event_id)?;
        let copied_id = letter.id().to_string();
        let redrive_id = derived_id(&["redrive", "edited", &id, &request]).to_string();
        let wanted = Wanted {
            ids: vec![copied_id.clone()],
            ..Wanted::default()
        };
        let new = NewRedrive {
            id: redrive_id.clone(),
            query: json!({ "select": { "ids": [copied_id] }, "edited": id }).to_string(),
            mode: RunMode::IfNotDone.as_str(),
            per_second: 1,
            by: author,
            what: What::DeadLetters(&wanted),
            most: 1,
            expected: None,
        };
        match redrives::copy(&self.store, &id, &letter, &new).await? {
            Copied::New | Copied::Before => Ok(Edited {
                event_id,
                redrive_id,
            }),
            Copied::Decided => Err(decided()),
        }
    }
}

/// Makes the copy; its event must be one that can be decoded.
fn copy(
    row: &DeadLetter,
    original: OriginalRow,
    payload: &str,
    event_id: &str,
) -> DeskResult<NewDeadLetter> {
    let mut note = original
        .delivery
        .as_deref()
        .map(DeliveryNote::parse)
        .unwrap_or_default();
    // Marks of the old one: which message it was, and what became of it.
    note.message_id = None;
    note.attempt = None;
    note.attributes
        .retain(|(name, _)| !name.starts_with("hookyard-"));
    if original.original.is_none() {
        note.attributes = vec![("ce-type".to_owned(), row.event_type.clone())];
    }
    let correlation = row.correlation_id.as_deref().unwrap_or(&row.event_id);
    let is_event = |(name, value): &(String, String)| {
        name == "ce-type" && !value.starts_with("google.cloud.pubsub.")
    };
    let data = if note.attributes.iter().any(is_event) {
        let ours = ["ce-id", "ce-causationid", "ce-correlationid"];
        note.attributes
            .retain(|(name, _)| !ours.contains(&name.as_str()));
        for (name, value) in ours.iter().zip([event_id, &row.event_id, correlation]) {
            note.attributes.push(((*name).to_owned(), value.to_owned()));
        }
        payload.to_owned()
    } else {
        with_id(payload, event_id).ok_or(DeskError::invalid("payload", "is not a JSON object"))?
    };
    let delivery = note.to_json();
    let decoded = Event::decode(note.with(Bytes::from(data.clone())));
    let event = decoded.map_err(|_| DeskError::invalid("payload", "holds no event"))?;
    if event.id.as_str() != event_id {
        return Err(DeskError::invalid("payload", "holds no event"));
    }
    Ok(NewDeadLetter {
        event_key: event_id.to_owned(),
        event_type: event.event_type.to_string(),
        source: match row.source.as_str() {
            "push" => "push",
            "subscription" => "subscription",
            _ => "events",
        },
        handler: row.handler.clone(),
        generation: 0,
        error_class: "permanent".to_owned(),
        error_code: "edited".to_owned(),
        error_message: "a corrected copy that has not run yet".to_owned(),
        retry_count: 0,
        message_id: None,
        correlation_id: Some(correlation.to_owned()),
        trace_id: row.trace_id.clone(),
        original: data.into_bytes(),
        delivery,
        first_at: row.first_at.0,
    })
}
