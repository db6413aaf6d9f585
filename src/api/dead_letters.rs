//! `/dead-letters`: what failed, and what is done about it.

use serde_json::json;

use super::request::{Answer, Change, Id, Plan, Search, Show};
use crate::desk::{DeadLetterFilter, Discard, Edit, StartRedrive};

/// `GET /dead-letters`
pub(super) async fn list(mut search: Search) -> Answer {
    let page = search.query.page()?;
    let (caller, desk, filter) = search.rest()?;
    caller
        .answer(&desk, desk.dead_letters(&filter, &page))
        .await
}

/// `GET /dead-letters/groups`
pub(super) async fn groups(search: Search) -> Answer {
    let (caller, desk, filter) = search.rest()?;
    let groups = async { Ok(json!({"groups": desk.groups(&filter).await?})) };
    caller.answer(&desk, groups).await
}

/// `GET /dead-letters/{id}`; with `?payload=true` also the original, which is audited.
pub(super) async fn show(search: Search, Id(id): Id) -> Answer {
    let (caller, desk, Show { payload }) = search.rest()?;
    let by = caller.looks_at(payload)?;
    let answer = async {
        match by {
            Some(by) => desk.dead_letter_with_payload(&id, &by).await,
            None => desk.dead_letter(&id).await,
        }
    };
    caller.answer(&desk, answer).await
}

/// `POST /dead-letters/redrive`; with `dry_run` only tells what it would do.
pub(super) async fn redrive(plan: Plan) -> Answer {
    let (caller, desk, by, ask) = plan.read::<StartRedrive>()?;
    match by {
        None => caller.answer(&desk, desk.preview_redrive(&ask)).await,
        Some(by) => caller.begun(&desk, desk.redrive(&ask, &by)).await,
    }
}

/// `POST /dead-letters/{id}/redrive`
pub(super) async fn redrive_one(Id(id): Id, mut change: Change) -> Answer {
    let by = change.by()?;
    change.fields.refuse("select")?;
    change.fields.refuse("all")?;
    let (caller, desk, mut ask) = change.rest::<StartRedrive>()?;
    ask.select.ids = vec![id];
    caller.begun(&desk, desk.redrive(&ask, &by)).await
}

/// `POST /dead-letters/discard`
pub(super) async fn discard(mut change: Change) -> Answer {
    let by = change.by()?;
    let (caller, desk, ask) = change.rest::<Discard>()?;
    caller.answer(&desk, desk.discard(&ask, &by)).await
}

/// `POST /dead-letters/{id}/discard`
pub(super) async fn discard_one(Id(id): Id, mut change: Change) -> Answer {
    let by = change.by()?;
    let (caller, desk) = change.end()?;
    let select = DeadLetterFilter {
        ids: vec![id],
        ..DeadLetterFilter::default()
    };
    let ask = Discard {
        select,
        expected: None,
    };
    caller.answer(&desk, desk.discard(&ask, &by)).await
}

/// `POST /dead-letters/{id}/edit`
pub(super) async fn edit(Id(id): Id, mut change: Change) -> Answer {
    let by = change.by()?;
    let (caller, desk, ask) = change.rest::<Edit>()?;
    caller.begun(&desk, desk.edit(&id, &ask, &by)).await
}
