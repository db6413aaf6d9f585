//! Bodies made to hurt: nothing panics, nothing is changed, everything is kept.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hookyard::event::{Body, Change, RowChange, contracts::Verbatim};
use serde::Deserialize;

use crate::decode_fixtures::{decode, decode_data, event, update, wrap};

fn row(data: &str) -> RowChange {
    match decode_data(data).unwrap().body {
        Body::Row(row) => row,
        other => panic!("not a row: {other:?}"),
    }
}

#[test]
fn b5_data_that_is_no_event_is_undecodable() {
    let utf16: Vec<u8> = update("null", "{}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (data, code) in [
        (&b""[..], "no_data"),
        (b"hello", "not_json"),
        (b"\x1f\x8b\x08\x00\x00", "not_utf8"),
        (b"\xff\xfe\x00", "not_utf8"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"{", "not_json"),
        (b"{'id':'1'}", "not_json"),
        (b"{\"id\":\"1\",}", "not_json"),
        (b"{\"id\":NaN}", "not_json"),
        (b"{} {}", "not_json"),
        (b"\0", "not_json"),
        (b"[]", "not_an_event"),
        (
            b"[\"1\",null,null,null,null,null,null,null,null]",
            "not_an_event",
        ),
        (b"null", "not_an_event"),
        (b"5", "not_an_event"),
        (b"\"x\"", "not_an_event"),
        (b"{}", "no_event_id"),
        (b"{\"id\":\"1\"}", "not_an_event"),
        (&utf16, "not_json"),
    ] {
        let found = decode_data(data).unwrap_err();
        assert_eq!(found, code, "{}", String::from_utf8_lossy(data));
    }
    let cut = update("null", "{}");
    for end in 1..cut.len() {
        assert_eq!(decode_data(&cut[..end]).unwrap_err(), "not_json");
    }
}

