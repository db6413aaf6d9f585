//! Hasura's events inside the envelope: what occurs in real captures is accepted.

use std::time::{Duration, SystemTime};

use hookyard::event::{Body, EventId};

use crate::decode_fixtures::{decode_data, event, update};

#[test]
fn a_table_event_is_named_after_table_and_operation() {
    for (table, op, expected) in [
        (
            r#"{"schema":"public","name":"contracts"}"#,
            "UPDATE",
            "contracts.update",
        ),
        (
            r#"{"schema":"public","name":"Contracts"}"#,
            "INSERT",
            "contracts.insert",
        ),
        (
            r#"{"schema":"billing","name":"contracts"}"#,
            "DELETE",
            "billing.contracts.delete",
        ),
        (
            r#"{"schema":"","name":"contracts"}"#,
            "MANUAL",
            "contracts.manual",
        ),
        (
            r#"{"schema":null,"name":"contracts"}"#,
            "UPDATE",
            "contracts.update",
        ),
        (r#"{"name":"contracts"}"#, "UPDATE", "contracts.update"),
        (
            r#"{"name":"\u0063ontracts","extra":1}"#,
            "UPDATE",
            "contracts.update",
        ),
    ] {
        let data =
            event(op, "null", "{}").replace(r#"{"schema":"public","name":"contracts"}"#, table);
        let event = decode_data(data).unwrap();
        assert_eq!(event.event_type.as_str(), expected);
        assert_eq!(event.trigger.as_deref(), Some("contract_events"));
    }
}

#[test]
fn metadata_of_the_event_is_read() {
    let event = decode_data(update("{}", "{}")).unwrap();

    assert_eq!(event.id.as_str(), "85558393-c75d-4d2f-9c15-e80591b83894");
    assert_eq!(event.hasura_retry, Some(2));
    assert_eq!(event.role().as_deref(), Some("admin"));
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_536_131_661_601_701);
    assert_eq!(event.created_at, Some(at));
    let trace = event.trace.unwrap();
    assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(trace.span_id(), "00f067aa0ba902b7");
}

#[test]
fn b11_an_event_without_its_parts_is_undecodable() {
    let whole = update("null", "{}");
    for (find, replace, code) in [
        (
            r#""id":"85558393-c75d-4d2f-9c15-e80591b83894","#,
            "",
            "no_event_id",
        ),
        (
            r#""85558393-c75d-4d2f-9c15-e80591b83894""#,
            r#""""#,
            "no_event_id",
        ),
        (
            r#""85558393-c75d-4d2f-9c15-e80591b83894""#,
            r#"" \t ""#,
            "no_event_id",
        ),
        (
            r#""85558393-c75d-4d2f-9c15-e80591b83894""#,
            "null",
            "no_event_id",
        ),
        (
            r#""85558393-c75d-4d2f-9c15-e80591b83894""#,
            "5",
            "not_an_event",
        ),
        (
            r#""85558393-c75d-4d2f-9c15-e80591b83894""#,
            "{}",
            "not_an_event",
        ),
        (r#""op":"UPDATE","#, "", "not_an_event"),
        (r#""op":"UPDATE""#, r#""op":"update""#, "unknown_op"),
        (r#""op":"UPDATE""#, r#""op":"TRUNCATE""#, "unknown_op"),
        (r#""op":"UPDATE""#, r#""op":"""#, "unknown_op"),
        (r#""op":"UPDATE""#, r#""op":null"#, "not_an_event"),
        (r#""data":{"old":null,"new":{}},"#, "", "not_an_event"),
        (
            r#""data":{"old":null,"new":{}}"#,
            r#""data":null"#,
            "not_an_event",
        ),
        (
            r#""table":{"schema":"public","name":"contracts"},"#,
            "",
            "not_an_event",
        ),
        (r#""name":"contracts""#, r#""name":null"#, "not_an_event"),
        (
            r#""trigger":{"name":"contract_events"},"#,
            "",
            "not_an_event",
        ),
        (
            r#""trigger":{"name":"contract_events"}"#,
            r#""trigger":"x""#,
            "not_an_event",
        ),
        (r#""event":{"#, r#""incident":{"#, "not_an_event"),
    ] {
        let data = whole.replace(find, replace);
        assert_ne!(data, whole, "{find}");
        assert_eq!(decode_data(&data).unwrap_err(), code, "{find} -> {replace}");
    }
}

#[test]
fn b11_an_endless_id_or_name_is_undecodable() {
    let long = "x".repeat(257);
    for (find, code) in [
        ("85558393-c75d-4d2f-9c15-e80591b83894", "no_event_id"),
        ("contract_events", "name_too_long"),
        ("contracts", "name_too_long"),
        ("public", "name_too_long"),
    ] {
        let data = update("null", "{}").replace(find, &long);
        assert_eq!(decode_data(data).unwrap_err(), code);
        let data = update("null", "{}").replace(find, &long[..256]);
        assert!(decode_data(data).is_ok());
    }
}

#[test]
fn b12_an_id_is_any_text_and_compared_exactly() {
    for id in [
        "1",
        "evt 1",
        "EVT-1",
        "evt-1",
        "\u{1f9fe}",
        "a/b?c=%2F",
        " padded ",
    ] {
        let data = update("null", "{}").replace("85558393-c75d-4d2f-9c15-e80591b83894", id);
        assert_eq!(decode_data(data).unwrap().id, EventId::new(id).unwrap());
    }
    assert_ne!(EventId::new("evt-1"), EventId::new("EVT-1"));
    assert_ne!(EventId::new("evt-1"), EventId::new("evt-1 "));
}

#[test]
fn b12_created_at_may_have_no_zone_or_be_absent_or_odd() {
    let at = |created_at: &str| {
        let data = update("null", "{}").replace(r#""2018-09-05T07:14:21.601701Z""#, created_at);
        decode_data(data).unwrap().created_at
    };
    let expected = Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_664_450_373_604_785));
    assert_eq!(at(r#""2022-09-29T11:19:33.604785""#), expected);
    assert_eq!(at(r#""2022-09-29T11:19:33.604785Z""#), expected);
    assert_eq!(at(r#""2022-09-29T13:19:33.604785+02:00""#), expected);
    for odd in [
        "null",
        "5",
        "\"\"",
        "\"yesterday\"",
        "{}",
        "\"9999-99-99T00:00:00Z\"",
    ] {
        assert_eq!(at(odd), None, "{odd}");
    }
    for far in [
        "\"0000-01-01T00:00:00Z\"",
        "\"9999-12-31T23:59:59.999999999-12:00\"",
    ] {
        at(far);
    }

    let data = update("null", "{}").replace(r#""created_at":"2018-09-05T07:14:21.601701Z","#, "");
    assert_eq!(decode_data(data).unwrap().created_at, None);
}

#[test]
fn b12_what_did_not_come_through_hasura_has_no_session() {
    let data = update("null", "{}");
    let a = data.find(r#"{"x-hasura-role""#).unwrap();
    let b = data[a..].find('}').unwrap() + a + 1;
    for (session, role) in [
        ("null", None),
        ("{}", None),
        (r#"["admin"]"#, None),
        (r#""admin""#, None),
        (r#"{"x-hasura-role":7}"#, None),
        (r#"{"x-hasura-role":null}"#, None),
        (
            r#"{"x-hasura-us\u0065r-id":"1","x-hasura-role":"us\u0065r"}"#,
            Some("user"),
        ),
    ] {
        let data = format!("{}{session}{}", &data[..a], &data[b..]);
        assert_eq!(
            decode_data(data).unwrap().role().as_deref(),
            role,
            "{session}"
        );
    }
}

#[test]
fn b12_trace_ids_may_be_null_or_numbers_above_i64() {
    let trace = |context: &str| {
        let data = update("null", "{}");
        let a = data.find(r#"{"trace_id""#).unwrap();
        let b = data[a..].find('}').unwrap() + a + 1;
        let data = format!("{}{context}{}", &data[..a], &data[b..]);
        decode_data(data).unwrap().trace
    };
    for none in [
        "null",
        "{}",
        "5",
        r#"{"trace_id":null,"span_id":null}"#,
        r#"{"trace_id":"","span_id":""}"#,
        r#"{"trace_id":0,"span_id":1}"#,
        r#"{"trace_id":-1}"#,
        r#"{"trace_id":1e5}"#,
        r#"{"trace_id":{"a":1}}"#,
        r#"{"trace_id":"\ud800"}"#,
    ] {
        assert_eq!(trace(none), None, "{none}");
    }
    let context = trace(r#"{"trace_id":15064541532423456789,"span_id":9295817723117023421}"#);
    let context = context.unwrap();
    assert_eq!(
        context.trace_id(),
        format!("{:032x}", 15_064_541_532_423_456_789_u64)
    );
    assert_eq!(
        context.span_id(),
        format!("{:016x}", 9_295_817_723_117_023_421_u64)
    );

    // Sixteen digits are hexadecimal as text, but decimal as a number.
    let number = trace(r#"{"trace_id":1234567890123456,"span_id":"1"}"#).unwrap();
    assert_eq!(
        number.trace_id(),
        format!("{:032x}", 1_234_567_890_123_456_u64)
    );
    let text = trace(r#"{"trace_id":"1234567890123456","span_id":"1"}"#).unwrap();
    assert_eq!(
        text.trace_id(),
        format!("{:032x}", 0x1234_5678_9012_3456_u64)
    );

    // A trace without a span gets one.
    let spanless = trace(r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#).unwrap();
    assert_ne!(spanless.span_id(), "0".repeat(16));
}

#[test]
fn b12_delivery_info_may_be_absent_or_odd_and_extra_keys_are_ignored() {
    for (info, retry) in [
        (
            r#""delivery_info":{"current_retry":0,"max_retries":0},"#,
            Some(0),
        ),
        (r#""delivery_info":null,"#, None),
        (r#""delivery_info":{},"#, None),
        (r#""delivery_info":"x","#, None),
        ("", None),
        (
            r#""version":"2","name":5,"payload":[],"scheduled_time":{},"comment":null,"#,
            None,
        ),
    ] {
        let whole = r#""delivery_info":{"current_retry":2,"max_retries":5},"#;
        let data = update("null", "{}").replace(whole, info);
        assert_eq!(decode_data(data).unwrap().hasura_retry, retry, "{info}");
    }
}

#[test]
fn b23_scheduled_triggers_have_event_types_of_their_own() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_614_366_835);
    for (data, kind) in [
        (
            r#"{"id":"s1","name":"nightly","scheduled_time":"2021-02-26T19:13:55Z","payload":{"a":1.10}}"#,
            "cron.nightly",
        ),
        (
            r#"{"id":"s1","name":"nightly","scheduled_time":"2021-02-26T19:13:55Z","payload":{"a":1.10},
                "comment":null,"created_at":null}"#,
            "cron.nightly",
        ),
        (
            r#"{"id":"s1","scheduled_time":"2021-02-26T19:13:55","payload":{"a":1.10},"comment":"c",
                "created_at":"2021-02-26T19:00:00.000000Z"}"#,
            "scheduled.one_off",
        ),
        (
            r#"{"id":"s1","name":"reminder","scheduled_time":"2021-02-26T19:13:55Z","payload":{"a":1.10},
                "created_at":"2021-02-26T19:00:00Z"}"#,
            "scheduled.reminder",
        ),
    ] {
        let event = decode_data(data).unwrap();
        assert_eq!(event.event_type.as_str(), kind);
        assert!(event.created_at.is_some());
        let Body::Scheduled(_) = &event.body else {
            panic!("not scheduled: {event:?}");
        };
        assert_eq!(event.created_at.unwrap().max(at), at);
    }
}

#[test]
fn b23_a_schedule_without_its_parts_is_undecodable() {
    for (data, code) in [
        (
            r#"{"name":"n","scheduled_time":"2021-02-26T19:13:55Z"}"#,
            "no_event_id",
        ),
        (
            r#"{"id":"1","name":"n","scheduled_time":5}"#,
            "not_an_event",
        ),
        (
            r#"{"id":"1","name":"n","scheduled_time":"soon"}"#,
            "not_an_event",
        ),
        (r#"{"id":"1","name":"n"}"#, "not_an_event"),
    ] {
        assert_eq!(decode_data(data).unwrap_err(), code);
    }
    // Without a payload it is an event all the same.
    let bare = r#"{"id":"1","name":"n","scheduled_time":"2021-02-26T19:13:55Z"}"#;
    assert!(decode_data(bare).is_ok());
}

#[test]
fn c9_the_fingerprint_is_of_what_the_event_says() {
    let print = |data: String| decode_data(data).unwrap().fingerprint();
    let whole = update("null", r#"{"id":1}"#);
    let retried = whole.replace(r#""current_retry":2"#, r#""current_retry":3"#);
    assert_eq!(print(whole.clone()), print(retried));
    assert_ne!(print(whole.clone()), print(update("null", r#"{"id":2}"#)));
    assert_ne!(print(whole), print(update(r#"{"id":1}"#, "null")));
}
