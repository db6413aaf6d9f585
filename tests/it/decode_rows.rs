//! The rows of an event: any shape is routed, only what fits is handled, digits stay.

use hookyard::error::Error;
use hookyard::event::contracts::Verbatim;
use hookyard::event::{Body, Change, Event, Op, RowChange};
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
