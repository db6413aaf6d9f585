//! The desk over HTTP and from the command line: find, understand, retry, discard.

use std::process::Output;
use std::time::Duration;

use hookyard::store::Pool;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::process::Command;

use crate::admin_access::{get, operator};
use crate::support::{
    Behaviour, Probe, TestApp, TestDatabase, both_databases, eventually, probe_event,
};

both_databases!(
    a_failed_event_is_found_understood_retried_and_gone,
    s5_a_change_is_audited_with_who_and_why,
    a_payload_is_shown_when_it_is_asked_for_and_that_is_audited,
    nothing_begins_when_more_is_meant_than_was_shown,
    the_command_line_does_the_same_while_the_service_is_down,
    the_command_line_changes_nothing_unasked,
    tables_are_made_by_hand_and_only_once,
    an_event_of_the_table_runs_when_it_is_asked_for,
);

const CANARY: &str = "canary-in-a-row";

/// A service whose handler refuses so many events and then takes everything.
async fn app(database: &TestDatabase, refuses: usize) -> TestApp {
    let refused = std::iter::repeat_n(Behaviour::FailForGood, refuses);
    let script = refused.chain(std::iter::repeat_n(Behaviour::Succeed, 100));
    let app = TestApp::builder()
        .database(database)
        .handler(Probe::that(script));
    app.start().await
}

fn event_with_canary(id: &str) -> String {
    probe_event(id).replace("\"new\":{}", &format!("\"new\":{{\"note\":\"{CANARY}\"}}"))
}

/// Waits until a redrive is over.
async fn finished(app: &TestApp, id: &str) -> Value {
    let mut redrive = Value::Null;
    let what = || "the redrive does not end".to_owned();
    eventually(what, async || {
        redrive = get(app, &format!("/redrives/{id}")).await;
        redrive["state"] != "running"
    })
    .await;
    redrive
}

async fn a_failed_event_is_found_understood_retried_and_gone(database: TestDatabase) {
    let app = app(&database, 2).await;
    for id in ["one", "two", "three"] {
        assert_eq!(app.push(&event_with_canary(id)).await.status, 200);
    }

    let status = get(&app, "/status").await;
    assert_eq!(status["dead_letters"]["open"], 2, "{status}");
    let groups = get(&app, "/dead-letters/groups").await;
    let group = &groups["groups"][0];
    assert_eq!(group["count"], 2, "{groups}");
    assert_eq!(group["error_code"], "probe_refuses");
    let fingerprint = group["fingerprint"].as_str().unwrap();
    let list = get(
        &app,
        &format!("/dead-letters?fingerprint={fingerprint}&limit=1"),
    )
    .await;
    assert_eq!(list["total"], 2);
    assert_eq!(list["dead_letters"][0]["event_id"], "two");
    let next = list["next"].as_str().unwrap();
    let rest = get(
        &app,
        &format!("/dead-letters?fingerprint={fingerprint}&cursor={next}"),
    )
    .await;
    assert_eq!(rest["dead_letters"][0]["event_id"], "one");
    let id = rest["dead_letters"][0]["id"].as_str().unwrap();
    let detail = get(&app, &format!("/dead-letters/{id}")).await;
    assert_eq!(detail["handler"], "probe");
    let story = get(&app, "/explain/one").await;
    assert_eq!(story["events"][0]["dead_letters"][0]["id"], id, "{story}");
    for shown in [status, groups.clone(), list, rest.clone(), detail, story] {
        assert!(!shown.to_string().contains(CANARY), "{shown}");
    }

    let ask = json!({"dry_run": true, "select": {"fingerprint": fingerprint}});
    let preview = operator(&app)
        .post("/dead-letters/redrive", &ask)
        .await
        .json();
    assert_eq!(preview["count"], 2, "{preview}");
    let ask = json!({"reason": "mended", "select": {"fingerprint": fingerprint}, "expected": 2, "per_second": 1000});
    let answer = operator(&app).post("/dead-letters/redrive", &ask).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let redrive = finished(&app, answer.json()["id"].as_str().unwrap()).await;

    assert_eq!(
        (&redrive["done"], &redrive["failed"]),
        (&json!(2), &json!(0)),
        "{redrive}"
    );
    assert_eq!(get(&app, "/dead-letters").await["total"], 0);
    let all = get(&app, "/dead-letters?status=redriven").await;
    assert_eq!(all["total"], 2);
}

