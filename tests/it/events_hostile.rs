//! Rows of `events` that nobody expects: each ends, and holds up no other.

use std::time::Duration;

use hookyard::clock::{ManualClock, SystemClock};
use hookyard::error::Result;
use hookyard::event::contracts::DomainEvent;
use hookyard::pipeline::{Completion, Context, Handler, Json};
use hookyard::store::{Store, Write};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::support::hands::{done, hands, left, settings, until, worker};
use crate::support::rows::{EventRow, row_state, uuid};
use crate::support::{TestApp, TestDatabase, both_databases, execute};

both_databases!(
    a_row_of_any_time_is_run_and_holds_nobody_up,
    the_desk_answers_whatever_the_times_of_rows_are,
    a_row_of_any_payload_is_run_and_holds_nobody_up,
    a_statement_that_the_tables_owner_refuses_ends_its_row_only,
    a_long_correlation_id_holds_nobody_up,
    a_run_that_is_cut_off_counts_as_a_try,
);

#[derive(Serialize)]
struct Echoed {
    said: Value,
}

impl DomainEvent for Echoed {
    const TYPE: &'static str = "thing.echoed";

    fn subject(&self) -> String {
        "thing".to_owned()
    }
}

/// Says again what it is told.
struct Echo;

impl Handler for Echo {
    const NAME: &'static str = "echo";
    const EVENTS: &'static [&'static str] = &["thing.said"];
    const ABOUT: &'static str = "says it again";
    type Payload = Json<Value>;

    async fn handle(&self, cx: &Context, Json(said): Self::Payload) -> Result<Completion> {
        cx.emit(&Echoed { said })?;
        Ok(Completion::Done)
    }
}

/// Writes into a table whose owner does not want it.
struct Unwanted;

impl Handler for Unwanted {
    const NAME: &'static str = "unwanted";
    const EVENTS: &'static [&'static str] = &["thing.unwanted"];
    const ABOUT: &'static str = "writes where it may not";
    type Payload = Json<Value>;

    async fn handle(&self, cx: &Context, Json(_): Self::Payload) -> Result<Completion> {
        cx.write(Write::new("INSERT INTO guarded (n) VALUES (1)"))?;
        Ok(Completion::Done)
    }
}

/// Times that a column takes, and few programs.
const POSTGRES_TIMES: [&str; 6] = [
    "infinity",
    "-infinity",
    "55840-01-01",
    "294276-12-31",
    "4700-01-01 BC",
    "0001-01-01",
];
const SQLITE_TIMES: [&str; 6] = [
    "infinity",
    "",
    "55840-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "-4700-01-01",
    "0000-01-01",
];

fn times(database: &TestDatabase) -> [&'static str; 6] {
    match database.is_postgres() {
        true => POSTGRES_TIMES,
        false => SQLITE_TIMES,
    }
}

/// Rows of each of these times, two of an aggregate of its own.
async fn insert(store: &Store, kind: &str, times: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for time in times {
        let aggregate = uuid();
        for _ in 0..2 {
            let row = EventRow::new(kind).of(&aggregate);
            let id = row.id.clone();
            let sql = format!(
                "INSERT INTO events (id, event_type, aggregate_id, payload, created_at) \
                 VALUES ('{id}', '{kind}', '{aggregate}', '{{\"n\": 1}}', '{time}')"
            );
            execute(store, &sql).await;
            ids.push(id);
        }
    }
    ids
}

async fn app(database: &TestDatabase) -> TestApp {
    TestApp::builder()
        .database(database)
        .handler(Echo)
        .handler(Unwanted)
        .variable("ENABLE_POLLING", "true")
        .variable("POLL_INTERVAL_MS", "50")
        .start()
        .await
}

async fn a_row_of_any_time_is_run_and_holds_nobody_up(database: TestDatabase) {
    let app = app(&database).await;
    let store = database.connect(SystemClock::shared());
    let said = insert(&store, "thing.said", &times(&database)).await;
    let unknown = insert(&store, "nobody.cares", &times(&database)).await;
    let ordinary = EventRow::new("thing.said").insert(&store).await;

    until("all ended", async || left(&store).await == 0).await;

    for id in said.iter().chain([&ordinary]) {
        assert_eq!(row_state(&store, id).await.status, "done");
    }
    for id in &unknown {
        assert_eq!(row_state(&store, id).await.status, "unrouted");
    }
    app.wait_for_events(said.len() + 1).await;
}

