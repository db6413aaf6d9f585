//! Dead letters: listed, shown, grouped, given up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::check;
use super::{
    By, DeadLetter, DeadLetterDetail, DeadLetterFilter, DeadLetterPage, Desk, DeskError,
    DeskResult, Discard, Discarded, Group, Page, Payload,
};
use crate::store::dead_letters::{self, COUNTED, OriginalRow, Wanted};
use crate::store::{At, DeliveryNote, audit};

/// Most groups of one answer.
const MAX_GROUPS: i64 = 1_000;

impl Desk {
    /// Lists dead letters, newest first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        page: &Page,
    ) -> DeskResult<DeadLetterPage> {
        let wanted = check::wanted(filter)?;
        let (limit, before) = (check::limit(page)?, check::cursor(page)?);
        let mut rows = dead_letters::page(&self.store, &wanted, before, limit + 1).await?;
        let next = check::next(&mut rows, limit, |row| row.seq.to_string());
        let total = dead_letters::count_some(&self.store, &wanted).await?;
        Ok(DeadLetterPage {
            dead_letters: rows,
            total: total.min(COUNTED),
            total_is_more: total > COUNTED,
            next,
        })
    }

    /// Shows one dead letter, without any value of its event.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn dead_letter(&self, id: &str) -> DeskResult<DeadLetterDetail> {
        let (row, original) = self.kept(&check::uuid("id", id)?).await?;
        self.detail(row, original, false).await
    }

    /// Shows one dead letter with its original, and writes down who has seen it.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn dead_letter_with_payload(
        &self,
        id: &str,
        by: &By,
    ) -> DeskResult<DeadLetterDetail> {
        let (row, original) = self.kept(&check::uuid("id", id)?).await?;
        self.note("dead_letter.read", &row.id, by).await?;
        self.detail(row, original, true).await
    }

    async fn detail(
        &self,
        row: DeadLetter,
        original: OriginalRow,
        with_payload: bool,
    ) -> DeskResult<DeadLetterDetail> {
        let mut runs = self.runs(&row).await?;
        runs.retain(|run| row.handler.as_ref().is_none_or(|name| *name == run.handler));
        let note = original.delivery.as_deref();
        Ok(DeadLetterDetail {
            runs,
            delivery: note.map(|note| show_delivery(note, with_payload)),
            payload: with_payload.then(|| show_payload(original)),
            dead_letter: row,
        })
    }

    /// Finds one dead letter and its bytes.
    pub(super) async fn kept(&self, id: &str) -> DeskResult<(DeadLetter, OriginalRow)> {
        let missing = || DeskError::NotFound("dead letter");
        let row = dead_letters::by_id(&self.store, id).await?;
        let original = dead_letters::original(&self.store, id).await?;
        Ok((row.ok_or_else(missing)?, original.ok_or_else(missing)?))
    }

    /// Takes a choice of dead letters that are to be changed; one that is named must be there, and
    /// open.
    pub(super) async fn meant(&self, select: &DeadLetterFilter, all: bool) -> DeskResult<Wanted> {
        let wanted = check::wanted_open(select, all)?;
        if let [only] = wanted.ids.as_slice() {
            let found = dead_letters::by_id(&self.store, only).await?;
            let found = found.ok_or(DeskError::NotFound("dead letter"))?;
            if found.status != "open" {
                return Err(decided());
            }
        }
        Ok(wanted)
    }

    /// Groups dead letters by the reason of their failure, largest first, at most 1,000 groups.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn groups(&self, filter: &DeadLetterFilter) -> DeskResult<Vec<Group>> {
        let wanted = check::wanted(filter)?;
        Ok(dead_letters::groups(&self.store, &wanted, MAX_GROUPS).await?)
    }

    /// Gives up dead letters; the note is the reason in `by`.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when there are more than were expected.
    pub async fn discard(&self, ask: &Discard, by: &By) -> DeskResult<Discarded> {
        let wanted = self.meant(&ask.select, false).await?;
        let author = check::author(by)?;
        let expected = check::expected(ask.expected)?;
        let now = self.store.now();
        let mut tx = self.store.begin().await?;
        let count =
            dead_letters::discard(&mut tx, &wanted, author.actor, author.reason, now).await?;
        if expected.is_some_and(|expected| count > expected) {
            return Err(more_than_expected());
        }
        if count > 0 {
            let detail = json!({ "select": ask.select, "count": count }).to_string();
            let target = match ask.select.ids.as_slice() {
                [only] => only.as_str(),
                _ => "selection",
            };
            audit::insert(&mut tx, "dead_letter.discard", target, author, &detail, now).await?;
        }
        tx.commit().await?;
        Ok(Discarded { count })
    }
}

pub(super) fn decided() -> DeskError {
    DeskError::Conflict {
        code: "decided",
        what: "it was decided already, or a redrive has it in hand",
    }
}

pub(super) fn more_than_expected() -> DeskError {
    DeskError::Conflict {
        code: "more_than_expected",
        what: "there are more now than were expected; look again",
    }
}

/// Shows what came beside the bytes; what attributes say is the publisher's, and may be private.
fn show_delivery(note: &str, with_payload: bool) -> Value {
    let note = DeliveryNote::parse(note);
    let attributes: serde_json::Map<String, Value> = note
        .attributes
        .iter()
        .map(|(name, value)| {
            let value = with_payload.then(|| value.clone());
            (name.clone(), Value::from(value))
        })
        .collect();
    json!({
        "message_id": note.message_id,
        "publish_time": note.publish_time.map(At),
        "attempt": note.attempt,
        "ordering_key": note.ordering_key.filter(|_| with_payload),
        "subscription": note.subscription,
        "attributes": attributes,
    })
}

fn show_payload(row: OriginalRow) -> Payload {
    let original = row.original.map(String::from_utf8);
    let (text, base64) = match original {
        None => (Some(row.payload), None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(error)) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    Payload { text, base64 }
}