async fn s5_a_change_is_audited_with_who_and_why(database: TestDatabase) {
    let app = app(&database, 3).await;
    for id in ["one", "two", "three"] {
        app.push(&probe_event(id)).await;
    }
    let list = get(&app, "/dead-letters").await;
    let id = |n: usize| list["dead_letters"][n]["id"].as_str().unwrap();
    let ann = operator(&app).header("x-hookyard-actor", "Ann");

    let discard = format!("/dead-letters/{}/discard", id(0));
    let answer = ann.post(&discard, &json!({"reason": " a test "})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"count": 1}))
    );
    let redrive = format!("/dead-letters/{}/redrive", id(1));
    let answer = ann.post(&redrive, &json!({"reason": "again"})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    finished(&app, answer.json()["id"].as_str().unwrap()).await;
    let edit = format!("/dead-letters/{}/edit", id(2));
    let body = json!({"reason": "corrected", "payload": probe_event("any")});
    let answer = operator(&app).post(&edit, &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    finished(&app, answer.json()["redrive_id"].as_str().unwrap()).await;
    let again = ann.post(&discard, &json!({"reason": "twice"})).await;
    assert!(
        matches!(again.status.as_u16(), 200 | 409),
        "{}",
        again.text()
    );

    assert_eq!(get(&app, "/dead-letters").await["total"], 0);
    let audit = get(&app, "/audit").await;
    let entries = audit["entries"].as_array().unwrap();
    let who = |reason: &str| {
        let entry = entries.iter().find(|entry| entry["reason"] == reason);
        entry.map(|entry| entry["actor"].as_str().unwrap())
    };
    assert_eq!(who("a test"), Some("Ann"), "{audit}");
    assert_eq!(who("again"), Some("Ann"), "{audit}");
    assert_eq!(who("corrected"), Some("admin"), "{audit}");
}

async fn a_payload_is_shown_when_it_is_asked_for_and_that_is_audited(database: TestDatabase) {
    let app = app(&database, 1).await;
    app.push(&event_with_canary("one")).await;
    let list = get(&app, "/dead-letters").await;
    let id = list["dead_letters"][0]["id"].as_str().unwrap();

    let plain = get(&app, &format!("/dead-letters/{id}?payload=false")).await;
    let with = get(&app, &format!("/dead-letters/{id}?payload=true")).await;

    assert!(!plain.to_string().contains(CANARY), "{plain}");
    assert_eq!(with["payload"]["text"], event_with_canary("one"));
    let audit = get(&app, "/audit").await;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 1, "{audit}");
    assert_eq!(audit["entries"][0]["action"], "dead_letter.read");
    assert_eq!(audit["entries"][0]["target"], id);
}

async fn nothing_begins_when_more_is_meant_than_was_shown(database: TestDatabase) {
    let app = app(&database, 2).await;
    for id in ["one", "two"] {
        app.push(&probe_event(id)).await;
    }
    for path in ["/dead-letters/redrive", "/dead-letters/discard"] {
        let ask = json!({"reason": "x", "select": {"handler": "probe"}, "expected": 1});
        let answer = operator(&app).post(path, &ask).await;
        assert_eq!(answer.status, 409, "{path}: {}", answer.text());
    }
    assert_eq!(get(&app, "/dead-letters").await["total"], 2);
    assert_eq!(get(&app, "/redrives").await["redrives"], json!([]));
}

