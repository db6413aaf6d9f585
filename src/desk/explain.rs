//! What happened to an event: the tree of what came in, what was done, and what went out.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use super::check;
use super::{
    By, DeadLetter, Desk, DeskError, DeskResult, Emission, EventStory, Explanation, Failure, Kept,
    Repeat, Run,
};
use crate::event::TraceContext;
use crate::store::crashes::WORKER_CRASHED;
use crate::store::explain::{self, EmittedRow, FailureRow, KeptRow, RepeatRow, RunRow};
use crate::store::{At, Micros, dead_letters};

/// Most events of one answer.
const MOST: usize = 100;

impl Desk {
    /// Tells what happened to an id of any kind: of an event (also Hasura's), a Pub/Sub message, a
    /// dead letter, a correlation, a trace (also as `traceparent`). No value of an event is told.
    ///
    /// # Errors
    /// [`DeskError`]; `NotFound` when nothing is known under it.
    pub async fn explain(&self, id: &str) -> DeskResult<Explanation> {
        self.told(id, false).await
    }

    /// As [`Desk::explain`], with the ordering keys of what was emitted, which handlers make of
    /// rows; writes down who has seen them.
    ///
    /// # Errors
    /// [`DeskError`]; `NotFound` when nothing is known under it.
    pub async fn explain_with_keys(&self, id: &str, by: &By) -> DeskResult<Explanation> {
        let told = self.told(id, true).await?;
        self.note("event.read", &told.id, by).await?;
        Ok(told)
    }

    async fn told(&self, id: &str, with_keys: bool) -> DeskResult<Explanation> {
        let asked = check::text_of("id", id.trim())?;
        let trace = TraceContext::parse(asked).map(|trace| trace.trace_id());
        let id = trace.as_deref().unwrap_or(asked);
        let found = explain::events_of(&self.store, id).await?;
        let kinds: BTreeSet<&'static str> = found.iter().map(|(kind, _)| word(kind)).collect();
        // Causes come first, so that what followed from them is told there; then the event that was
        // asked for, then those that only belong to the same story.
        let rank = |(kind, event_id): &(String, String)| match kind.as_str() {
            "emitted" => 0,
            _ if event_id == id => 1,
            _ => 2,
        };
        let mut ids: Vec<&(String, String)> = found.iter().collect();
        ids.sort_by_key(|pair| rank(pair));
        let mut seen = BTreeSet::new();
        let mut events: Vec<EventStory> = Vec::new();
        for (_, event_id) in ids {
            if !seen.contains(event_id) && seen.len() < MOST {
                events.push(self.story(event_id, with_keys, &mut seen).await?);
            }
        }
        // What followed from another event of this answer is told there.
        let told: BTreeSet<String> = events.iter().flat_map(followers).collect();
        events.retain(|story| !told.contains(&story.event_id));
        if events.is_empty() {
            return Err(DeskError::NotFound("event, message, correlation or trace"));
        }
        Ok(Explanation {
            id: asked.to_owned(),
            found_as: kinds.into_iter().collect(),
            events,
        })
    }

    /// Returns what handlers did for the event of a dead letter.
    pub(super) async fn runs(&self, letter: &DeadLetter) -> DeskResult<Vec<Run>> {
        let failures = explain::failures(&self.store, &letter.event_id).await?;
        let rows = explain::runs(&self.store, &letter.event_id).await?;
        let letters = std::slice::from_ref(letter);
        let run = |row| run(row, &failures, letters);
        Ok(rows.into_iter().map(run).collect())
    }

