//! Row S4 over HTTP, and with the service and the command line as they are run.

use hookyard::sandbox::{ADMIN_TOKEN, loopback_client};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::admin_access::{Operator, operator};
use crate::support::{
    Behaviour, PATIENCE, Probe, TestApp, TestDatabase, Town, both_databases, customer_event, event,
    probe_event,
};

both_databases!(
    s4_an_erasure_counts_first_and_then_takes_out,
    s4_an_erasure_that_cannot_be_meant_is_refused,
    s4_a_running_service_erases_and_nothing_comes_back,
);

const PERSON: &str = "someone.else@example.com";

fn about_them(id: &str) -> String {
    probe_event(id).replace("\"new\":{}", &format!("\"new\":{{\"mail\":\"{PERSON}\"}}"))
}

/// Whatever is shown to somebody who may see all.
async fn shown(operator: &Operator<'_>) -> String {
    let list = operator.get("/dead-letters?status=all").await.json();
    let mut shown = operator.get("/explain/one").await.text();
    for letter in list["dead_letters"].as_array().unwrap() {
        let id = letter["id"].as_str().unwrap();
        let path = format!("/dead-letters/{id}?payload=true");
        shown.push_str(&operator.get(&path).await.text());
    }
    shown + &operator.get("/audit").await.text()
}

async fn s4_an_erasure_counts_first_and_then_takes_out(database: TestDatabase) {
    let probe = Probe::that([Behaviour::FailForGood; 3]);
    let app = TestApp::builder()
        .database(&database)
        .handler(probe.clone());
    let app = app.start().await;
    for event in [about_them("one"), about_them("two"), probe_event("others")] {
        assert_eq!(app.push(&event).await.status, 200);
    }
    let operator = operator(&app).header("x-hookyard-actor", "Ann");
    let mut ask = json!({"reason": "ticket 4711", "subject": PERSON, "dry_run": true});

    let counted = operator.post("/erasures", &ask).await;
    let before = shown(&operator).await;
    ask["dry_run"] = json!(false);
    let erased = operator.post("/erasures", &ask).await;

    let expected = |dry_run: bool| {
        json!({"events": 0, "dead_letters": 2, "outbox": 0, "subjects": 0, "waiting": 0,
            "dry_run": dry_run})
    };
    let answers = [counted, erased].map(|it| (it.status.as_u16(), it.json()));
    assert_eq!(answers, [(200, expected(true)), (200, expected(false))]);
    assert!(before.contains(PERSON), "{before}");
    let after = shown(&operator).await;
    assert!(!after.contains(PERSON), "{after}");
    let discarded = operator.get("/dead-letters?status=discarded").await.json();
    assert_eq!(discarded["total"], 2);
    let open = operator.get("/dead-letters").await.json();
    assert_eq!(open["dead_letters"][0]["event_id"], "others", "{open}");
    let audit = operator.get("/audit?limit=1000").await.json();
    let entries = audit["entries"].as_array().unwrap();
    let erasures: Vec<&Value> = entries
        .iter()
        .filter(|it| it["action"] == "erase")
        .collect();
    assert_eq!(erasures.len(), 1, "{audit}");
    assert_eq!(
        (&erasures[0]["actor"], &erasures[0]["reason"]),
        (&json!("Ann"), &json!("ticket 4711"))
    );

    // The id is remembered, so that a late copy does not bring it back.
    assert_eq!(app.push(&about_them("one")).await.status, 200);
    assert_eq!(probe.runs(), 3);
    assert!(!shown(&operator).await.contains(PERSON));
}

async fn s4_an_erasure_that_cannot_be_meant_is_refused(database: TestDatabase) {
    let app = TestApp::builder().database(&database).start().await;
    let operator = operator(&app);
    for (body, code, field) in [
        (json!({"subject": PERSON}), "reason_missing", "reason"),
        (json!({"reason": "r"}), "invalid_request", "event_id"),
        (
            json!({"reason": "r", "subject": "short"}),
            "invalid_request",
            "subject",
        ),
        (
            json!({"reason": "r", "subject": PERSON, "event_id": "e"}),
            "invalid_request",
            "event_id",
        ),
        (
            json!({"reason": "r", "subjects": [PERSON]}),
            "bad_body",
            "subjects",
        ),
        (
            json!({"reason": "r", "subject": PERSON, "dry_run": "yes"}),
            "bad_body",
            "dry_run",
        ),
    ] {
        let answer = operator.post("/erasures", &body).await;

        let error = &answer.json()["error"];
        assert_eq!(answer.status, 400, "{body}: {error}");
        assert_eq!(
            (&error["code"], &error["field"]),
            (&json!(code), &json!(field)),
            "{body}"
        );
        assert!(!answer.text().contains(PERSON), "{error}");
    }
    let audit = operator.get("/audit").await.json();
    assert_eq!(audit["entries"], json!([]));
}

async fn s4_a_running_service_erases_and_nothing_comes_back(database: TestDatabase) {
    let town = Town::on(database).await;
    let mut service = town.start().await;
    let row = format!(r#"{{"id":"c-1","subscription_id":"s-1","status":7,"notes":"{PERSON}"}}"#);
    let broken = event("broken", "contracts", "UPDATE", "null", &row);
    let gone = customer_event("gone", "DELETE", PERSON, "A");
    for event in [&broken, &gone] {
        town.push_until_taken(&service, event).await;
    }
    town.wait_for_published(1).await;
    town.wait_until_relayed().await;

    let client = loopback_client(PATIENCE).unwrap();
    let url = format!("http://{}/erasures", service.address);
    let body = json!({"reason": "asked to be forgotten", "subject": PERSON}).to_string();
    let answer = client.post(&url).bearer_auth(ADMIN_TOKEN).body(body);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let erased: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    // Two handlers gave the first up, the second was announced downstream.
    assert_eq!(
        (&erased["dead_letters"], &erased["waiting"]),
        (&json!(2), &json!(0)),
        "{erased}"
    );
    assert!(erased["outbox"].as_i64() >= Some(1), "{erased}");

    service.kill().await;
    let left = by_hand(
        &town.database,
        &["erase", PERSON, "--dry-run", "--json", "-r", "look"],
    );
    let left: Value = serde_json::from_str(&left.await).unwrap();
    let nothing = ["events", "dead_letters", "outbox", "subjects"].map(|table| &left[table]);
    assert_eq!(nothing, [&json!(0); 4], "{left}");
    let audit = by_hand(&town.database, &["audit", "--json"]).await;
    assert!(
        audit.contains("erase") && !audit.contains(PERSON),
        "{audit}"
    );

    // Copies that come late find that both have ended.
    let service = town.start().await;
    for event in [&broken, &gone] {
        town.push_until_taken(&service, event).await;
    }
    town.wait_until_relayed().await;
    assert_eq!(town.published_ids().len(), 1);
    let listed = service.get(ADMIN_TOKEN, "/dead-letters?status=all").await;
    let listed: Value = serde_json::from_str(&listed.unwrap()).unwrap();
    assert_eq!(listed["total"], 2, "{listed}");
    let logs = town.fleet.logs().join("\n");
    assert!(!logs.contains(PERSON), "{logs}");
}

/// Runs `hookyard` on the database.
async fn by_hand(database: &TestDatabase, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", database.url())
        .env("USER", "ann")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