/// Runs `hookyard` as somebody at a shell would, without a terminal.
pub(crate) async fn hookyard(database: &TestDatabase, arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", database.url())
        .env("USER", "ann")
        .stdin(std::process::Stdio::null())
        .output();
    tokio::time::timeout(Duration::from_secs(60), command)
        .await
        .unwrap()
        .unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn ask(database: &TestDatabase, arguments: &[&str]) -> Value {
    let output = hookyard(database, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn the_command_line_does_the_same_while_the_service_is_down(database: TestDatabase) {
    let app = app(&database, 3).await;
    for id in ["one", "two", "three"] {
        app.push(&event_with_canary(id)).await;
    }
    app.running.shutdown().await;

    let status = ask(&database, &["status"]).await;
    assert_eq!(status["dead_letters"]["open"], 3);
    let shown = out(&hookyard(&database, &["status"]).await);
    assert!(shown.contains("3 open"), "{shown}");
    let shown = out(&hookyard(&database, &["dead-letters", "groups"]).await);
    assert!(
        shown.contains("probe_refuses") && shown.contains("3 dead letters in 1 group"),
        "{shown}"
    );
    let list = ask(
        &database,
        &[
            "dead-letters",
            "list",
            "--handler",
            "probe",
            "--since",
            "1h",
        ],
    )
    .await;
    assert_eq!(list["total"], 3);
    let id = list["dead_letters"][0]["id"].as_str().unwrap();
    let shown = out(&hookyard(&database, &["dead-letters", "show", id]).await);
    assert!(
        shown.contains("three") && !shown.contains(CANARY),
        "{shown}"
    );
    let shown = out(&hookyard(&database, &["dead-letters", "show", id, "--payload"]).await);
    assert!(shown.contains(CANARY), "{shown}");
    let shown = out(&hookyard(&database, &["explain", "three"]).await);
    assert!(shown.contains("└─") && shown.contains("probe"), "{shown}");
    let shown = out(&hookyard(
        &database,
        &["dead-letters", "redrive", "--all", "--dry-run"],
    )
    .await);
    assert!(shown.contains("3 dead letters"), "{shown}");
    let discard = ["dead-letters", "discard", id, "--reason", "a test", "--yes"];
    assert_eq!(ask(&database, &discard).await, json!({"count": 1}));
    let redrive = [
        "dead-letters",
        "redrive",
        "--all",
        "-r",
        "later",
        "-y",
        "--detach",
    ];
    let begun = ask(&database, &redrive).await;
    assert_eq!(
        (&begun["total"], &begun["state"]),
        (&json!(2), &json!("running"))
    );
    let id = begun["id"].as_str().unwrap();
    let shown = out(&hookyard(&database, &["redrives", "show", id]).await);
    assert!(
        shown.contains("waiting for an instance of the service"),
        "{shown}"
    );
    let stopped = ask(&database, &["redrives", "abort", id, "-r", "wrong", "-y"]).await;
    assert_eq!(stopped["state"], "aborted");
    let shown = out(&hookyard(&database, &["redrives", "list"]).await);
    assert!(
        shown.contains("aborted") && shown.contains("later"),
        "{shown}"
    );
    let shown = out(&hookyard(&database, &["audit"]).await);
    for what in [
        "dead_letter.discard",
        "dead_letter.read",
        "redrive.start",
        "redrive.abort",
        "ann",
    ] {
        assert!(shown.contains(what), "{what}: {shown}");
    }
}

async fn the_command_line_changes_nothing_unasked(database: TestDatabase) {
    let app = app(&database, 1).await;
    app.push(&probe_event("one")).await;

    let all = ["dead-letters", "redrive", "--all"];
    let why = failure(&hookyard(&database, &all).await);
    assert!(why.contains("--reason"), "{why}");
    let no_answer = [&all[..], &["--reason", "x"]].concat();
    let why = failure(&hookyard(&database, &no_answer).await);
    assert!(why.contains("--yes"), "{why}");
    for nothing in [["dead-letters", "redrive"], ["dead-letters", "discard"]] {
        let why = failure(&hookyard(&database, &[&nothing[..], &["-r", "x", "-y"]].concat()).await);
        assert!(why.contains("say which"), "{why}");
    }
    let why = failure(&hookyard(&database, &["explain", "nothing-of-this-name"]).await);
    assert!(why.contains("there is no such"), "{why}");
    let why = failure(&hookyard(&database, &["dead-letters", "list", "--limit", "0"]).await);
    assert!(why.contains("limit"), "{why}");

    assert_eq!(get(&app, "/dead-letters").await["total"], 1);
    assert_eq!(get(&app, "/audit").await["entries"], json!([]));
}

async fn tables_are_made_by_hand_and_only_once(database: TestDatabase) {
    let why = failure(&hookyard(&database, &["status"]).await);
    assert!(why.contains("hookyard migrate"), "{why}");
    let looked = hookyard(&database, &["migrate", "--dry-run"]).await;
    assert_eq!(looked.status.code(), Some(2));
    assert!(out(&looked).contains("missing"), "{looked:?}");

    let first = out(&hookyard(&database, &["migrate"]).await);
    let second = out(&hookyard(&database, &["migrate"]).await);

    assert!(first.contains("0001 durable: applied"), "{first}");
    assert!(
        second.contains("0001 durable: was there") && !second.contains("applied"),
        "{second}"
    );
    assert_eq!(ask(&database, &["status"]).await["dead_letters"]["open"], 0);
}

async fn an_event_of_the_table_runs_when_it_is_asked_for(database: TestDatabase) {
    // It does not work off the table by itself.
    let app = app(&database, 0).await;
    let id = uuid::Uuid::new_v4();
    let sql = format!(
        "INSERT INTO events (id, event_type, payload, next_attempt_at) \
         VALUES ('{id}', 'probes.update', '{{}}', {})",
        i64::MAX
    );
    match database.store().await.pool() {
        Pool::Sqlite { write, .. } => {
            sqlx::query(AssertSqlSafe(sql))
                .execute(write)
                .await
                .unwrap();
        }
        Pool::Postgres(pool) => {
            sqlx::query(AssertSqlSafe(sql)).execute(pool).await.unwrap();
        }
    }
    let body = json!({"event_id": id});

    let answer = operator(&app).post("/process-event", &body).await;

    let started = json!({"success": true, "message": "Event processing started", "event_id": id});
    assert_eq!((answer.status.as_u16(), answer.json()), (202, started));
    eventually(
        || "it did not run".to_owned(),
        async || {
            let story = operator(&app).get(&format!("/explain/{id}")).await.json();
            story["events"][0]["kept"]["status"] == "done"
        },
    )
    .await;
    let again = operator(&app).post("/process-event", &body).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["error"]["code"]),
        (409, &json!("already_processed"))
    );
    let nobody = json!({"event_id": uuid::Uuid::new_v4()});
    assert_eq!(
        operator(&app).post("/process-event", &nobody).await.status,
        404
    );
    let batch = operator(&app).post("/process-batch", &json!({})).await;
    let started = json!({"success": true, "message": "Batch processing started"});
    assert_eq!((batch.status.as_u16(), batch.json()), (202, started));
}
