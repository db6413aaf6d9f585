//! The community's handlers: what each of them writes, on both databases, once.

use hookyard::store::{Pool, Store};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::{TestApp, TestDatabase, both_databases, eventually};

both_databases!(
    every_sample_does_what_its_handler_says,
    a_second_run_under_the_same_ids_changes_nothing,
    rows_of_the_table_do_the_same_and_a_replay_adds_nothing,
    experts_on_the_topic_are_notified_but_not_the_asker,
    an_older_message_does_not_set_activity_back,
    an_intro_told_of_twice_is_credited_once,
    an_answer_to_no_request_is_a_dead_letter_and_leaves_nothing,
    a_payload_that_does_not_fit_is_a_dead_letter_without_its_values,
    tables_of_somebody_else_cost_only_their_own_events,
);

const USER: &str = "5f0c6a7e-1d7a-4a39-9f5e-000000000101";
const EXPERT: &str = "5f0c6a7e-1d7a-4a39-9f5e-000000000102";
const INTRO: &str = "9b1d4f5e-3c55-4a10-8e11-000000000201";

macro_rules! samples {
    ($($name:literal),+ $(,)?) => {
        &[$(include_str!(concat!("../../examples/events/community/", $name, ".json"))),+]
    };
}

/// In the order in which they happen.
const SAMPLES: &[&str] = samples![
    "user_verified",
    "message_received",
    "intent_classified",
    "solution_needed",
    "research_complete",
    "request_needed",
    "response_received",
    "intro_inquiry",
    "response_recorded",
    "intro_completed",
    "account_manager_completed",
];

/// What they leave behind.
const WANTED: &[&str] = &[
    "user 5f0c6a7e-1d7a-4a39-9f5e-000000000101 concierge",
    "priority offer_an_intro 3",
    "priority tell_what_you_know 2",
    "priority tell_what_you_need 1",
    "task deliver_expert_response concierge community_request high pending",
    "task intro_followup account_manager intro high pending",
    "task present_findings concierge solution_workflow high pending",
    "task research_solution solution_saga conversation high pending",
    "response acceptance",
    "intent solution",
    "request answered 0",
    "answer resp-1",
    "intro completed",
    "credits 50",
    "notification expert_response 5f0c6a7e-1d7a-4a39-9f5e-000000000101",
    "notification intro_completed 5f0c6a7e-1d7a-4a39-9f5e-000000000101",
    "notification intro_completed 5f0c6a7e-1d7a-4a39-9f5e-000000000103",
    "run 12",
    "outbox community.request_created",
    "outbox credits.awarded",
    "outbox user.profile_updated",
];

async fn execute(store: &Store, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    match store.pool() {
        Pool::Sqlite { write, .. } => drop(sqlx::query(sql).execute(write).await.unwrap()),
        Pool::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
    }
}

/// The only column of each row, which has to be text.
async fn texts(store: &Store, sql: &str) -> Vec<String> {
    let sql = AssertSqlSafe(sql.to_owned());
    match store.pool() {
        Pool::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_all(read).await.unwrap(),
        Pool::Postgres(pool) => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap(),
    }
}

/// Pushes a CloudEvent as the bus brings it, and tells the status.
async fn push(app: &TestApp, event: &Value) -> u16 {
    let attribute = |name: &str| {
        let value = event[name].as_str().unwrap_or_default().to_owned();
        (format!("ce-{name}"), value)
    };
    let attributes = ["id", "type", "source", "subject", "time"].map(attribute);
    let data = event["data"].to_string();
    let answer = app.push_message(data.as_bytes(), &attributes).await;
    answer.status.as_u16()
}

fn event(id: &str, event_type: &str, time: &str, data: Value) -> Value {
    json!({"id": id, "type": event_type, "source": "/test", "subject": USER, "time": time,
           "data": data})
}

async fn app(database: &TestDatabase) -> (TestApp, Store) {
    let app = TestApp::builder().database(database).start().await;
    (app, database.store().await)
}

async fn push_samples(app: &TestApp) {
    for sample in SAMPLES {
        let event: Value = serde_json::from_str(sample).unwrap();
        assert_eq!(push(app, &event).await, 200, "{sample}");
    }
}

