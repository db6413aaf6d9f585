//! `GET /status`, `GET /explain/{id}`, `GET /audit`: how it goes, what happened, who did it.

use super::request::{Answer, Id, Look, Search, Show};

/// `GET /status`
pub(super) async fn status(Look { caller, desk }: Look) -> Answer {
    caller.answer(&desk, desk.status()).await
}

/// `GET /explain/{id}`; with `?payload=true` also ordering keys, which is audited.
pub(super) async fn explain(search: Search, Id(id): Id) -> Answer {
    let (caller, desk, Show { payload }) = search.rest()?;
    let by = caller.looks_at(payload)?;
    let answer = async {
        match by {
            Some(by) => desk.explain_with_keys(&id, &by).await,
            None => desk.explain(&id).await,
        }
    };
    caller.answer(&desk, answer).await
}

/// `GET /audit`
pub(super) async fn audit(search: Search) -> Answer {
    let (caller, desk, page) = search.page()?;
    caller.answer(&desk, desk.audit(&page)).await
}
