//! Reads what a caller of the admin API asks for, strictly: token, path, query, JSON body.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::response::Response;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::access::Caller;
use super::error::ApiError;
use super::fields::{Fields, Query};
use super::{ApiState, DeskApi};
use crate::desk::{By, Desk, Page};
use crate::telemetry::RequestId;

/// What a route comes to.
pub(super) type Answer = Result<Response, ApiError>;

/// A request that looks at something and takes no query.
pub(super) struct Look {
    pub(super) caller: Caller,
    pub(super) desk: Desk,
}

/// A request that looks at something, and says in its query at what.
pub(super) struct Search {
    pub(super) query: Query,
    caller: Caller,
    desk: Desk,
}

/// A request that changes something, of somebody who may.
pub(super) struct Change {
    pub(super) fields: Fields,
    pub(super) api: DeskApi,
    caller: Caller,
}

/// A request that changes something, or with `dry_run` only asks what it would do.
pub(super) struct Plan {
    change: Change,
    dry_run: bool,
}

/// The id in the path.
pub(super) struct Id(pub(super) String);

/// The request has no query.
pub(super) struct NoQuery;

/// Whether what rows say is to be shown, too.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Show {
    #[serde(default)]
    pub(super) payload: bool,
}

/// Nothing more is taken.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Search {
    /// Takes which part of a list is wanted, and nothing else.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn page(mut self) -> Result<(Caller, Desk, Page), ApiError> {
        let page = self.query.page()?;
        let (caller, desk, Nothing {}) = self.rest()?;
        Ok((caller, desk, page))
    }

    /// Takes all that is left.
    ///
    /// # Errors
    /// 400 naming a field that is not known.
    pub(super) fn rest<T: DeserializeOwned>(self) -> Result<(Caller, Desk, T), ApiError> {
        Ok((self.caller, self.desk, self.query.rest()?))
    }
}

impl Change {
    /// Says who does it, and takes why.
    ///
    /// # Errors
    /// 400 without a reason.
    pub(super) fn by(&mut self) -> Result<By, ApiError> {
        Ok(self.caller.because(self.fields.reason()?))
    }

    /// As [`Change::by`], where the reason may be missing.
    ///
    /// # Errors
    /// 400 when it cannot be meant.
    pub(super) fn by_or(&mut self, reason: &str) -> Result<By, ApiError> {
        match self.fields.has("reason") {
            true => self.by(),
            false => Ok(self.caller.because(reason)),
        }
    }

    /// Takes all that is left of the body.
    ///
    /// # Errors
    /// 400 naming a field that is not known or of the wrong kind.
    pub(super) fn rest<T: DeserializeOwned>(self) -> Result<(Caller, Desk, T), ApiError> {
        Ok((self.caller, self.api.desk, self.fields.rest()?))
    }

    /// Nothing must be left of the body.
    ///
    /// # Errors
    /// 400 naming a field.
    pub(super) fn end(self) -> Result<(Caller, Desk), ApiError> {
        let (caller, desk, Nothing {}) = self.rest()?;
        Ok((caller, desk))
    }
}

impl Plan {
    /// Takes the whole body; who and why only where something is changed.
    ///
    /// # Errors
    /// 400 naming a field.
    pub(super) fn read<T: DeserializeOwned>(
        self,
    ) -> Result<(Caller, Desk, Option<By>, T), ApiError> {
        let mut change = self.change;
        let by = match self.dry_run {
            true => {
                change.fields.drop("reason");
                None
            }
            false => Some(change.by()?),
        };
        let (caller, desk, ask) = change.rest()?;
        Ok((caller, desk, by, ask))
    }
}

impl FromRequestParts<Arc<ApiState>> for Look {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let Search { caller, desk, .. } = Search::from_request_parts(parts, state).await?;
        NoQuery::from_request_parts(parts, state).await?;
        Ok(Self { caller, desk })
    }
}

impl FromRequestParts<Arc<ApiState>> for Search {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        Ok(Self {
            desk: DeskApi::of(state, &caller)?.desk.clone(),
            query: Query::of(&parts.uri, &caller.request_id)?,
            caller,
        })
    }
}

/// The token and the right to change come before the body, which may be large.
impl FromRequest<Arc<ApiState>> for Change {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        let change = |caller: &Caller| caller.may_change();
        read(request, state, change).await
    }
}

impl FromRequest<Arc<ApiState>> for Plan {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        let mut change = read(request, state, |_| Ok(())).await?;
        let dry_run = change.fields.flag("dry_run")?;
        if !dry_run {
            change.caller.may_change()?;
        }
        Ok(Self { change, dry_run })
    }
}

async fn read(
    request: Request,
    state: &Arc<ApiState>,
    may: impl FnOnce(&Caller) -> Result<(), ApiError>,
) -> Result<Change, ApiError> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, state).await?;
    may(&caller)?;
    let api = DeskApi::of(state, &caller)?.clone();
    NoQuery::from_request_parts(&mut parts, state).await?;
    let fields = Fields::of(state, &parts.headers, body, &caller.request_id).await?;
    Ok(Change {
        fields,
        api,
        caller,
    })
}

impl FromRequestParts<Arc<ApiState>> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let Path(id) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::not_found(RequestId::of(&parts.headers)))?;
        Ok(Self(id))
    }
}

/// A query that nobody reads may be meant: `?dry_run=true` belongs into the body.
impl FromRequestParts<Arc<ApiState>> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<ApiState>) -> Result<Self, ApiError> {
        let query = Query::of(&parts.uri, &RequestId::of(&parts.headers))?;
        query.rest::<Nothing>().map(|Nothing {}| Self)
    }
}