/// Everything the handlers wrote, a line for each row.
async fn everything(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for sql in [
        "SELECT 'user ' || CAST(id AS TEXT) || ' ' || poc_agent_type FROM users",
        "SELECT 'priority ' || item || ' ' || CAST(rank AS TEXT) FROM user_priorities ORDER BY 1",
        "SELECT 'task ' || task_type || ' ' || agent_type || ' ' || COALESCE(context_type, '-') \
         || ' ' || priority || ' ' || status FROM tasks ORDER BY 1",
        "SELECT 'response ' || response_type FROM user_responses",
        "SELECT 'intent ' || intent FROM conversation_intents",
        "SELECT 'request ' || status || ' ' || CAST(experts_notified AS TEXT) \
         FROM community_requests",
        "SELECT 'answer ' || id FROM community_responses",
        "SELECT 'intro ' || status FROM intros",
        "SELECT 'credits ' || CAST(amount AS TEXT) FROM credits",
        "SELECT 'notification ' || kind || ' ' || CAST(recipient_id AS TEXT) FROM notifications \
         ORDER BY 1",
        "SELECT 'run ' || CAST(processed_events AS TEXT) FROM account_manager_runs",
        "SELECT 'outbox ' || event_type FROM outbox ORDER BY 1",
    ] {
        lines.extend(texts(store, sql).await);
    }
    lines
}

async fn every_sample_does_what_its_handler_says(database: TestDatabase) {
    let (app, store) = app(&database).await;

    push_samples(&app).await;

    assert_eq!(everything(&store).await, WANTED);
    let dead = texts(&store, "SELECT error_code FROM event_dead_letters").await;
    assert_eq!(dead, Vec::<String>::new());
}

async fn a_second_run_under_the_same_ids_changes_nothing(database: TestDatabase) {
    let (app, store) = app(&database).await;
    push_samples(&app).await;
    let task = "UPDATE tasks SET status = 'completed' WHERE task_type = 'intro_followup'";
    execute(&store, task).await;
    let before = everything(&store).await;

    // As if nobody knew that they have run.
    execute(&store, "DELETE FROM inbox").await;
    drop(app);
    let (app, _) = self::app(&database).await;
    push_samples(&app).await;

    assert_eq!(everything(&store).await, before);
}

async fn rows_of_the_table_do_the_same_and_a_replay_adds_nothing(database: TestDatabase) {
    let app = TestApp::builder()
        .database(&database)
        .variable("ENABLE_POLLING", "true")
        .variable("POLL_INTERVAL_MS", "50");
    let (_app, store) = (app.start().await, database.store().await);
    for sample in SAMPLES {
        let event: Value = serde_json::from_str(sample).unwrap();
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let (id, kind, subject) = (text("id"), text("type"), text("subject"));
        let insert = format!(
            "INSERT INTO events (id, event_type, aggregate_id, aggregate_type, payload, \
             created_by) VALUES ('{id}', '{kind}', '{subject}', 'user', '{}', 'agent')",
            event["data"]
        );
        execute(&store, &insert).await;
    }
    wait_for_runs(&store, 1).await;
    let first = everything(&store).await;

    execute(&store, "UPDATE events SET processed = false").await;
    wait_for_runs(&store, 2).await;

    assert_eq!(first, WANTED);
    // What is emitted is emitted again, for those who missed it; the rows are the same.
    let rows = |lines: Vec<String>| lines.into_iter().filter(|line| !line.starts_with("outbox"));
    let second = everything(&store).await;
    assert!(rows(second).eq(rows(first)));
}

/// Waits until every row of the table has run so many times.
async fn wait_for_runs(store: &Store, runs: u32) {
    let sql =
        format!("SELECT CAST(id AS TEXT) FROM events WHERE processed AND generation = {runs}");
    let what = || format!("not every row has run {runs} times");
    eventually(what, async || {
        texts(store, &sql).await.len() == SAMPLES.len()
    })
    .await;
}

async fn experts_on_the_topic_are_notified_but_not_the_asker(database: TestDatabase) {
    let (app, store) = app(&database).await;
    let experts = format!(
        "INSERT INTO community_experts (user_id, topic) VALUES ('{USER}', 'crm'), \
         ('{EXPERT}', 'crm'), ('{EXPERT}', 'sales'), ('{INTRO}', 'gardens')"
    );
    execute(&store, &experts).await;
    let asked = json!({"requestingAgentType": "concierge", "requestingUserId": USER,
                       "question": "Which?", "expertiseNeeded": [" CRM", "sales"]});

    let asked = event(
        "asked",
        "community.request_needed",
        "2026-01-05T10:00:00Z",
        asked,
    );
    assert_eq!(push(&app, &asked).await, 200);

    let told = texts(
        &store,
        "SELECT CAST(recipient_id AS TEXT) FROM notifications",
    )
    .await;
    assert_eq!(told, [EXPERT]);
    let request = "SELECT status || ' ' || CAST(experts_notified AS TEXT) FROM community_requests";
    assert_eq!(texts(&store, request).await, ["open 1"]);
}