async fn the_desk_answers_whatever_the_times_of_rows_are(database: TestDatabase) {
    let app = TestApp::builder().database(&database).start().await;
    let store = database.connect(SystemClock::shared());
    let ids = insert(&store, "thing.said", &times(&database)).await;
    let first = format!("/explain/{}", ids[0]);
    for path in ["/status", first.as_str(), "/metrics"] {
        assert_eq!(app.get(path).await.status, StatusCode::OK, "{path}");
    }
    for id in &ids {
        let path = format!("/explain/{id}");
        assert_eq!(app.get(&path).await.status, StatusCode::OK);
    }
}

async fn a_row_of_any_payload_is_run_and_holds_nobody_up(database: TestDatabase) {
    let app = app(&database).await;
    let store = database.connect(SystemClock::shared());
    let big = format!(r#"{{"text":"{}"}}"#, "x".repeat(1 << 20));
    let payloads = [
        "null",
        "[]",
        "1e400",
        "\"\"",
        r#"{"a":{"a":{"a":[]}}}"#,
        &big,
    ];
    let mut ids = Vec::new();
    for payload in payloads {
        let row = EventRow::new("thing.said").of(&uuid()).payload(payload);
        ids.push(row.insert(&store).await);
    }
    let metadata = [
        "null",
        "[]",
        "3",
        r#"{"correlation_id":null}"#,
        r#"{"correlation_id":"\n"}"#,
    ];
    for metadata in metadata {
        let row = EventRow::new("thing.said").of(&uuid()).metadata(metadata);
        ids.push(row.insert(&store).await);
    }

    until("all ended", async || left(&store).await == 0).await;

    drop(app);
}

async fn a_statement_that_the_tables_owner_refuses_ends_its_row_only(database: TestDatabase) {
    let _app = app(&database).await;
    let store = database.connect(SystemClock::shared());
    execute(&store, "CREATE TABLE guarded (n INTEGER)").await;
    let guard = match database.is_postgres() {
        true => {
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'not you: %', NEW.n; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION refuse()"
        }
        false => {
            "CREATE TRIGGER refuse BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, 'not you'); \
             END"
        }
    };
    execute(&store, guard).await;
    let aggregate = uuid();
    let unwanted = EventRow::new("thing.unwanted").of(&aggregate).at(1);
    let unwanted = unwanted.insert(&store).await;
    let later = EventRow::new("thing.said").of(&aggregate).at(2);
    let later = later.insert(&store).await;

    until("all ended", async || left(&store).await == 0).await;

    assert_eq!(row_state(&store, &unwanted).await.status, "dead_lettered");
    assert_eq!(row_state(&store, &later).await.status, "done");
}

async fn a_long_correlation_id_holds_nobody_up(database: TestDatabase) {
    let app = app(&database).await;
    let store = database.connect(SystemClock::shared());
    // Of a kind that does not get shorter when it is compressed.
    let long: String = (0..500).map(|_| uuid()).collect();
    let metadata = format!(r#"{{"correlation_id":"{long}"}}"#);
    let mut ids = Vec::new();
    for kind in ["thing.said", "nobody.cares", "thing.said"] {
        let row = EventRow::new(kind).of(&uuid()).metadata(&metadata);
        ids.push(row.insert(&store).await);
    }

    until("all ended", async || left(&store).await == 0).await;

    for (id, status) in ids.iter().zip(["done", "unrouted", "done"]) {
        assert_eq!(row_state(&store, id).await.status, status);
    }
    let attribute = [("ce-correlationid".to_owned(), long)];
    let named = [("ce-id", "long"), ("ce-type", "thing.said")];
    let named = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let attributes: Vec<_> = named.into_iter().chain(attribute).collect();
    let answer = app.push_message(b"{}", &attributes).await;
    assert_eq!(answer.status, StatusCode::OK);
}

async fn a_run_that_is_cut_off_counts_as_a_try(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let (rows, _) = hands(|row| async move {
        assert_ne!(row.event_type, "cut.off", "nothing catches this");
        done()
    });
    let aggregate = uuid();
    let cut_off = EventRow::new("cut.off").of(&aggregate).at(1);
    let cut_off = cut_off.insert(&store).await;
    let later = EventRow::new("a").of(&aggregate).at(2).insert(&store).await;
    let worker = worker(&store, rows, settings());

    for attempt in 1..5 {
        worker.turn().await.unwrap();
        assert_eq!(row_state(&store, &cut_off).await.attempts, attempt);
        clock.advance(Duration::from_secs(60));
    }
    worker.turn().await.unwrap();

    assert_eq!(row_state(&store, &cut_off).await.status, "dead_lettered");
    assert_eq!(row_state(&store, &later).await.status, "done");
}
