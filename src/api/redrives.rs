//! `/redrives`, `/replay` and `/erasures`: long work on many events.

use http::StatusCode;

use super::request::{Answer, Change, Id, Look, Plan, Search};
use crate::desk::{Erase, Length, StartReplay};

/// `GET /redrives`
pub(super) async fn list(search: Search) -> Answer {
    let (caller, desk, page) = search.page()?;
    caller.answer(&desk, desk.redrives(&page)).await
}

/// `GET /redrives/{id}`
pub(super) async fn show(Look { caller, desk }: Look, Id(id): Id) -> Answer {
    caller.answer(&desk, desk.redrive_detail(&id)).await
}

/// `POST /redrives/{id}/abort`
pub(super) async fn abort(Id(id): Id, mut change: Change) -> Answer {
    let by = change.by()?;
    let (caller, desk) = change.end()?;
    caller.answer(&desk, desk.abort(&id, &by)).await
}

/// `POST /replay`; with `dry_run` only tells what it would do.
pub(super) async fn replay(plan: Plan) -> Answer {
    let (caller, desk, by, ask) = plan.read::<StartReplay>()?;
    match by {
        None => caller.answer(&desk, desk.preview_replay(&ask)).await,
        Some(by) => caller.begun(&desk, desk.replay(&ask, &by)).await,
    }
}

/// `POST /erasures`; with `dry_run` only counts.
pub(super) async fn erase(mut change: Change) -> Answer {
    let by = change.by()?;
    let (caller, desk, ask) = change.rest::<Erase>()?;
    let erased = desk.erase(&ask, &by);
    caller
        .answer_at(Length::Reading, StatusCode::OK, &desk, erased)
        .await
}
