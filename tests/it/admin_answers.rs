//! What the admin API promises in docs/API.md about every route alike.

use serde_json::{Value, json};

use crate::admin_access::Operator;
use crate::desk_kit::{keep, letter};
use crate::support::{Answer, TestApp, TestDatabase, both_databases};

both_databases!(
    lists_of_redrives_go_on_where_the_page_before_ended,
    a_name_that_is_there_twice_is_refused,
    a_query_where_none_is_taken_is_refused,
    a_reason_may_have_a_thousand_characters_of_any_script,
    a_time_before_all_times_is_no_mistake,
    what_is_not_there_cannot_be_decided_on,
    no_answer_is_kept_by_a_cache,
);

const UNKNOWN: &str = "0c282ca4-c204-4a79-aa07-89d93eb93eff";

async fn app(database: &TestDatabase) -> TestApp {
    TestApp::builder()
        .database(database)
        .variable("ADMIN_TOKEN", "token")
        .start()
        .await
}

fn operator(app: &TestApp) -> Operator<'_> {
    Operator::with(app, "token")
}

fn refusal(answer: &Answer) -> (u16, Value) {
    let error = &answer.json()["error"];
    (answer.status.as_u16(), error["code"].clone())
}

async fn lists_of_redrives_go_on_where_the_page_before_ended(database: TestDatabase) {
    let app = app(&database).await;
    for n in 0..5 {
        let ask = json!({"reason": "x", "select": {"handler": format!("h{n}")}});
        let answer = operator(&app).post("/dead-letters/redrive", &ask).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    let mut seen = Vec::new();
    let mut path = "/redrives?limit=2".to_owned();
    loop {
        let page = operator(&app).get(&path).await.json();
        let redrives = page["redrives"].as_array().unwrap();
        seen.extend(
            redrives
                .iter()
                .map(|it| it["query"]["select"]["handler"].clone()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/redrives?limit=2&cursor={next}");
    }

    assert_eq!(seen, ["h4", "h3", "h2", "h1", "h0"]);
}

async fn a_name_that_is_there_twice_is_refused(database: TestDatabase) {
    let app = app(&database).await;
    for (path, body) in [
        (
            "/dead-letters/redrive",
            r#"{"reason":"x","dry_run":true,"all":true,"dry_run":false}"#,
        ),
        (
            "/dead-letters/redrive",
            r#"{"reason":"x","select":{"handler":"a","handler":"b"}}"#,
        ),
        (
            "/dead-letters/discard",
            r#"{"reason":"x","select":{"handler":"a"},"select":{}}"#,
        ),
        ("/process-batch", r#"{"reason":"x","reason":"y"}"#),
    ] {
        let answer = operator(&app).post_bytes(path, body).await;
        assert_eq!(refusal(&answer), (400, json!("bad_body")), "{path} {body}");
    }
}

async fn a_query_where_none_is_taken_is_refused(database: TestDatabase) {
    let app = app(&database).await;
    keep(&database.store().await, &[letter("e1")]).await;
    for path in [
        "/status",
        "/handlers",
        "/explain/e1",
        "/redrives/x",
        "/dead-letters/x",
    ] {
        let answer = operator(&app).get(&format!("{path}?dry_run=true")).await;
        assert_eq!(refusal(&answer), (400, json!("bad_query")), "{path}");
    }
    // Whoever puts it there believes that nothing is changed.
    for path in [
        "/dead-letters/redrive",
        "/dead-letters/discard",
        "/erasures",
        "/process-batch",
    ] {
        let ask = json!({"reason": "x", "select": {"handler": "shipping"}});
        let answer = operator(&app)
            .post(&format!("{path}?dry_run=true"), &ask)
            .await;
        assert_eq!(refusal(&answer), (400, json!("bad_query")), "{path}");
    }
    let open = operator(&app).get("/dead-letters").await.json();
    assert_eq!(open["total"], 1, "{open}");
}

async fn a_reason_may_have_a_thousand_characters_of_any_script(database: TestDatabase) {
    let app = app(&database).await;
    let ask = json!({"reason": "理".repeat(1000), "select": {"handler": "shipping"}});

    let answer = operator(&app).post("/dead-letters/discard", &ask).await;

    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn a_time_before_all_times_is_no_mistake(database: TestDatabase) {
    let app = app(&database).await;
    for since in ["0000-01-01T00:00:00Z", "0000-01-01T00:00:00+01:00"] {
        let select = json!({"since": since});
        for path in ["/replay", "/dead-letters/redrive"] {
            let ask = json!({"dry_run": true, "select": select});
            let answer = operator(&app).post(path, &ask).await;
            assert_eq!(answer.status, 200, "{path} {since}: {answer:?}");
        }
    }
}

async fn what_is_not_there_cannot_be_decided_on(database: TestDatabase) {
    let app = app(&database).await;
    for what in ["redrive", "discard", "edit"] {
        let mut ask = json!({"reason": "x"});
        if what == "edit" {
            ask["payload"] = json!("{}");
        }
        let path = format!("/dead-letters/{UNKNOWN}/{what}");
        let answer = operator(&app).post(&path, &ask).await;
        assert_eq!(refusal(&answer), (404, json!("not_found")), "{what}");
    }
}

async fn no_answer_is_kept_by_a_cache(database: TestDatabase) {
    let app = app(&database).await;
    let missing = format!("/redrives/{UNKNOWN}");
    for path in ["/health", "/ready", "/status", "/no/such/path", &missing] {
        let answer = operator(&app).get(path).await;
        let given = answer.header("cache-control");
        assert_eq!(given, Some("no-store"), "{path}");
    }
}
