//! Who asks, and what he may do.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::ApiState;
use super::error::ApiError;
use crate::config::Access;
use crate::telemetry::RequestId;

/// The header in which an operator's tool says for whom it acts.
pub const ACTOR_HEADER: &str = "x-hookyard-actor";

/// Longest name of an actor, in characters.
const MAX_ACTOR: usize = 100;

/// A caller whose token was checked. No admin route can be reached without one.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) request_id: RequestId,
    /// Whose name goes into the audit log. It is what the caller says: whoever has the token may
    /// give any name.
    pub(super) actor: String,
}

impl Caller {
    /// Lets in whoever may look.
    ///
    /// # Errors
    /// 401, or 403 when there is no admin token at all.
    pub(super) fn reader(state: &ApiState, headers: &HeaderMap) -> Result<Self, ApiError> {
        Self::with(state, headers).map(|(caller, _)| caller)
    }

    /// Lets in whoever may change things.
    ///
    /// # Errors
    /// As [`Caller::reader`]; 403 with a token that may only look.
    pub(super) fn operator(state: &ApiState, headers: &HeaderMap) -> Result<Self, ApiError> {
        let (caller, access) = Self::with(state, headers)?;
        match access {
            Access::Full => Ok(caller),
            Access::Read => Err(ApiError::read_only(caller.request_id)),
        }
    }

    fn with(state: &ApiState, headers: &HeaderMap) -> Result<(Self, Access), ApiError> {
        let request_id = RequestId::of(headers);
        if state.server.admin.is_closed() {
            return Err(ApiError::admin_closed(request_id));
        }
        let Some(access) = access(state, headers) else {
            return Err(ApiError::unauthorized(request_id));
        };
        let Some(actor) = actor(headers) else {
            let message = "x-hookyard-actor must be one name of 1 to 100 visible characters";
            return Err(ApiError::bad_request("bad_actor", message, request_id));
        };
        let caller = Self { request_id, actor };
        Ok((caller, access))
    }
}

/// Returns what the token in `headers` allows; a doubled header allows nothing.
pub(super) fn access(state: &ApiState, headers: &HeaderMap) -> Option<Access> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer
        .then(|| token.trim_start_matches(' '))
        .and_then(|token| state.server.admin.access(token))
}

fn actor(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(ACTOR_HEADER).iter();
    let Some(first) = given.next() else {
        return Some("admin".to_owned());
    };
    // Names are UTF-8 here, as every tool sends them.
    let name = std::str::from_utf8(first.as_bytes()).ok()?.trim();
    let plain = !name.is_empty()
        && name.chars().count() <= MAX_ACTOR
        && !name.chars().any(char::is_control);
    (plain && given.next().is_none()).then(|| name.to_owned())
}
