//! Who may use the admin API, and what it answers to requests that cannot be meant (rows S2, S5,
//! S6, S10, S12).

use hookyard::sandbox::loopback_client;
use serde_json::{Value, json};

use crate::support::{Answer, PATIENCE, TestApp, TestDatabase, both_databases};

/// Every route that only looks.
const LOOKS: [&str; 10] = [
    "/metrics",
    "/handlers",
    "/status",
    "/explain/some-id",
    "/audit",
    "/dead-letters",
    "/dead-letters/groups",
    "/dead-letters/0c282ca4-c204-4a79-aa07-89d93eb93eff",
    "/redrives",
    "/redrives/0c282ca4-c204-4a79-aa07-89d93eb93eff",
];

/// Every route that changes something.
const CHANGES: [&str; 10] = [
    "/erasures",
    "/dead-letters/redrive",
    "/dead-letters/discard",
    "/dead-letters/0c282ca4-c204-4a79-aa07-89d93eb93eff/redrive",
    "/dead-letters/0c282ca4-c204-4a79-aa07-89d93eb93eff/discard",
    "/dead-letters/0c282ca4-c204-4a79-aa07-89d93eb93eff/edit",
    "/redrives/0c282ca4-c204-4a79-aa07-89d93eb93eff/abort",
    "/replay",
    "/process-event",
    "/process-batch",
];

both_databases!(
    s5_a_token_for_reading_looks_and_changes_nothing,
    s5_old_and_new_token_work_while_one_replaces_the_other,
    s10_what_looks_like_sql_is_only_text,
    s12_limits_and_cursors_that_cannot_be_meant_are_refused,
    requests_that_cannot_be_meant_are_told_which_field,
    every_change_needs_a_reason,
    health_tells_the_operator_more,
);

/// Asks as somebody.
pub(crate) struct Operator<'a> {
    app: &'a TestApp,
    client: reqwest::Client,
    headers: Vec<(&'static str, String)>,
}

impl<'a> Operator<'a> {
    pub(crate) fn with(app: &'a TestApp, token: &str) -> Self {
        Self {
            app,
            client: loopback_client(PATIENCE).unwrap(),
            headers: vec![("authorization", format!("Bearer {token}"))],
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Answer {
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.app.url(path))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string()).await
    }

    pub(crate) async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.client.post(self.app.url(path));
        self.send(request.body(body)).await
    }
}

/// Asks as whoever may do everything.
pub(crate) fn operator(app: &TestApp) -> Operator<'_> {
    Operator::with(app, hookyard::sandbox::ADMIN_TOKEN)
}

/// Gets what is there.
pub(crate) async fn get(app: &TestApp, path: &str) -> Value {
    let answer = operator(app).get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn app(database: &TestDatabase) -> TestApp {
    TestApp::builder()
        .database(database)
        .variable("ADMIN_TOKEN", "new,old")
        .variable("ADMIN_READ_TOKEN", "look")
        .start()
        .await
}

fn code(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.text()).unwrap();
    let error = body["error"].as_object().unwrap();
    assert!(!error["message"].as_str().unwrap().is_empty(), "{body}");
    assert!(!error["request_id"].as_str().unwrap().is_empty(), "{body}");
    error["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn s5_without_a_token_nothing_is_shown_and_nothing_changed() {
    let app = TestApp::builder()
        .variable("ADMIN_TOKEN", "secret")
        .variable("ADMIN_READ_TOKEN", "")
        .start()
        .await;
    for token in ["", "secre", "secrets", "SECRET", "secret,", ","] {
        let operator = Operator::with(&app, token);
        for path in LOOKS {
            let answer = operator.get(path).await;
            assert_eq!(answer.status, 401, "GET {path}");
            assert_eq!(code(&answer), "unauthorized");
        }
        for path in CHANGES {
            let answer = operator.post(path, &json!({"reason": "x"})).await;
            assert_eq!(answer.status, 401, "POST {path}");
        }
    }
}

#[tokio::test]
async fn s6_a_service_without_tokens_is_closed() {
    let app = TestApp::builder().variable("ADMIN_TOKEN", "").start().await;
    for token in ["", "x"] {
        let operator = Operator::with(&app, token);
        for path in LOOKS {
            let answer = operator.get(path).await;
            assert_eq!(
                (answer.status.as_u16(), code(&answer)),
                (403, "admin_closed".to_owned())
            );
        }
        for path in CHANGES {
            let answer = operator.post(path, &json!({"reason": "x"})).await;
            assert_eq!(
                (answer.status.as_u16(), code(&answer)),
                (403, "admin_closed".to_owned())
            );
        }
    }
}

#[tokio::test]
async fn without_a_database_the_desk_says_what_it_needs() {
    let app = TestApp::start().await;
    let operator = operator(&app);
    for path in &LOOKS[2..] {
        let answer = operator.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), code(&answer)),
            (501, "needs_database".to_owned())
        );
    }
    for path in CHANGES {
        let answer = operator.post(path, &json!({"reason": "x"})).await;
        assert_eq!(
            (answer.status.as_u16(), code(&answer)),
            (501, "needs_database".to_owned()),
            "{path}"
        );
    }
}

