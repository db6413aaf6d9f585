//! How the durable half is doing.

use super::{
    DeadLettersStatus, Desk, DeskResult, EventsStatus, InboxStatus, LaneStatus, OutboxStatus,
    Status,
};
use crate::store::status::{self, LaneRow, Waiting};
use crate::store::{At, Micros, redrives};

/// Most redrives of one answer.
const REDRIVES: i64 = 50;

impl Desk {
    /// Tells how the durable half is doing.
    ///
    /// # Errors
    /// [`DeskError`](super::DeskError).
    pub async fn status(&self) -> DeskResult<Status> {
        let store = &self.store;
        let now = store.now();
        let events = status::events(store).await?;
        let outbox = status::outbox(store).await?;
        let running = status::running(store).await?;
        let open = status::open(store).await?;
        let lanes = status::lanes(store).await?;
        let redrives = redrives::running(store, REDRIVES).await?;
        let sum = |lanes: &[Waiting], part: fn(&Waiting) -> i64| lanes.iter().map(part).sum();
        let oldest = |lanes: &[Waiting]| {
            let oldest = lanes.iter().filter_map(|lane| lane.oldest).min();
            oldest.map(|at| age(now, at))
        };
        Ok(Status {
            now: At(now),
            database: if store.is_postgres() {
                "postgres"
            } else {
                "sqlite"
            },
            events: EventsStatus {
                pending: sum(&events, |lane| lane.waiting),
                due: sum(&events, |lane| lane.due),
                retrying: sum(&events, |lane| lane.retrying),
                oldest_age_seconds: oldest(&events),
            },
            outbox: OutboxStatus {
                waiting: sum(&outbox, |lane| lane.waiting),
                oldest_age_seconds: oldest(&outbox),
                parked: open.parked,
            },
            inbox: InboxStatus {
                running: running.running,
                abandoned: running.abandoned,
                entries: status::remembered(store).await?,
            },
            dead_letters: DeadLettersStatus {
                open: open.open,
                oldest_age_seconds: open.oldest.map(|at| age(now, at)),
            },
            redrives: redrives.into_iter().map(|row| self.shown(row)).collect(),
            lanes: lanes
                .into_iter()
                .filter_map(|lane| {
                    let waiting = if lane.kind == 0 { &events } else { &outbox };
                    let waiting = waiting.iter().find(|it| it.lane == lane.lane);
                    shown(lane, waiting, now)
                })
                .collect(),
        })
    }
}

/// Shows a lane in which something happens.
fn shown(lane: LaneRow, waiting: Option<&Waiting>, now: Micros) -> Option<LaneStatus> {
    let held = lane.lease_until > now;
    let paused = lane.paused_until > now;
    if !held && !paused && waiting.is_none() {
        return None;
    }
    Some(LaneStatus {
        kind: if lane.kind == 0 { "events" } else { "outbox" },
        lane: lane.lane,
        holder: lane.holder.filter(|_| held),
        lease_until: held.then_some(At(lane.lease_until)),
        paused_until: paused.then_some(At(lane.paused_until)),
        failures: lane.failures,
        waiting: waiting.map_or(0, |it| it.waiting),
        oldest_age_seconds: waiting.and_then(|it| it.oldest).map(|at| age(now, at)),
    })
}

fn age(now: Micros, then: Micros) -> f64 {
    let micros = u64::try_from(now.saturating_sub(then)).unwrap_or_default();
    std::time::Duration::from_micros(micros).as_secs_f64()
}
