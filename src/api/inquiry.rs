//! `GET /status`, `GET /explain/{id}`, `GET /audit`: how it goes, what happened, who did it.

use http::StatusCode;

use super::request::{Answer, Id, Look, Search};

/// `GET /status`
pub(super) async fn status(Look { caller, desk }: Look) -> Answer {
    caller.answer(StatusCode::OK, desk.status().await)
}

/// `GET /explain/{id}`
pub(super) async fn explain(Look { caller, desk }: Look, Id(id): Id) -> Answer {
    caller.answer(StatusCode::OK, desk.explain(&id).await)
}

/// `GET /audit`
pub(super) async fn audit(search: Search) -> Answer {
    let (caller, desk, page) = search.page()?;
    caller.answer(StatusCode::OK, desk.audit(&page).await)
}