async fn s5_a_token_for_reading_looks_and_changes_nothing(database: TestDatabase) {
    let app = app(&database).await;
    let reader = Operator::with(&app, "look");
    for path in LOOKS {
        let answer = reader.get(path).await;
        assert!(
            matches!(answer.status.as_u16(), 200 | 404),
            "GET {path}: {answer:?}"
        );
    }
    for path in CHANGES {
        let answer = reader
            .post(path, &json!({"reason": "x", "all": true}))
            .await;
        assert_eq!(answer.status, 403, "POST {path}");
        assert_eq!(code(&answer), "read_only_token");
    }
    let answer = reader
        .get("/dead-letters/0c282ca4-c204-4a79-aa07-89d93eb93eff?payload=true")
        .await;
    assert_eq!(
        (answer.status.as_u16(), code(&answer)),
        (403, "payload_is_closed".to_owned())
    );
    // A look at what a change would do is a look.
    let select = json!({"dry_run": true, "select": {"handler": "x"}});
    let answer = reader.post("/dead-letters/redrive", &select).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let select = json!({"dry_run": true, "select": {"event_type": "x"}});
    let answer = reader.post("/replay", &select).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let audit = reader.get("/audit").await;
    assert_eq!(audit.json()["entries"], json!([]));
}

async fn s5_old_and_new_token_work_while_one_replaces_the_other(database: TestDatabase) {
    let app = app(&database).await;
    for token in ["new", "old"] {
        let operator = Operator::with(&app, token);
        assert_eq!(operator.get("/status").await.status, 200);
        let answer = operator
            .post("/dead-letters/discard", &json!({"reason": "x"}))
            .await;
        // Everything at once is not meant.
        assert_eq!(answer.status, 400);
    }
}

async fn s10_what_looks_like_sql_is_only_text(database: TestDatabase) {
    let app = app(&database).await;
    let operator = Operator::with(&app, "new");
    let names = [
        "handler",
        "event_type",
        "fingerprint",
        "error_code",
        "event_id",
        "correlation_id",
    ];
    for evil in [
        "' OR '1'='1",
        "x'; DROP TABLE events; --",
        "%",
        "\\",
        "$1",
        "\"",
        "a\0b",
    ] {
        let text: String = url::form_urlencoded::byte_serialize(evil.as_bytes()).collect();
        for name in names {
            let answer = operator.get(&format!("/dead-letters?{name}={text}")).await;
            assert!(
                matches!(answer.status.as_u16(), 200 | 400),
                "{name}={evil}: {answer:?}"
            );
        }
        let path = format!("/explain/{}", text.replace('+', "%20"));
        let answer = operator.get(&path).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 404),
            "{evil}: {answer:?}"
        );
        let ask = json!({"reason": evil, "select": {"ids": [evil]}});
        for path in ["/dead-letters/redrive", "/dead-letters/discard", "/replay"] {
            let answer = operator.post(path, &ask).await;
            let status = answer.status.as_u16();
            assert!(
                matches!(status, 200 | 202 | 400 | 404),
                "{path} {evil}: {answer:?}"
            );
        }
    }
    assert_eq!(operator.get("/status").await.status, 200);
}

