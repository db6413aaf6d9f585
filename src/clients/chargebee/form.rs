//! Form bodies as Chargebee's own client libraries send them.
//!
//! Facts captured from the official Node library 3.33.0: lists are `field[sub][index]`, objects
//! `field[sub]`, `meta_data` is JSON text, booleans are words, times Unix seconds; brackets are
//! percent-encoded, a space is `%20`.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::error::{Error, Result};

pub(super) const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// What JavaScript's `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// A form body in the making; fields keep the order they were added in.
///
/// Not `Debug`: it holds rows.
#[derive(Clone, Default)]
pub struct Form(String);

impl Form {
    /// Makes an empty form.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name=value`.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.push(name, value);
        self
    }

    /// Adds `name=value` when there is a value.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Adds `name=true` or `name=false`.
    #[must_use]
    pub fn flag(self, name: &str, value: bool) -> Self {
        self.text(name, if value { "true" } else { "false" })
    }

    /// Adds `name=123`, also for times in Unix seconds.
    #[must_use]
    pub fn number(self, name: &str, value: i64) -> Self {
        self.text(name, &value.to_string())
    }

    /// Adds `object[name]=value`.
    #[must_use]
    pub fn member(self, object: &str, name: &str, value: &str) -> Self {
        self.text(&format!("{object}[{name}]"), value)
    }

    /// Adds `list[name][index]=value`: one member of one item of a list.
    #[must_use]
    pub fn item(self, list: &str, name: &str, index: usize, value: &str) -> Self {
        self.text(&format!("{list}[{name}][{index}]"), value)
    }

    /// Adds a value as JSON text, as `meta_data` wants it.
    ///
    /// # Errors
    /// Permanent `unserializable` when the value cannot be written as JSON.
    pub fn json(self, name: &str, value: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_string(value).map_err(|_| Error::permanent("unserializable"))?;
        Ok(self.text(name, &json))
    }

    pub(super) fn into_body(self) -> Bytes {
        self.0.into()
    }

    fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.extend(utf8_percent_encode(name, COMPONENT));
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, COMPONENT));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_form_is_byte_for_byte_what_the_official_library_sends() {
        let form = Form::new()
            .text("cf_contract_id", "c-1")
            .flag("end_of_term", true)
            .item("subscription_items", "item_price_id", 0, "basic")
            .item("subscription_items", "quantity", 0, "2")
            .json("meta_data", &json!({"a": 1}))
            .unwrap()
            .member("shipping_address", "first_name", "J");

        assert_eq!(
            form.into_body(),
            "cf_contract_id=c-1&end_of_term=true\
             &subscription_items%5Bitem_price_id%5D%5B0%5D=basic\
             &subscription_items%5Bquantity%5D%5B0%5D=2\
             &meta_data=%7B%22a%22%3A1%7D\
             &shipping_address%5Bfirst_name%5D=J"
        );
    }

    #[test]
    fn values_cannot_add_fields_of_their_own() {
        let form = Form::new()
            .text("cf_contract_id", "x&status=active#é +%")
            .number("start_date", 1_700_000_000)
            .optional("company", None);

        assert_eq!(
            form.into_body(),
            "cf_contract_id=x%26status%3Dactive%23%C3%A9%20%2B%25&start_date=1700000000"
        );
    }
}