#[test]
fn b6_invalid_utf8_is_never_replaced() {
    let mut data = update("null", r#"{"id":"?"}"#).into_bytes();
    let place = data.iter().position(|&b| b == b'?').unwrap();
    data[place] = 0xff;
    assert_eq!(decode_data(&data).unwrap_err(), "not_utf8");

    let mut body = wrap("{}").into_bytes();
    let place = body.iter().position(|&b| b == b'2').unwrap();
    body[place] = 0xff;
    assert_eq!(decode(body).unwrap_err(), "not_utf8");
}

#[test]
fn b6_a_lone_surrogate_travels_unchanged_and_fails_only_who_reads_it() {
    #[derive(Debug, Deserialize)]
    struct Typed {
        #[expect(dead_code, reason = "only its shape matters")]
        name: String,
    }
    let new = r#"{"name":"\ud800"}"#;
    let change = row(&update("null", new));
    assert_eq!(change.new_json(), Some(new));
    let verbatim: Change<Verbatim> = Change::parse(&change, "x").unwrap();
    assert_eq!(verbatim.new.unwrap().json(), new);
    assert!(Change::<Typed>::parse(&change, "x").is_err());

    let id = update("null", "{}").replace("85558393", r"\ud800");
    assert_eq!(decode_data(id).unwrap_err(), "not_json");
}

#[test]
fn b7_a_nul_character_is_text_like_any_other() {
    let new = r#"{"name":"a\u0000b"}"#;
    assert_eq!(row(&update("null", new)).new_json(), Some(new));
}

#[test]
fn b9_deep_nesting_is_refused_and_overflows_nothing() {
    for depth in [129, 10_000, 1_000_000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(decode_data(update("null", &deep)).unwrap_err(), "too_deep");
            assert_eq!(decode_data(open.repeat(depth)).unwrap_err(), "too_deep");
            assert!(decode(open.repeat(depth)).is_err());
            let extra = wrap(update("null", "{}")).replacen('{', &format!(r#"{{"x":{deep},"#), 1);
            assert!(decode(extra).is_ok(), "nobody looks into unknown members");
            let message = format!(r#"{{"message":{deep}}}"#);
            assert!(decode(message).is_err());
        }
    }
}

#[test]
fn b9_brackets_in_text_and_wide_rows_are_not_depth() {
    let text = format!(r#"{{"a":"{}\"{}"}}"#, "[{".repeat(500), "[{".repeat(500));
    assert!(decode_data(update("null", &text)).is_ok());
    let wide = format!("[{}1]", "[[]],".repeat(1_000));
    assert!(decode_data(update("null", &wide)).is_ok());
    // The event itself nests three deep above the row.
    let deepest = format!("{}1{}", "[".repeat(124), "]".repeat(124));
    let change = row(&update("null", &deepest));
    let value: Change<serde_json::Value> = Change::parse(&change, "x").unwrap();
    assert!(value.new.is_some());
    let deeper = format!("{}1{}", "[".repeat(125), "]".repeat(125));
    assert_eq!(
        decode_data(update("null", &deeper)).unwrap_err(),
        "too_deep"
    );
}

#[test]
fn b10_a_million_keys_and_elements_are_one_row() {
    use std::fmt::Write as _;
    let mut keys = String::from("{");
    for i in 0..1_000_000 {
        write!(keys, "\"k{i}\":{i},").unwrap();
    }
    keys.push_str("\"status\":\"active\"}");
    let change = row(&update(r#"{"status":"draft"}"#, &keys));
    assert!(change.changed("status"));
    assert_eq!(change.new_json().map(str::len), Some(keys.len()));

    let list = format!("[{}0]", "0,".repeat(1_000_000));
    assert!(decode_data(update("null", &list)).is_ok());
}

#[test]
fn b10_members_that_come_twice_are_refused_where_they_decide() {
    let whole = update("null", "{}");
    for (find, twice) in [
        (r#""id":"#, r#""id":"other","id":"#),
        (r#""op":"#, r#""op":"INSERT","op":"#),
        (r#""event":"#, r#""event":null,"event":"#),
        (r#""new":"#, r#""new":{"id":2},"new":"#),
    ] {
        let data = whole.replace(find, twice);
        assert_eq!(decode_data(data).unwrap_err(), "not_an_event", "{twice}");
    }
    let body = wrap(&whole).replace(r#""data":"#, r#""data":"e30=","data":"#);
    assert_eq!(decode(body).unwrap_err(), "bad_envelope");
}

#[test]
fn b15_large_messages_decode() {
    for megabytes in [1, 3] {
        let text = "x".repeat(megabytes * 1_000_000);
        let new = format!(r#"{{"id":"c1","notes":"{text}"}}"#);
        assert_eq!(row(&update("null", &new)).new_json(), Some(&*new));
    }
}

#[test]
fn rows_share_the_memory_of_the_delivery() {
    let decoded = decode_data(update(r#"{"a":1}"#, r#"{"a":2}"#)).unwrap();
    let Body::Row(change) = &decoded.body else {
        panic!("not a row");
    };
    let data = decoded.delivery.data.as_ptr_range();
    for json in [change.old_json(), change.new_json()] {
        let start = json.unwrap().as_ptr();
        assert!(data.contains(&start), "the row was copied");
    }
}

#[test]
fn white_space_and_escapes_anywhere_are_taken() {
    let data = event("INSERT", "null", r#"{"id":1}"#).replace(':', " \n:\t\r ");
    assert!(decode_data(data.replace("07 \n:\t\r 14 \n:\t\r 21", "07:14:21")).is_ok());
    let data = event("INSERT", "null", "{}")
        .replace("INSERT", r"\u0049NSERT")
        .replace("\"table\"", r#""t\u0061ble""#);
    let decoded = decode_data(data).unwrap();
    assert_eq!(decoded.event_type.as_str(), "contracts.insert");

    let data = BASE64_STANDARD.encode(update("null", "{}"));
    let escaped: String = data.bytes().map(|b| format!("\\u{b:04x}")).collect();
    let body = format!(r#"{{"message":{{"data":"{escaped}"}}}}"#);
    assert!(decode(body).is_ok());
}
