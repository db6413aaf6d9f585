//! Takes requests apart and refuses what makes no sense, before the database sees it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{By, DeadLetterFilter, DeskError, DeskResult, EventFilter, Page};
use crate::store::Micros;
use crate::store::audit::Author;
use crate::store::dead_letters::Wanted;
use crate::store::redrives::WantedEvents;

/// Longest accepted list of ids.
const MAX_IDS: usize = 1_000;
/// Longest accepted text in a filter.
const MAX_TEXT: usize = 512;
/// Longest accepted reason, in characters.
pub const MAX_REASON: usize = 1_000;
/// The year 1: nobody's events are older, and not every database knows what was before.
const FIRST_TIME: Micros = -62_135_596_800_000_000;
/// Longest page.
const MAX_LIMIT: i64 = 1_000;
const USUAL_LIMIT: i64 = 50;
const MAX_PACE: i64 = 10_000;
const USUAL_PACE: i32 = 20;

/// Takes the size of a page.
pub(super) fn limit(page: &Page) -> DeskResult<i64> {
    match page.limit {
        None => Ok(USUAL_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(_) => Err(DeskError::invalid("limit", "must be 1 to 1000")),
    }
}

/// Cuts off the row too many that tells whether a list goes on, and returns the cursor from where.
pub(super) fn next<T>(
    rows: &mut Vec<T>,
    limit: i64,
    cursor: impl Fn(&T) -> String,
) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if rows.len() <= limit {
        return None;
    }
    rows.truncate(limit);
    rows.last().map(cursor)
}

/// Takes a cursor that is one number.
pub(super) fn cursor(page: &Page) -> DeskResult<Option<i64>> {
    let parse = |text: &String| text.parse().ok().filter(|seq: &i64| *seq > 0);
    match &page.cursor {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(bad_cursor),
    }
}

/// Takes a cursor made of a time and an id.
pub(super) fn time_cursor(page: &Page) -> DeskResult<Option<(Micros, &str)>> {
    let Some(text) = &page.cursor else {
        return Ok(None);
    };
    let (at, id) = text.split_once('.').ok_or_else(bad_cursor)?;
    let at = at.parse().map_err(|_| bad_cursor())?;
    text_of("cursor", id)?;
    Ok(Some((at, id)))
}

fn bad_cursor() -> DeskError {
    DeskError::invalid("cursor", "is not one that a page before ended with")
}

/// Takes a pace.
pub(super) fn pace(per_second: Option<i64>) -> DeskResult<i32> {
    match per_second {
        None => Ok(USUAL_PACE),
        Some(pace) if (1..=MAX_PACE).contains(&pace) => Ok(i32::try_from(pace).unwrap_or(i32::MAX)),
        Some(_) => Err(DeskError::invalid("per_second", "must be 1 to 10000")),
    }
}

/// Takes what was expected.
pub(super) fn expected(expected: Option<i64>) -> DeskResult<Option<i64>> {
    match expected {
        Some(count) if count < 0 => Err(DeskError::invalid("expected", "must not be negative")),
        other => Ok(other),
    }
}

/// Takes the author of a change.
pub(super) fn author(by: &By) -> DeskResult<Author<'_>> {
    if by.actor.trim().is_empty() {
        return Err(DeskError::invalid("actor", "must say who asks"));
    }
    text_of("actor", &by.actor)?;
    if by.reason.trim().is_empty() {
        return Err(DeskError::invalid("reason", "must say why"));
    }
    if by.reason.chars().count() > MAX_REASON || by.reason.contains('\0') {
        let what = "must be text of at most 1000 characters";
        return Err(DeskError::invalid("reason", what));
    }
    Ok(Author {
        actor: &by.actor,
        reason: &by.reason,
    })
}

/// Takes a text that is compared with a column.
pub(super) fn text_of<'a>(field: &'static str, text: &'a str) -> DeskResult<&'a str> {
    if text.is_empty() || text.len() > MAX_TEXT || text.contains('\0') {
        return Err(DeskError::invalid(field, "must be text of 1 to 512 bytes"));
    }
    Ok(text)
}

fn optional(field: &'static str, text: Option<&String>) -> DeskResult<Option<String>> {
    text.map(|text| text_of(field, text).map(str::to_owned))
        .transpose()
}

