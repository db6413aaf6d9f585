//! A changed row, before and after.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Op;
use super::json::{is_object, member, parse_json, string};
use crate::error::Error;

/// A row as JSON text, sharing the memory of the delivery it came in.
///
/// Only made from text that serde_json has taken as one JSON value.
#[derive(Debug, Clone)]
pub struct Row(Bytes);

impl Row {
    pub(super) fn new(within: &Bytes, raw: &RawValue) -> Self {
        Self(within.slice_ref(raw.get().as_bytes()))
    }

    /// Returns the JSON text, digit for digit as it came.
    pub fn json(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    /// Returns the JSON text of one column, `None` when there is no such column.
    pub fn column(&self, name: &str) -> Option<&str> {
        member(self.json(), name)
    }
}

/// What happened to a row, undecoded.
#[derive(Debug, Clone)]
pub struct RowChange {
    pub(super) op: Op,
    pub(super) old: Option<Row>,
    pub(super) new: Option<Row>,
    pub(super) session: Option<Row>,
}

impl RowChange {
    /// Returns the operation.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Returns the row before the change as JSON text.
    pub fn old_json(&self) -> Option<&str> {
        self.old.as_ref().map(Row::json)
    }

    /// Returns the row after the change as JSON text.
    pub fn new_json(&self) -> Option<&str> {
        self.new.as_ref().map(Row::json)
    }

    /// Tells whether a column's value differs between the old and the new row.
    ///
    /// When only one of the rows is known (INSERT, DELETE, or an UPDATE that came without its
    /// old row), or one is no object, the column counts as changed: nothing says that it did not.
    pub fn changed(&self, column: &str) -> bool {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if is_object(old.json()) && is_object(new.json()) => {
                old.column(column) != new.column(column)
            }
            _ => true,
        }
    }

    /// Returns a column that tells rows apart as text: of the row after the change, or of the one
    /// before it when the row was deleted. `None` when it is not there, null, or no scalar.
    pub fn key_part(&self, column: &str) -> Option<Cow<'_, str>> {
        let json = self.new.as_ref().or(self.old.as_ref())?.column(column)?;
        match json.as_bytes().first()? {
            b'"' => string(json),
            b'-' | b'0'..=b'9' | b't' | b'f' => Some(Cow::Borrowed(json)),
            _ => None,
        }
    }

    /// Returns `x-hasura-role` of the session that made the change.
    pub fn role(&self) -> Option<String> {
        self.session_variable("x-hasura-role").map(Into::into)
    }

    /// Returns a variable of the session that made the change; names are in lower case.
    pub fn session_variable(&self, name: &str) -> Option<Cow<'_, str>> {
        string(self.session.as_ref()?.column(name)?)
    }
}

/// What happened to a row, with the rows in the type a handler asked for.
#[derive(Debug, Clone)]
pub struct Change<T> {
    /// The operation.
    pub op: Op,
    /// The row before; `None` on INSERT and MANUAL, and on an UPDATE that came without it.
    pub old: Option<T>,
    /// The row after; `None` on DELETE.
    pub new: Option<T>,
    raw: RowChange,
}

impl<T: DeserializeOwned> Change<T> {
    /// Parses the rows.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the path of the field that does not fit, never its value.
    pub fn parse(raw: &RowChange, event_type: &str) -> Result<Self, Error> {
        let parse = |row: &Option<Row>, side: &str| match row {
            Some(row) => parse_json(row.json(), event_type, side).map(Some),
            None => Ok(None),
        };
        let old = parse(&raw.old, "data.old")?;
        let new = parse(&raw.new, "data.new")?;
        Ok(Self {
            op: raw.op,
            old,
            new,
            raw: raw.clone(),
        })
    }
}

impl<T> Change<T> {
    /// Tells whether a column's value differs; see [`RowChange::changed`].
    pub fn changed(&self, column: &str) -> bool {
        self.raw.changed(column)
    }

    /// Returns the row after the change, or the one before it when the row was deleted.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the event carries neither.
    pub fn row(&self) -> Result<&T, Error> {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .ok_or_else(|| Error::Malformed {
                event_type: self.op.as_str().to_owned(),
                path: "data".to_owned(),
            })
    }

    /// Returns the JSON text behind this change.
    pub fn raw(&self) -> &RowChange {
        &self.raw
    }
}
