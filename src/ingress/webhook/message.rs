//! Makes a message of Hasura's event: its bytes as they came, and labels beside them.

use http::HeaderMap;

use crate::brokers::Message;
use crate::config::KeyColumns;
use crate::event::{Body, Event, TraceContext};

/// Makes the message. None of its attributes starts with `ce-`: it is no CloudEvent, and whoever
/// receives it reads Hasura's own payload.
pub(super) fn of(event: &Event, trace: &TraceContext, keys: &KeyColumns) -> Message {
    let kind = event.event_type.as_str();
    let mut attributes = vec![
        ("event_id".to_owned(), event.id.to_string()),
        ("event_type".to_owned(), kind.to_owned()),
        ("traceparent".to_owned(), trace.to_string()),
    ];
    if let Some(trigger) = &event.trigger {
        attributes.push(("trigger".to_owned(), trigger.to_string()));
    }
    if let Some((table, op)) = table_and_op(event) {
        attributes.push(("table".to_owned(), table.to_owned()));
        attributes.push(("op".to_owned(), op.to_owned()));
    }
    Message {
        data: event.delivery.data.clone(),
        attributes,
        ordering_key: Some(ordering_key(event, keys)),
    }
}

/// Returns table and operation as they stand in the event type: in lower case, with the schema in
/// front unless it is `public`.
fn table_and_op(event: &Event) -> Option<(&str, &str)> {
    match event.body {
        Body::Row(_) => event.event_type.as_str().rsplit_once('.'),
        Body::Scheduled(_) | Body::Message(_) => None,
    }
}

/// Returns `table/key`, so that what happens to one row stays in order; the table alone when the
/// row lacks a column of the key, and the event type of a scheduled trigger.
fn ordering_key(event: &Event, keys: &KeyColumns) -> String {
    let (Body::Row(row), Some((table, _))) = (&event.body, table_and_op(event)) else {
        return event.event_type.to_string();
    };
    let mut key = table.to_owned();
    for column in keys.of(table) {
        let Some(part) = row.key_part(column) else {
            return table.to_owned();
        };
        key.push('/');
        key.push_str(&part);
    }
    key
}

/// Returns the trace of the request: Zipkin's B3 headers, which Hasura sends, or `traceparent`.
///
/// B3: <https://github.com/openzipkin/b3-propagation>.
pub(super) fn request_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let b3 = match header("b3") {
        Some(single) => {
            let mut parts = single.splitn(4, '-');
            b3(parts.next(), parts.next(), parts.next())
        }
        None => b3(
            header("x-b3-traceid"),
            header("x-b3-spanid"),
            header("x-b3-sampled"),
        ),
    };
    b3.or_else(|| TraceContext::parse(header("traceparent")?))
}

fn b3(trace: Option<&str>, span: Option<&str>, sampled: Option<&str>) -> Option<TraceContext> {
    let digits = |text: &str, lengths: &[usize]| {
        let shaped = lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        shaped.then(|| u128::from_str_radix(text, 16).ok())?
    };
    let trace = digits(trace?, &[16, 32])?;
    let span = u64::try_from(digits(span?, &[16])?).ok()?;
    let sampled = !matches!(sampled, Some("0" | "false"));
    TraceContext::from_ids(trace, span, sampled)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn trace(headers: &[(&'static str, &str)]) -> Option<String> {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).unwrap();
                (http::HeaderName::from_static(name), value)
            })
            .collect();
        request_trace(&headers).map(|trace| trace.to_string())
    }

    #[test]
    fn b3_headers_go_before_traceparent() {
        let w3c = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ids = ("463ac35c9f6413ad48485a3953bb6124", "0020000000000001");
        let b3 = [
            ("x-b3-traceid", ids.0),
            ("x-b3-spanid", ids.1),
            ("traceparent", w3c),
        ];
        let single = format!("{}-{}-0-0000000000000007", ids.0, ids.1);

        assert_eq!(trace(&b3).unwrap(), format!("00-{}-{}-01", ids.0, ids.1));
        let expected = format!("00-{}-{}-00", ids.0, ids.1);
        assert_eq!(trace(&[("b3", &single)]).unwrap(), expected);
        assert_eq!(trace(&[("traceparent", w3c)]).unwrap(), w3c);
    }

    #[test]
    fn what_is_no_trace_is_ignored() {
        assert_eq!(trace(&[]), None);
        assert_eq!(trace(&[("b3", "0")]), None);
        let short = [
            ("x-b3-traceid", "463a"),
            ("x-b3-spanid", "0020000000000001"),
        ];
        assert_eq!(trace(&short), None);
        let zero = [
            ("x-b3-traceid", "0000000000000000"),
            ("x-b3-spanid", "0020000000000001"),
        ];
        assert_eq!(trace(&zero), None);
    }
}
