//! Redrives and replays: previewed, begun, watched, stopped.

use serde_json::{Value, json};
use uuid::Uuid;

use super::check;
use super::dead_letters::more_than_expected;
use super::{
    By, Desk, DeskError, DeskResult, Page, Redrive, RedriveDetail, RedriveItem, RedrivePage,
    RedrivePreview, ReplayPreview, ReplayedHandler, RunMode, Share, SideEffects, StartRedrive,
    StartReplay,
};
use crate::event::derived_id;
use crate::pipeline::HandlerInfo;
use crate::store::dead_letters::{self, Wanted};
use crate::store::redrives::{self, Begun, Item, NewRedrive, RedriveRow, Refusal, What};
use crate::store::{At, audit};

/// Most events of one redrive or replay.
const MOST: i64 = 1_000_000;
/// How many a preview shows.
const SAMPLE: i64 = 10;
/// How many problems a redrive shows.
const PROBLEMS: i64 = 100;

impl Desk {
    /// Tells what a redrive would do.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn preview_redrive(&self, ask: &StartRedrive) -> DeskResult<RedrivePreview> {
        let id = self.id_of(ask.request_id.as_ref())?;
        let wanted = self.redriven(ask, &id).await?;
        let pace = check::pace(ask.per_second)?;
        let summary = dead_letters::summary(&self.store, &wanted).await?;
        let sample = dead_letters::first(&self.store, &wanted, SAMPLE).await?;
        Ok(RedrivePreview {
            count: summary.count,
            done_since: match ask.mode {
                RunMode::IfNotDone => summary.done_since,
                RunMode::Force => 0,
            },
            handlers: shares(summary.handlers),
            event_types: shares(summary.event_types),
            first_at: summary.first,
            last_at: summary.last,
            seconds: seconds(summary.count, pace),
            sample,
        })
    }

    /// Begins a redrive; an instance of the service runs it.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when there are more dead letters than were expected.
    pub async fn redrive(&self, ask: &StartRedrive, by: &By) -> DeskResult<Redrive> {
        let id = self.id_of(ask.request_id.as_ref())?;
        let wanted = self.redriven(ask, &id).await?;
        let new = NewRedrive {
            id,
            query: json!({ "select": ask.select, "all": ask.all }).to_string(),
            mode: ask.mode.as_str(),
            per_second: check::pace(ask.per_second)?,
            by: check::author(by)?,
            what: What::DeadLetters(&wanted),
            most: MOST,
            expected: check::expected(ask.expected)?,
        };
        self.begin(&new).await
    }

    /// Returns which dead letters a request means.
    async fn redriven(&self, ask: &StartRedrive, id: &str) -> DeskResult<Wanted> {
        match self.meant(&ask.select, ask.all).await {
            // Sent again: what it began may have decided it meanwhile.
            Err(DeskError::Conflict { .. })
                if redrives::by_id(&self.store, id).await?.is_some() =>
            {
                check::wanted_open(&ask.select, ask.all)
            }
            meant => meant,
        }
    }

    /// Tells what a replay would do: the dry run.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn preview_replay(&self, ask: &StartReplay) -> DeskResult<ReplayPreview> {
        let wanted = check::wanted_events(&ask.select, self.store.is_postgres())?;
        self.check_handler(ask.handler.as_ref())?;
        let pace = check::pace(ask.per_second)?;
        let summary = redrives::events_summary(&self.store, &wanted).await?;
        let sample = redrives::first_events(&self.store, &wanted, SAMPLE).await?;
        let handlers = self.replayed_handlers(ask, &summary.event_types);
        Ok(ReplayPreview {
            count: summary.count,
            event_types: shares(summary.event_types),
            handlers,
            first_at: summary.first,
            last_at: summary.last,
            seconds: seconds(summary.count, pace),
            sample,
        })
    }

    /// Begins a replay; an instance of the service runs it.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when there are more events than were expected.
    pub async fn replay(&self, ask: &StartReplay, by: &By) -> DeskResult<Redrive> {
        let wanted = check::wanted_events(&ask.select, self.store.is_postgres())?;
        self.check_handler(ask.handler.as_ref())?;
        let query = json!({
            "select": ask.select,
            "handler": ask.handler,
            "side_effects": ask.side_effects,
        });
        let new = NewRedrive {
            id: self.id_of(ask.request_id.as_ref())?,
            query: query.to_string(),
            mode: RunMode::Force.as_str(),
            per_second: check::pace(ask.per_second)?,
            by: check::author(by)?,
            what: What::Events(&wanted, ask.handler.as_deref()),
            most: MOST,
            expected: check::expected(ask.expected)?,
        };
        self.begin(&new).await
    }

    async fn begin(&self, new: &NewRedrive<'_>) -> DeskResult<Redrive> {
        match redrives::begin(&self.store, new).await? {
            Begun::New(row) | Begun::Before(row) => Ok(self.shown(row)),
            Begun::Refused(Refusal::MoreThanExpected) => Err(more_than_expected()),
            Begun::Refused(Refusal::TooMany) => Err(DeskError::Conflict {
                code: "too_many",
                what: "there are more than a million; narrow the selection",
            }),
            Begun::Refused(Refusal::OtherRequest) => Err(DeskError::Conflict {
                code: "request_id_reused",
                what: "this request_id was used for something else",
            }),
        }
    }

    /// Lists redrives and replays, newest first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn redrives(&self, page: &Page) -> DeskResult<RedrivePage> {
        let (limit, before) = (check::limit(page)?, check::time_cursor(page)?);
        let mut rows = redrives::page(&self.store, before, limit + 1).await?;
        let cursor = |row: &RedriveRow| format!("{}.{}", row.created_at, row.id);
        let next = check::next(&mut rows, limit, cursor);
        let redrives = rows.into_iter().map(|row| self.shown(row)).collect();
        Ok(RedrivePage { redrives, next })
    }

    /// Shows one redrive or replay.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn redrive_detail(&self, id: &str) -> DeskResult<RedriveDetail> {
        let row = self.known_redrive(id).await?;
        let problems = redrives::problems(&self.store, &row.id, PROBLEMS).await?;
        Ok(RedriveDetail {
            redrive: self.shown(row),
            problems: problems.into_iter().map(RedriveItem::from).collect(),
        })
    }

    /// Stops a redrive or replay; what is in hand at the moment is finished.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when it is over.
    pub async fn abort(&self, id: &str, by: &By) -> DeskResult<Redrive> {
        let row = self.known_redrive(id).await?;
        let author = check::author(by)?;
        let now = self.store.now();
        let mut tx = self.store.begin().await?;
        if !redrives::abort(&mut tx, &row.id, now).await? {
            return Err(DeskError::Conflict {
                code: "over",
                what: "it is over already",
            });
        }
        let action = match row.kind.as_str() {
            redrives::REPLAY => "replay.abort",
            _ => "redrive.abort",
        };
        audit::insert(&mut tx, action, &row.id, author, "{}", now).await?;
        tx.commit().await?;
        Ok(self.shown(self.known_redrive(id).await?))
    }

    async fn known_redrive(&self, id: &str) -> DeskResult<RedriveRow> {
        let id = check::uuid("id", id)?;
        let row = redrives::by_id(&self.store, &id).await?;
        row.ok_or(DeskError::NotFound("redrive"))
    }

    /// Returns the id of the work a request begins.
    fn id_of(&self, request_id: Option<&String>) -> DeskResult<String> {
        let id = match request_id {
            Some(name) => derived_id(&["redrive", check::text_of("request_id", name)?]),
            None => Uuid::new_v4(),
        };
        Ok(id.to_string())
    }

    fn check_handler(&self, name: Option<&String>) -> DeskResult<()> {
        let Some(name) = name else { return Ok(()) };
        check::text_of("handler", name)?;
        let known = self.handlers.iter().any(|it| it.handler == name.as_str());
        if known || self.handlers.is_empty() {
            return Ok(());
        }
        Err(DeskError::invalid(
            "handler",
            "is not the name of a handler",
        ))
    }

    fn replayed_handlers(
        &self,
        ask: &StartReplay,
        event_types: &[(String, i64)],
    ) -> Vec<ReplayedHandler> {
        let wanted = |name: &str| ask.handler.as_deref().is_none_or(|only| only == name);
        let count = |types: &[&str]| {
            let mine = event_types
                .iter()
                .filter(|(name, _)| types.contains(&name.as_str()));
            mine.map(|(_, count)| count).sum()
        };
        let shown = self
            .handlers
            .iter()
            .filter(|it| wanted(it.handler))
            .map(|it| ReplayedHandler {
                handler: it.handler.to_owned(),
                replay: replay_word(it, ask.side_effects).to_owned(),
                count: count(&it.event_types),
            });
        shown.filter(|it| it.count > 0).collect()
    }

    pub(super) fn shown(&self, row: RedriveRow) -> Redrive {
        let query: Value = serde_json::from_str(&row.query).unwrap_or_default();
        let text = |name: &str| query.get(name).and_then(Value::as_str).map(str::to_owned);
        Redrive {
            handler: text("handler"),
            side_effects: match text("side_effects").as_deref() {
                Some("run") => SideEffects::Run,
                _ => SideEffects::AsDeclared,
            },
            mode: match row.mode.as_str() {
                "force" => RunMode::Force,
                _ => RunMode::IfNotDone,
            },
            query,
            id: row.id,
            kind: row.kind,
            per_second: row.per_second,
            total: row.total,
            done: row.done,
            failed: row.failed,
            skipped: row.skipped,
            in_hand: row.lease_until > self.store.now(),
            state: row.state,
            actor: row.actor,
            reason: row.reason,
            created_at: At(row.created_at),
            updated_at: At(row.updated_at),
        }
    }
}

impl RunMode {
    /// Returns the word used in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotDone => "if_not_done",
            Self::Force => "force",
        }
    }
}

impl From<Item> for RedriveItem {
    fn from(item: Item) -> Self {
        Self {
            id: item.item_id,
            outcome: item.outcome.unwrap_or_else(|| "running".to_owned()),
            reason: item.reason.filter(|reason| !reason.is_empty()),
            generation: item.generation,
            at: At(item.at),
        }
    }
}

fn shares(counts: Vec<(String, i64)>) -> Vec<Share> {
    let share = |(name, count)| Share { name, count };
    counts.into_iter().map(share).collect()
}

fn seconds(count: i64, per_second: i32) -> f64 {
    i32::try_from(count).map_or(f64::MAX, f64::from) / f64::from(per_second.max(1))
}

/// Tells what a handler does in a replay.
fn replay_word(handler: &HandlerInfo, side_effects: SideEffects) -> &'static str {
    match side_effects {
        SideEffects::Run => "run",
        SideEffects::AsDeclared => handler.replay,
    }
}