async fn s12_limits_and_cursors_that_cannot_be_meant_are_refused(database: TestDatabase) {
    let app = app(&database).await;
    let operator = Operator::with(&app, "look");
    for path in ["/dead-letters", "/redrives", "/audit"] {
        for bad in [
            "limit=0",
            "limit=-1",
            "limit=1001",
            "limit=1e9",
            "limit=",
            "limit=99999999999999999999",
            "limit=10&limit=10",
            "cursor=zzz",
            "cursor=-1%27",
            "cursor=99999999999999999999",
            "offset=1",
        ] {
            let answer = operator.get(&format!("{path}?{bad}")).await;
            assert_eq!(answer.status, 400, "{path}?{bad}: {answer:?}");
            code(&answer);
        }
        let answer = operator.get(&format!("{path}?limit=1000")).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    for bad in [
        "since=yesterday",
        "since=2026-13-01T00:00:00Z",
        "until=2026-11-21",
        "since=99999-01-01T00:00:00Z",
        "status=gone",
        "source=moon",
        "error_class=odd",
        "payload=true",
        "ids=",
        "unknown=1",
    ] {
        let answer = operator.get(&format!("/dead-letters?{bad}")).await;
        // A list of no ids is no condition at all.
        let expected = if bad == "ids=" { 200 } else { 400 };
        assert_eq!(answer.status, expected, "{bad}: {answer:?}");
    }
    let many = vec!["x"; 1001].join(",");
    let answer = operator.get(&format!("/dead-letters?ids={many}")).await;
    assert_eq!(answer.status, 400);
}

async fn requests_that_cannot_be_meant_are_told_which_field(database: TestDatabase) {
    let app = app(&database).await;
    let operator = Operator::with(&app, "new");
    for (path, body, field) in [
        (
            "/dead-letters/redrive",
            json!({"reason": "x", "select": {"handler": 5}}),
            Some("select.handler"),
        ),
        (
            "/dead-letters/redrive",
            json!({"reason": "x", "selekt": {}}),
            Some("selekt"),
        ),
        (
            "/dead-letters/redrive",
            json!({"reason": "x", "dry_run": "yes"}),
            Some("dry_run"),
        ),
        (
            "/dead-letters/redrive",
            json!({"reason": "x", "mode": "hard"}),
            Some("mode"),
        ),
        (
            "/dead-letters/redrive",
            json!({"reason": "x", "all": true, "per_second": 0}),
            Some("per_second"),
        ),
        (
            "/dead-letters/a/redrive",
            json!({"reason": "x", "all": true}),
            Some("all"),
        ),
        (
            "/dead-letters/a/redrive",
            json!({"reason": "x", "select": {}}),
            Some("select"),
        ),
        ("/dead-letters/a/edit", json!({"reason": "x"}), None),
        ("/process-event", json!({"event_id": " "}), Some("event_id")),
        ("/process-event", json!({}), None),
        (
            "/replay",
            json!({"reason": "x", "side_effects": true}),
            Some("side_effects"),
        ),
    ] {
        let answer = operator.post(path, &body).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        code(&answer);
        let error = &answer.json()["error"];
        assert_eq!(error["field"].as_str(), field, "{path} {body}: {error}");
    }
    for text in [
        "[]",
        "{",
        "nonsense",
        "\"x\"",
        "{\"reason\":\"x\"} {}",
        "\u{feff}{}",
    ] {
        for path in CHANGES {
            let answer = operator.post_bytes(path, text).await;
            assert_eq!(
                (answer.status.as_u16(), code(&answer)),
                (400, "bad_body".to_owned()),
                "{path} {text}"
            );
        }
    }
    let answer = operator
        .post_bytes("/replay", vec![b' '; 15 * 1024 * 1024])
        .await;
    assert_eq!(answer.status, 413);
    let squeezed = Operator::with(&app, "new").header("content-encoding", "gzip");
    assert_eq!(squeezed.post("/replay", &json!({})).await.status, 415);
    let long = "n".repeat(101);
    for name in ["", " ", &long] {
        let nobody = Operator::with(&app, "new").header("x-hookyard-actor", name);
        let answer = nobody.get("/status").await;
        assert_eq!(
            (answer.status.as_u16(), code(&answer)),
            (400, "bad_actor".to_owned()),
            "{name:?}"
        );
    }
}

async fn every_change_needs_a_reason(database: TestDatabase) {
    let app = app(&database).await;
    let operator = Operator::with(&app, "new");
    for path in &CHANGES[..8] {
        for reason in [
            json!(null),
            json!(""),
            json!("  "),
            json!(5),
            json!("x".repeat(1001)),
        ] {
            let answer = operator.post(path, &json!({"reason": reason})).await;
            assert_eq!(
                (answer.status.as_u16(), code(&answer)),
                (400, "reason_missing".to_owned()),
                "{path}"
            );
        }
    }
}

async fn health_tells_the_operator_more(database: TestDatabase) {
    let app = app(&database).await;
    app.push(&crate::support::contract_event("h-1", "signed", "active"))
        .await;
    for token in ["new", "look"] {
        let health = Operator::with(&app, token).get("/health").await;
        assert_eq!(health.status, 200);
        let health = health.json();
        assert_eq!(health["status"], "healthy");
        assert_eq!(health["service"], "hookyard");
        assert!(health["uptime"].is_u64(), "{health}");
        let stats = &health["stats"];
        assert!(stats["totalProcessed"].as_u64() >= Some(1), "{health}");
        assert_eq!(stats["totalProcessed"], stats["successCount"], "{health}");
        assert_eq!(stats["errorCount"], 0);
        assert_eq!(stats["deadLetterCount"], 0);
        assert!(
            stats["lastProcessedAt"].as_str().unwrap().ends_with('Z'),
            "{health}"
        );
        let config = json!({"pollIntervalMs": 10000, "batchSize": 20, "maxRetries": 5, "pollingEnabled": false});
        assert_eq!(health["config"], config);
        let types = health["registry"]["eventTypes"].as_array().unwrap();
        assert!(types.contains(&json!("contracts.update")), "{health}");
    }
    for token in ["wrong", ""] {
        let health = Operator::with(&app, token).get("/health").await;
        assert_eq!(
            (health.status.as_u16(), health.text()),
            (200, r#"{"status":"ok"}"#.to_owned())
        );
    }
}