/// Takes an id of ours.
pub(super) fn uuid(field: &'static str, text: &str) -> DeskResult<String> {
    let wrong = |_| DeskError::invalid(field, "must be a UUID");
    Uuid::parse_str(text)
        .map(|id| id.to_string())
        .map_err(wrong)
}

/// Takes a time.
pub(super) fn time(field: &'static str, text: Option<&String>) -> DeskResult<Option<Micros>> {
    let Some(text) = text else { return Ok(None) };
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| DeskError::invalid(field, "must be a time such as 2026-01-31T12:00:00Z"))?;
    let micros = Micros::try_from(time.unix_timestamp_nanos() / 1000).ok();
    Ok(micros.map(|micros| micros.max(FIRST_TIME)))
}

fn word(
    field: &'static str,
    text: Option<&String>,
    known: &[&str],
    what: &'static str,
) -> DeskResult<Option<String>> {
    match text {
        Some(text) if !known.contains(&text.as_str()) => Err(DeskError::invalid(field, what)),
        other => Ok(other.cloned()),
    }
}

/// Takes a choice of dead letters.
pub(super) fn wanted(filter: &DeadLetterFilter) -> DeskResult<Wanted> {
    if filter.ids.len() > MAX_IDS {
        return Err(DeskError::invalid("ids", "must be at most 1000"));
    }
    let ids: DeskResult<Vec<String>> = filter.ids.iter().map(|id| uuid("ids", id)).collect();
    let status = word(
        "status",
        filter.status.as_ref(),
        &["open", "redriven", "discarded", "all"],
        "must be open, redriven, discarded or all",
    )?;
    Ok(Wanted {
        ids: ids?,
        fingerprint: optional("fingerprint", filter.fingerprint.as_ref())?,
        event_type: optional("event_type", filter.event_type.as_ref())?,
        handler: optional("handler", filter.handler.as_ref())?,
        source: word(
            "source",
            filter.source.as_ref(),
            &["push", "events", "subscription", "outbox"],
            "must be push, events, subscription or outbox",
        )?,
        error_class: word(
            "error_class",
            filter.error_class.as_ref(),
            &["transient", "permanent"],
            "must be transient or permanent",
        )?,
        error_code: optional("error_code", filter.error_code.as_ref())?,
        event_id: optional("event_id", filter.event_id.as_ref())?,
        correlation_id: optional("correlation_id", filter.correlation_id.as_ref())?,
        status: match status.as_deref() {
            None => Some("open".to_owned()),
            Some("all") => None,
            Some(_) => status,
        },
        since: time("since", filter.since.as_ref())?,
        until: time("until", filter.until.as_ref())?,
    })
}

/// Takes a choice of dead letters that are to be changed: open ones, and not all by oversight.
pub(super) fn wanted_open(filter: &DeadLetterFilter, all: bool) -> DeskResult<Wanted> {
    let wanted = wanted(filter)?;
    if wanted.status.as_deref() != Some("open") {
        return Err(DeskError::invalid(
            "status",
            "must be open: others were decided on",
        ));
    }
    let nothing_given = *filter
        == DeadLetterFilter {
            status: filter.status.clone(),
            ..DeadLetterFilter::default()
        };
    if nothing_given && !all {
        return Err(DeskError::invalid(
            "select",
            "needs a condition; `all` takes every open dead letter",
        ));
    }
    Ok(wanted)
}

/// Takes a choice of processed events.
pub(super) fn wanted_events(filter: &EventFilter, uuids: bool) -> DeskResult<WantedEvents> {
    if *filter == EventFilter::default() {
        return Err(DeskError::invalid("select", "needs a condition"));
    }
    if filter.ids.len() > MAX_IDS {
        return Err(DeskError::invalid("ids", "must be at most 1000"));
    }
    for id in &filter.ids {
        text_of("ids", id)?;
    }
    let aggregate_id = match &filter.aggregate_id {
        Some(id) if uuids => Some(uuid("aggregate_id", id)?),
        other => optional("aggregate_id", other.as_ref())?,
    };
    Ok(WantedEvents {
        ids: filter.ids.clone(),
        event_type: optional("event_type", filter.event_type.as_ref())?,
        aggregate_id,
        since: time("since", filter.since.as_ref())?,
        until: time("until", filter.until.as_ref())?,
    })
}
