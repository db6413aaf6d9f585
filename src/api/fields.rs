//! The named values of a request, in its query or its JSON body: known names only, each once.

use std::collections::BTreeMap;
use std::fmt;

use axum::body::{Body, to_bytes};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Uri};
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::ApiState;
use super::error::ApiError;
use crate::desk::{MAX_REASON, Page};
use crate::telemetry::RequestId;

/// What stands after the `?`: every name at most once, `ids` a list separated by commas.
#[derive(Debug)]
pub(super) struct Query {
    values: Map<String, Value>,
    id: RequestId,
}

impl Query {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// 400 when a name is there twice, or a number or truth value is none.
    pub(super) fn of(uri: &Uri, id: &RequestId) -> Result<Self, ApiError> {
        let mut query = Self {
            values: Map::new(),
            id: id.clone(),
        };
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        for (name, text) in pairs {
            let value = match name.as_ref() {
                "ids" => text.split(',').filter(|id| !id.is_empty()).collect(),
                "limit" => text.parse::<i64>().ok().map_or(Value::Null, Value::from),
                "payload" => text.parse::<bool>().ok().map_or(Value::Null, Value::from),
                // An empty field of a form is one that was left out.
                _ if text.is_empty() => continue,
                _ => Value::from(text.as_ref()),
            };
            let twice = query.values.contains_key(name.as_ref());
            if twice || value.is_null() {
                return Err(query.unusable(&name));
            }
            query.values.insert(name.into_owned(), value);
        }
        Ok(query)
    }

    /// Takes which part of a list is wanted.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn page(&mut self) -> Result<Page, ApiError> {
        let names = ["limit", "cursor"].into_iter();
        let taken = names.filter_map(|name| self.values.remove_entry(name));
        let taken = Value::Object(taken.collect());
        self.read(taken)
    }

    /// Takes all that is left.
    ///
    /// # Errors
    /// 400 naming a field that is not known.
    pub(super) fn rest<T: DeserializeOwned>(mut self) -> Result<T, ApiError> {
        let rest = Value::Object(std::mem::take(&mut self.values));
        self.read(rest)
    }

    fn read<T: DeserializeOwned>(&self, given: Value) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(given)
            .map_err(|error| self.unusable(&error.path().to_string()))
    }

    fn unusable(&self, name: &str) -> ApiError {
        let message = "the query holds an unknown name, a name twice, or an unusable value";
        ApiError::bad_request("bad_query", message, self.id.clone()).at(name)
    }
}

/// The members of a JSON body.
#[derive(Debug)]
pub(super) struct Fields {
    members: Members,
    id: RequestId,
}

impl Fields {
    /// Reads a JSON object of at most `MAX_BODY_BYTES`; an empty body counts as `{}`.
    ///
    /// # Errors
    /// 413, 415, 408, or 400.
    pub(super) async fn of(
        state: &ApiState,
        headers: &HeaderMap,
        body: Body,
        id: &RequestId,
    ) -> Result<Self, ApiError> {
        let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
        if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
            return Err(ApiError::unsupported_encoding(id.clone()));
        }
        let read = to_bytes(body, state.server.max_body_bytes);
        let body = match tokio::time::timeout(state.server.body_timeout, read).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) if is_too_large(&error) => {
                return Err(ApiError::body_too_large(id.clone()));
            }
            Ok(Err(_)) => return Err(bad_body(id)),
            Err(_) => return Err(ApiError::body_timeout(id.clone())),
        };
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        Ok(Self {
            // The parser's own words quote what it read.
            members: serde_json::from_slice(text).map_err(|_| bad_body(id))?,
            id: id.clone(),
        })
    }

    /// Takes the reason out, which every change has to give.
    ///
    /// # Errors
    /// 400 when it is missing, blank, or longer than 1,000 characters.
    pub(super) fn reason(&mut self) -> Result<String, ApiError> {
        let given: Option<String> = self.take("reason").unwrap_or_default();
        let reason = given.as_deref().map(str::trim).unwrap_or_default();
        if (1..=MAX_REASON).contains(&reason.chars().count()) {
            return Ok(reason.to_owned());
        }
        let message = "say in `reason`, in 1 to 1000 characters, why this is done";
        let error = ApiError::bad_request("reason_missing", message, self.id.clone());
        Err(error.at("reason"))
    }

    /// Tells whether there is such a member.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.0.contains_key(name)
    }

    /// Forgets a member.
    pub(super) fn drop(&mut self, name: &str) {
        self.members.0.remove(name);
    }

    /// Takes a truth value out; false when it is not there.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        let given = self.take(name).map_err(|_| bad_body(&self.id).at(name))?;
        Ok(given.unwrap_or_default())
    }

    fn take<T: DeserializeOwned>(&mut self, name: &str) -> serde_json::Result<Option<T>> {
        let given = self.members.0.remove(name);
        given.map(|raw| serde_json::from_str(raw.get())).transpose()
    }

    /// Refuses a member that the path has said already.
    ///
    /// # Errors
    /// 400 when it is there.
    pub(super) fn refuse(&self, name: &str) -> Result<(), ApiError> {
        match self.has(name) {
            true => Err(bad_body(&self.id).at(name)),
            false => Ok(()),
        }
    }

    /// Takes all that is left.
    ///
    /// # Errors
    /// 400 naming a field that is not known or of the wrong kind.
    pub(super) fn rest<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let members = self.members.0.iter();
        let members = members.map(|(name, value)| (name.as_str(), &**value));
        let given: MapDeserializer<'_, _, serde_json::Error> = MapDeserializer::new(members);
        serde_path_to_error::deserialize(given)
            .map_err(|error| bad_body(&self.id).at(&error.path().to_string()))
    }
}

/// The members of an object, each there once: of two, a plain map would keep the last one.
#[derive(Debug)]
struct Members(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name is there twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Once)
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>())
}

fn bad_body(id: &RequestId) -> ApiError {
    let message = "the body is not the JSON object this route takes; docs/API.md describes it";
    ApiError::bad_request("bad_body", message, id.clone())
}
