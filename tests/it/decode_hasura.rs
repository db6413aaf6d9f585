//! Hasura's events inside the envelope: what occurs in real captures is accepted.

use std::time::{Duration, SystemTime};

use hookyard::error::Error;
use hookyard::event::contracts::Verbatim;
use hookyard::event::{Body, Change, Event, EventId, Op, RowChange};
use serde::Deserialize;

use crate::decode_fixtures::{decode_data, event, update};

#[derive(Debug, Deserialize, PartialEq)]
struct Contract {
    id: String,
    status: Status,
    amount_cents: Option<i64>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Draft,
    Active,
}

fn row(event: &Event) -> &RowChange {
    match &event.body {
        Body::Row(row) => row,
        other => panic!("not a row: {other:?}"),
    }
}

fn change(op: &str, old: &str, new: &str) -> RowChange {
    row(&decode_data(event(op, old, new)).unwrap()).clone()
}

fn parse(op: &str, old: &str, new: &str) -> Result<Change<Contract>, Error> {
    Change::parse(&change(op, old, new), "contracts.update")
}

fn malformed_path(error: &Error) -> &str {
    match error {
        Error::Malformed { path, .. } => path,
        other => panic!("not malformed: {other}"),
    }
}

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
fn b13_rows_of_any_shape_are_routed() {
    for (op, old, new) in [
        ("INSERT", "null", "[1,2]"),
        ("INSERT", "null", "5"),
        ("INSERT", "null", "null"),
        ("UPDATE", "null", "{}"),
        ("UPDATE", "null", "null"),
        ("DELETE", "{}", "{}"),
        ("DELETE", "null", "null"),
        ("MANUAL", "null", r#""any text""#),
        ("MANUAL", "null", r#"{"any":["json",1e400]}"#),
    ] {
        let change = change(op, old, new);
        assert_eq!(change.op(), Op::parse(op).unwrap());
        assert_eq!(change.old_json(), Some(old).filter(|text| *text != "null"));
        assert_eq!(change.new_json(), Some(new).filter(|text| *text != "null"));
    }
    let bare = update("1", "2").replace(r#""old":1,"new":2"#, "");
    let event = decode_data(bare).unwrap();
    assert_eq!(row(&event).old_json(), None);
    assert_eq!(row(&event).new_json(), None);
}

#[test]
fn b13_an_array_does_not_pass_for_a_row_member_by_member() {
    for new in [
        r#"["c1","active",5]"#,
        r#" [ "c1" ]"#,
        "[]",
        "5",
        r#""text""#,
        "true",
    ] {
        let error = parse("INSERT", "null", new).unwrap_err();
        assert_eq!(malformed_path(&error), "data.new", "{new}");
    }
}

#[test]
fn b13_whoever_asks_for_a_list_gets_it() {
    let change = change("MANUAL", "null", "[1,2]");
    let list: Change<Vec<u8>> = Change::parse(&change, "x").unwrap();
    assert_eq!(list.new.unwrap(), [1, 2]);
    let value: Change<serde_json::Value> = Change::parse(&change, "x").unwrap();
    assert_eq!(value.new.unwrap()[1], 2);
    let option: Change<Option<(u8, u8)>> = Change::parse(&change, "x").unwrap();
    assert_eq!(option.new.unwrap(), Some((1, 2)));
    let verbatim: Change<Verbatim> = Change::parse(&change, "x").unwrap();
    assert_eq!(verbatim.new.unwrap().json(), "[1,2]");
}

#[test]
fn b13_a_row_is_the_new_one_or_the_deleted_one() {
    let active = r#"{"id":"c1","status":"active"}"#;
    let draft = r#"{"id":"c1","status":"draft"}"#;
    let updated = parse("UPDATE", draft, active).unwrap();
    assert_eq!(updated.row().unwrap().status, Status::Active);
    let deleted = parse("DELETE", draft, "null").unwrap();
    assert_eq!(deleted.row().unwrap().status, Status::Draft);
    let neither = parse("UPDATE", "null", "null").unwrap();
    assert_eq!(malformed_path(&neither.row().unwrap_err()), "data");
}

#[test]
fn b14_a_mismatch_is_named_by_its_column_and_never_by_its_value() {
    for (new, path) in [
        (r#"{"id":5,"status":"active"}"#, "data.new.id"),
        (
            r#"{"id":"secret","status":"classified"}"#,
            "data.new.status",
        ),
        (r#"{"id":"secret"}"#, "data.new.status"),
        (
            r#"{"id":"secret","status":"active","amount_cents":"29700"}"#,
            "data.new.amount_cents",
        ),
        (
            r#"{"id":"secret","status":"active","amount_cents":1.5}"#,
            "data.new.amount_cents",
        ),
        (
            r#"{"id":"secret","id":"secret","status":"active"}"#,
            "data.new",
        ),
    ] {
        let error = parse("INSERT", "null", new).unwrap_err();
        assert_eq!(malformed_path(&error), path, "{new}");
        let text = format!("{error} {error:?}");
        assert!(
            !text.contains("secret") && !text.contains("classified"),
            "{text}"
        );
    }
    let old = parse("UPDATE", r#"{"id":[]}"#, r#"{"id":"c","status":"draft"}"#).unwrap_err();
    assert_eq!(malformed_path(&old), "data.old.id");
}

#[test]
fn b14_keys_inside_a_json_column_are_data_and_stay_out_of_the_path() {
    #[derive(Debug, Deserialize)]
    struct Notes {
        #[expect(dead_code, reason = "only its shape matters")]
        notes: std::collections::HashMap<String, Vec<u8>>,
    }
    let change = change("INSERT", "null", r#"{"notes":{"johnsmith":[1,"x"]}}"#);
    let error = Change::<Notes>::parse(&change, "x").unwrap_err();
    assert_eq!(malformed_path(&error), "data.new.notes.?[1]");
}

#[test]
fn b14_extra_columns_are_ignored() {
    let new =
        r#"{"id":"c1","status":"active","amount_cents":null,"notes":{"a":[1e999]},"x":"\ud800"}"#;
    let contract = parse("INSERT", "null", new).unwrap().new.unwrap();
    assert_eq!(contract.status, Status::Active);
    assert_eq!(contract.amount_cents, None);
}

#[test]
fn b8_numbers_leave_digit_for_digit_as_they_came() {
    #[derive(Debug, Deserialize)]
    struct Amount {
        value: Verbatim,
    }
    let digits = "9".repeat(100_000);
    for number in [
        "50755254975729665",
        "9007199254740993",
        "18446744073709551616",
        "-0",
        "-0.0",
        "1e400",
        "1E-400",
        "0.10",
        "29700.10",
        "0.1000000000000000055511151231257827021181583404541015625",
        &digits,
    ] {
        let new = format!(r#"{{"value": {number} }}"#);
        let change = change("INSERT", "null", &new);
        assert_eq!(change.new_json(), Some(&*new), "the row as it came");
        let amount: Change<Amount> = Change::parse(&change, "x").unwrap();
        assert_eq!(amount.new.as_ref().unwrap().value.json(), number);
        let sent = serde_json::to_string(&amount.new.unwrap().value).unwrap();
        assert_eq!(sent, number, "and as it leaves");
    }
}

#[test]
fn a_column_has_changed_when_its_text_differs_or_a_row_is_unknown() {
    let draft = r#"{"id":"c1","status":"draft","amount":1.10,"tags":{"a":1}}"#;
    let active = r#"{ "status" : "active", "id":"c1","amount":1.10,"tags":{"a":1}}"#;
    let change_of = change("UPDATE", draft, active);
    assert!(change_of.changed("status"));
    for same in ["id", "amount", "tags", "absent"] {
        assert!(!change_of.changed(same), "{same}");
    }
    assert!(change("UPDATE", "null", active).changed("id"));
    assert!(change("INSERT", "null", active).changed("absent"));
    assert!(change("DELETE", draft, "null").changed("id"));
    assert!(change("UPDATE", "[1]", "[1]").changed("id"));
    assert!(change("UPDATE", r#"{"id":1}"#, "{}").changed("id"));
}

#[test]
fn a_column_whose_name_needs_escapes_does_not_hide_the_others() {
    let old = r#"{"sp\"ecial":1,"caf\u00e9":2,"id":1}"#;
    let new = r#"{"sp\"ecial":2,"caf\u00e9":2,"id":2}"#;
    let change = change("UPDATE", old, new);
    assert!(change.changed("id"));
    assert!(change.changed("sp\"ecial"));
    assert!(!change.changed("café"));
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
