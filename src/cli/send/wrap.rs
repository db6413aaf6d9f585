//! Makes a message of what `send` is given: a Hasura event, a bare row, a CloudEvent.

use std::collections::BTreeMap;

use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;

/// What to make of a bare row.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowOptions<'a> {
    pub(super) op: &'a str,
    /// With its schema, if that is not `public`.
    pub(super) table: &'a str,
    pub(super) trigger: Option<&'a str>,
}

/// The data of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrapped {
    /// An event.
    Event(Vec<u8>),
    /// A CloudEvent: its data, and the attributes that say the rest.
    CloudEvent(Vec<u8>, Vec<(String, String)>),
    /// Something else, as it came.
    NoJson(Vec<u8>),
}

/// Wraps the input if it is a row, and checks that it is an event if not.
pub(super) fn wrap(input: Vec<u8>, row: Option<&RowOptions<'_>>) -> Result<Wrapped, BoxError> {
    let json = std::str::from_utf8(&input).ok();
    let json = json.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let Some(json) = json else {
        return match row {
            Some(_) => Err("the row is not JSON".into()),
            None => Ok(Wrapped::NoJson(input)),
        };
    };
    if let Some(row) = row {
        return Ok(Wrapped::Event(event_of(json, row)?.into_bytes()));
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(json.get()).unwrap_or_default();
    if members.contains_key("message") && members.contains_key("subscription") {
        let why = "this is a push envelope already; send the event that is inside (or use --raw)";
        return Err(why.into());
    }
    if members.contains_key("event") || members.contains_key("scheduled_time") {
        return Ok(Wrapped::Event(input));
    }
    if members.contains_key("specversion") {
        return cloud_event(&members);
    }
    Err(
        "this is neither a Hasura event, a scheduled trigger nor a CloudEvent; \
         give --op to send it as a row, or --raw to send it as it is"
            .into(),
    )
}

/// Takes a CloudEvent in structured mode apart, as its Pub/Sub binding has it.
fn cloud_event(members: &BTreeMap<String, &RawValue>) -> Result<Wrapped, BoxError> {
    let data = members.get("data").ok_or("this CloudEvent has no data")?;
    let attributes: Vec<_> = members
        .iter()
        .filter_map(|(name, value)| {
            let text: String = serde_json::from_str(value.get()).ok()?;
            (name != "data").then(|| (format!("ce-{name}"), text))
        })
        .collect();
    for name in ["ce-id", "ce-type"] {
        if !attributes.iter().any(|(given, _)| given == name) {
            return Err(format!("this CloudEvent has no {}", &name["ce-".len()..]).into());
        }
    }
    Ok(Wrapped::CloudEvent(data.get().into(), attributes))
}

/// Puts the row's own text into an event, so that its numbers stay as they are.
fn event_of(row: &RawValue, options: &RowOptions<'_>) -> Result<String, BoxError> {
    let (schema, table) = options
        .table
        .split_once('.')
        .unwrap_or(("public", options.table));
    let op = options.op.to_ascii_uppercase();
    let (old, new) = match op.as_str() {
        "DELETE" => (row.get(), "null"),
        _ => ("null", row.get()),
    };
    let trigger = options
        .trigger
        .map_or_else(|| format!("{table}_events"), str::to_owned);
    let id = uuid::Uuid::new_v4();
    let created_at = OffsetDateTime::from(SystemClock.now()).format(&Rfc3339)?;
    let trigger = json!({"name": trigger});
    let table = json!({"schema": schema, "name": table});
    Ok(format!(
        "{{\"id\":\"{id}\",\"created_at\":\"{created_at}\",\"trigger\":{trigger},\
         \"table\":{table},\"event\":{{\"op\":\"{op}\",\
         \"data\":{{\"old\":{old},\"new\":{new}}},\
         \"session_variables\":null,\"trace_context\":null}}}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, Delivery, Event};

    fn options(op: &str) -> RowOptions<'_> {
        RowOptions {
            op,
            table: "contracts",
            trigger: None,
        }
    }

    fn decoded(row: &str, options: RowOptions<'_>) -> Event {
        let Wrapped::Event(data) = wrap(row.into(), Some(&options)).unwrap() else {
            panic!("not an event");
        };
        Event::decode(Delivery {
            data: data.into(),
            ..Delivery::default()
        })
        .unwrap()
    }

    #[test]
    fn a_row_goes_into_its_event_digit_for_digit() {
        let event = decoded(
            r#"{"id": 1, "amount": 50755254975729665123.10}"#,
            options("update"),
        );

        assert_eq!(event.event_type.as_str(), "contracts.update");
        let Body::Row(row) = &event.body else {
            panic!("not a row");
        };
        assert_eq!(
            row.new_json(),
            Some(r#"{"id": 1, "amount": 50755254975729665123.10}"#)
        );
        assert_eq!(row.old_json(), None);
    }

    #[test]
    fn a_schema_stands_before_the_table() {
        let options = RowOptions {
            table: "billing.invoices",
            ..options("delete")
        };

        let event = decoded("{}", options);

        assert_eq!(event.event_type.as_str(), "billing.invoices.delete");
        assert_eq!(event.trigger.as_deref(), Some("invoices_events"));
    }

    #[test]
    fn a_cloud_event_leaves_with_its_data_digit_for_digit() {
        let text = r#"{"specversion":"1.0","id":"a","type":"user.verified","data":{"n":1.10}}"#;

        let Wrapped::CloudEvent(data, attributes) = wrap(text.into(), None).unwrap() else {
            panic!("not a CloudEvent");
        };

        let event = Event::decode(Delivery {
            data: data.into(),
            attributes,
            ..Delivery::default()
        });
        let event = event.unwrap();
        assert_eq!(
            (event.id.as_str(), event.event_type.as_str()),
            ("a", "user.verified")
        );
        let Body::Message(bytes) = &event.body else {
            panic!("not a message");
        };
        assert_eq!(&**bytes, br#"{"n":1.10}"#);
        assert!(wrap(br#"{"specversion":"1.0","data":1}"#.to_vec(), None).is_err());
    }

    #[test]
    fn what_is_no_event_is_sent_knowingly_only() {
        assert!(wrap(b"{\"id\": 1}".to_vec(), None).is_err());
        assert!(wrap(b"{".to_vec(), Some(&options("insert"))).is_err());
        assert_eq!(
            wrap(b"{".to_vec(), None).unwrap(),
            Wrapped::NoJson(b"{".to_vec())
        );
    }
}