    fn story<'a>(
        &'a self,
        event_id: &'a str,
        with_keys: bool,
        seen: &'a mut BTreeSet<String>,
    ) -> Pin<Box<dyn Future<Output = DeskResult<EventStory>> + Send + 'a>> {
        Box::pin(async move {
            seen.insert(event_id.to_owned());
            let store = &self.store;
            let runs = explain::runs(store, event_id).await?;
            let failures = explain::failures(store, event_id).await?;
            let repeats = explain::repeats(store, event_id).await?;
            let kept = explain::kept(store, event_id).await?;
            let given_up = dead_letters::of_event(store, event_id).await?;
            let now = store.now();
            let first = runs.first();
            let given = given_up.first();
            let event_type = first
                .map(|run| run.event_type.clone())
                .or_else(|| kept.as_ref().map(|row| row.event_type.clone()))
                .or_else(|| given.map(|row| row.event_type.clone()));
            let mut remarks = remarks(&runs, &given_up, &repeats, kept.as_ref(), now);
            remarks.extend(
                given_up
                    .iter()
                    .filter(|row| row.status == "open")
                    .map(|row| {
                        let who = row.handler.as_deref().unwrap_or("the event");
                        format!(
                            "{who} failed for good ({}); dead letter {} is open",
                            row.error_code, row.id
                        )
                    }),
            );
            let mut story = EventStory {
                event_id: event_id.to_owned(),
                event_type: event_type.unwrap_or_default(),
                hasura_id: runs.iter().find_map(|run| run.hasura_id.clone()),
                correlation_id: runs
                    .iter()
                    .find_map(|run| run.correlation_id.clone())
                    .or_else(|| given.and_then(|row| row.correlation_id.clone())),
                trace_id: runs
                    .iter()
                    .find_map(|run| run.trace_id.clone())
                    .or_else(|| given.and_then(|row| row.trace_id.clone())),
                kept: kept.map(Kept::from),
                runs: (runs.into_iter())
                    .map(|row| run(row, &failures, &given_up))
                    .collect(),
                repeats: repeats.into_iter().map(Repeat::from).collect(),
                emitted: Vec::new(),
                dead_letters: given_up,
                remarks,
            };
            for row in explain::emitted(store, event_id).await? {
                let mut emission = Emission::from(row);
                emission.ordering_key = emission.ordering_key.filter(|_| with_keys);
                let id = emission.event_id.clone();
                if emission.state == "waiting" {
                    story
                        .remarks
                        .push(format!("{} waits in the outbox", emission.event_type));
                }
                let goes_on = !seen.contains(&id) && seen.len() < MOST;
                if goes_on && !explain::runs(store, &id).await?.is_empty() {
                    let then = self.story(&id, with_keys, seen).await?;
                    emission.then = Some(Box::new(then));
                }
                story.emitted.push(emission);
            }
            Ok(story)
        })
    }
}

fn followers(story: &EventStory) -> Vec<String> {
    let mut ids = Vec::new();
    for next in story.emitted.iter().filter_map(|it| it.then.as_deref()) {
        ids.push(next.event_id.clone());
        ids.extend(followers(next));
    }
    ids
}

fn word(kind: &str) -> &'static str {
    match kind {
        "message" => "message",
        "correlation" => "correlation",
        "trace" => "trace",
        "emitted" => "emitted",
        "dead_letter" => "dead_letter",
        _ => "event",
    }
}

/// Says in words what the tables only show to those who know them.
fn remarks(
    runs: &[RunRow],
    letters: &[DeadLetter],
    repeats: &[RepeatRow],
    kept: Option<&KeptRow>,
    now: Micros,
) -> Vec<String> {
    let mut remarks = Vec::new();
    for run in runs {
        let who = &run.handler;
        match (run.state, run.reason.as_deref()) {
            (0, _) if is_given_up(run, letters) => {}
            (0, _) => remarks.push(format!(
                "{who} gave it back after try {}; it runs when it is delivered or due again",
                run.attempt
            )),
            (1, _) if run.lease_until < now => remarks.push(format!(
                "{who} was begun by {} and never ended; whoever gets the event next takes it over",
                run.instance
            )),
            (1, _) => remarks.push(format!("{who} is running at {}", run.instance)),
            (2, Some(why)) => remarks.push(format!("{who} skipped it: {why}")),
            _ => {}
        }
    }
    let dropped = deliveries(repeats);
    if dropped > 0 {
        let times = if dropped == 1 { "time" } else { "times" };
        remarks.push(format!(
            "it came again {dropped} {times} and was not run again, because it had ended"
        ));
    }
    let Some(kept) = kept else { return remarks };
    if kept.status == "unrouted" {
        remarks.push("no handler takes this event type".to_owned());
    } else if kept.last_error_code.as_deref() == Some(WORKER_CRASHED) && !kept.processed {
        // Such tries are counted before they begin.
        remarks.push(format!(
            "it may have ended the process ({} tries counted): it runs now, or again after {}",
            kept.attempts,
            At(kept.next_attempt_at)
        ));
    } else if !kept.processed && kept.next_attempt_at > now {
        remarks.push(format!(
            "it failed {} times and waits until {}",
            kept.attempts,
            At(kept.next_attempt_at)
        ));
    } else if !kept.processed {
        remarks.push("it waits in the events table".to_owned());
    }
    remarks
}