async fn an_older_message_does_not_set_activity_back(database: TestDatabase) {
    let (app, store) = app(&database).await;
    let message = |id, time| event(id, "user.message.received", time, json!({"userId": USER}));

    for (id, time) in [
        ("1", "2026-01-05T10:00:00Z"),
        ("2", "2026-01-05T12:00:00Z"),
        ("3", "2026-01-05T11:00:00Z"),
    ] {
        assert_eq!(push(&app, &message(id, time)).await, 200);
    }

    let late = "SELECT CAST(id AS TEXT) FROM users WHERE last_active_at = last_message_at \
                AND last_active_at = '2026-01-05T12:00:00.000000Z'";
    assert_eq!(texts(&store, late).await, [USER]);
}

async fn an_intro_told_of_twice_is_credited_once(database: TestDatabase) {
    let (app, store) = app(&database).await;
    let completed = |id: &str, credits: i64| {
        let data = json!({"introId": INTRO, "connectorUserId": USER, "innovatorId": EXPERT,
                          "completedAt": "2026-01-05T10:00:00Z", "creditsAwarded": credits});
        event(id, "intro.completed", "2026-01-05T10:00:00Z", data)
    };

    assert_eq!(push(&app, &completed("1", 50)).await, 200);
    assert_eq!(push(&app, &completed("2", 50)).await, 200);
    assert_eq!(push(&app, &completed("3", -5)).await, 200);

    let credits = "SELECT CAST(amount AS TEXT) FROM credits";
    assert_eq!(texts(&store, credits).await, ["50"]);
    let told = texts(&store, "SELECT kind FROM notifications").await;
    assert_eq!(told, ["intro_completed"; 2]);
    let dead = texts(&store, "SELECT error_code FROM event_dead_letters").await;
    assert_eq!(dead, ["negative_credits"]);
}

async fn an_answer_to_no_request_is_a_dead_letter_and_leaves_nothing(database: TestDatabase) {
    let (app, store) = app(&database).await;
    let answer: Value = serde_json::from_str(SAMPLES[6]).unwrap();

    assert_eq!(push(&app, &answer).await, 200);

    assert_eq!(everything(&store).await, Vec::<String>::new());
    let dead = texts(&store, "SELECT error_code FROM event_dead_letters").await;
    assert_eq!(dead, ["not_found"]);
}

async fn a_payload_that_does_not_fit_is_a_dead_letter_without_its_values(database: TestDatabase) {
    let (app, store) = app(&database).await;
    let data = json!({"userId": "canary-of-a-user"});
    let verified = event("1", "user.verified", "2026-01-05T10:00:00Z", data);

    assert_eq!(push(&app, &verified).await, 200);

    let dead = texts(
        &store,
        "SELECT error_code || ' ' || error_message FROM event_dead_letters",
    );
    let dead = dead.await;
    assert_eq!(dead.len(), 1);
    assert!(dead[0].starts_with("malformed_payload ") && dead[0].contains("data.userId"));
    assert!(!dead[0].contains("canary"));
}

async fn tables_of_somebody_else_cost_only_their_own_events(database: TestDatabase) {
    let store = database.connect(hookyard::clock::SystemClock::shared());
    execute(&store, "CREATE TABLE intros (name VARCHAR(10))").await;
    let (app, store) = app(&database).await;
    let intro: Value = serde_json::from_str(SAMPLES[9]).unwrap();
    let message: Value = serde_json::from_str(SAMPLES[1]).unwrap();

    let (first, second) = tokio::join!(push(&app, &intro), push(&app, &message));

    assert_eq!((first, second), (200, 200));
    let active = texts(&store, "SELECT CAST(id AS TEXT) FROM users").await;
    assert_eq!(active, [USER]);
    let dead = texts(&store, "SELECT error_code FROM event_dead_letters").await;
    let code = if database.is_postgres() {
        "columns_missing"
    } else {
        "statement_refused"
    };
    assert_eq!(dead, [code]);
}
