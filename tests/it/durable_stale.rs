//! Row C10: changes of one row that come in any order, twice and to any instance end in the
//! newest state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hookyard::error::Result;
use hookyard::event::{Change, Op};
use hookyard::pipeline::{Completion, Context, Handler, Stale};
use http::StatusCode;
use serde::Deserialize;

use crate::support::{TestApp, TestDatabase, both_databases, event, texts};

both_databases!(
    c10_changes_in_any_order_end_in_the_newest_state,
    c10_what_came_too_late_is_skipped_and_says_why,
    c10_rows_and_handlers_are_kept_apart,
);

/// What the handlers write to: the last write wins.
type Outside = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// Copies a row's status, whatever was there.
#[derive(Clone, Default)]
struct Copies(Outside);

/// The same, without asking for late changes to be skipped.
#[derive(Clone, Default)]
struct CopiesAll(Outside);

#[derive(Deserialize)]
struct Row {
    id: String,
    status: String,
}

fn copy(outside: &Outside, change: &Change<Row>) -> Result<Completion> {
    let row = change.row()?;
    let status = if change.op == Op::Delete {
        "gone"
    } else {
        &row.status
    };
    let mut outside = outside.lock().unwrap();
    outside
        .entry(row.id.clone())
        .or_default()
        .push(status.to_owned());
    Ok(Completion::Done)
}

impl Handler for Copies {
    const NAME: &'static str = "copies";
    const EVENTS: &'static [&'static str] = &["goods.insert", "goods.update", "goods.delete"];
    const ABOUT: &'static str = "Copies the status";
    const STALE: Stale = Stale::Skip;
    type Payload = Change<Row>;

    async fn handle(&self, _cx: &Context, change: Change<Row>) -> Result<Completion> {
        copy(&self.0, &change)
    }
}

impl Handler for CopiesAll {
    const NAME: &'static str = "copies_all";
    const EVENTS: &'static [&'static str] = &["goods.update"];
    const ABOUT: &'static str = "Copies every status";
    type Payload = Change<Row>;

    async fn handle(&self, _cx: &Context, change: Change<Row>) -> Result<Completion> {
        copy(&self.0, &change)
    }
}

/// The change of a row at a second of one minute.
fn change(row: &str, op: &str, second: u32) -> String {
    let json = format!(r#"{{"id":"{row}","status":"at-{second}"}}"#);
    let (old, new) = match op {
        "INSERT" => ("null", json.as_str()),
        "DELETE" => (json.as_str(), "null"),
        _ => (json.as_str(), json.as_str()),
    };
    let id = format!("{row}-{second}");
    let text = event(&id, "goods", op, old, new);
    let at = format!(r#""created_at":"2026-01-05T10:00:{second:02}.601701Z""#);
    text.replace(r#""created_at":"2026-01-05T10:00:00.601701Z""#, &at)
}

const HISTORY: [(&str, u32); 4] = [("INSERT", 1), ("UPDATE", 2), ("UPDATE", 3), ("DELETE", 4)];

/// Every order of four things.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for n in 0..256_usize {
        let order = [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6];
        let mut sorted = order;
        sorted.sort_unstable();
        if sorted == [0, 1, 2, 3] {
            orders.push(order);
        }
    }
    orders
}

async fn start(database: &TestDatabase, outside: &Outside) -> TestApp {
    let app = TestApp::builder().database(database);
    app.handler(Copies(outside.clone())).start().await
}

async fn c10_changes_in_any_order_end_in_the_newest_state(database: TestDatabase) {
    let outside = Outside::default();
    let instances = [
        start(&database, &outside).await,
        start(&database, &outside).await,
    ];
    let orders = orders();
    assert_eq!(orders.len(), 24);

    for (number, order) in orders.iter().enumerate() {
        let row = format!("row-{number}");
        for (place, index) in order.iter().enumerate() {
            let (op, second) = HISTORY[*index];
            let change = change(&row, op, second);
            for instance in [place % 2, (place + number) % 2] {
                let answer = instances[instance].push(&change).await;
                assert_eq!(answer.status, StatusCode::OK);
            }
        }
    }

    for (row, written) in outside.lock().unwrap().iter() {
        assert_eq!(written.last().map(String::as_str), Some("gone"), "{row}");
        assert!(written.is_sorted(), "{row}: {written:?}");
    }
}

async fn c10_what_came_too_late_is_skipped_and_says_why(database: TestDatabase) {
    let outside = Outside::default();
    let app = start(&database, &outside).await;

    app.push(&change("late", "UPDATE", 3)).await;
    app.push(&change("late", "UPDATE", 2)).await;

    assert_eq!(outside.lock().unwrap()["late"], ["at-3"]);
    let store = database.store().await;
    let sql = "SELECT outcome || ': ' || reason FROM inbox WHERE event_id = 'late-2'";
    let reason = "skipped: a newer change of this row was handled before";
    assert_eq!(texts(&store, sql).await, [reason]);
}

async fn c10_rows_and_handlers_are_kept_apart(database: TestDatabase) {
    let (outside, all) = (Outside::default(), Outside::default());
    let app = TestApp::builder()
        .database(&database)
        .handler(Copies(outside.clone()))
        .handler(CopiesAll(all.clone()));
    let app = app.start().await;

    app.push(&change("one", "UPDATE", 3)).await;
    app.push(&change("other", "UPDATE", 2)).await;
    app.push(&change("one", "UPDATE", 2)).await;

    assert_eq!(outside.lock().unwrap()["other"], ["at-2"]);
    assert_eq!(all.lock().unwrap()["one"], ["at-3", "at-2"]);
}