/// Counts how often an event came again in vain: each delivery is noted once for every handler.
fn deliveries(repeats: &[RepeatRow]) -> usize {
    let mut noted: BTreeMap<Option<&str>, BTreeMap<&str, usize>> = BTreeMap::new();
    for row in repeats.iter().filter(|row| !row.ran_again) {
        let handlers = noted.entry(row.message_id.as_deref()).or_default();
        *handlers.entry(row.handler.as_str()).or_default() += 1;
    }
    let most = |handlers: &BTreeMap<&str, usize>| handlers.values().copied().max();
    noted.values().filter_map(most).sum()
}

/// Tells whether the worker has given the event up after this run was given back to it.
fn is_given_up(run: &RunRow, letters: &[DeadLetter]) -> bool {
    run.state == 0
        && letters.iter().any(|letter| {
            let handler = letter.handler.as_ref();
            letter.generation == run.generation && handler.is_none_or(|name| *name == run.handler)
        })
}

fn run(row: RunRow, failures: &[FailureRow], letters: &[DeadLetter]) -> Run {
    let mine = failures
        .iter()
        .filter(|it| it.handler == row.handler && it.generation == row.generation);
    let duration = row.ended_at.map(|at| at.saturating_sub(row.started_at));
    let state = match row.state {
        _ if is_given_up(&row, letters) => "given_up",
        0 => "given_back",
        1 => "running",
        2 => "ended",
        _ => "dead_lettered",
    };
    Run {
        state: state.to_owned(),
        failures: mine
            .map(|it| Failure {
                attempt: it.attempt,
                error_class: it.error_class.clone(),
                error_code: it.error_code.clone(),
                error_message: it.error_message.clone(),
                at: At(it.failed_at),
            })
            .collect(),
        handler: row.handler,
        generation: row.generation,
        outcome: row.outcome,
        reason: row.reason,
        attempt: row.attempt,
        created_at: At(row.created_at),
        started_at: At(row.started_at),
        ended_at: row.ended_at.map(At),
        duration_ms: duration
            .and_then(|micros| u32::try_from(micros).ok())
            .map(|micros| f64::from(micros) / 1000.0),
        instance: row.instance,
        message_id: row.message_id,
        hasura_retry: row.hasura_retry,
    }
}

impl From<RepeatRow> for Repeat {
    fn from(row: RepeatRow) -> Self {
        Self {
            handler: row.handler,
            kind: row.kind,
            message_id: row.message_id,
            ran_again: row.ran_again,
            at: At(row.came_at),
        }
    }
}

impl From<KeptRow> for Kept {
    fn from(row: KeptRow) -> Self {
        let waits = !row.processed && row.next_attempt_at > 0;
        Self {
            id: row.id,
            status: row.status,
            aggregate_id: row.aggregate_id,
            attempts: row.attempts,
            next_attempt_at: waits.then_some(At(row.next_attempt_at)),
            last_error_code: row.last_error_code,
            created_at: At(row.created),
            processed_at: row.processed_at.map(At),
        }
    }
}

impl From<EmittedRow> for Emission {
    fn from(row: EmittedRow) -> Self {
        Self {
            event_id: row.message_id,
            event_type: row.event_type,
            handler: row.handler,
            topic: row.topic,
            ordering_key: row.ordering_key,
            state: match row.state {
                0 => "waiting",
                1 => "published",
                _ => "parked",
            }
            .to_owned(),
            attempts: row.attempts,
            last_error_code: row.last_error_code,
            created_at: At(row.created_at),
            published_at: row.published_at.map(At),
            broker_message_id: row.broker_message_id,
            then: None,
        }
    }
}
