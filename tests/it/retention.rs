//! Retention: what has ended well and is old goes, everything else stays.

use std::time::Duration;

use hookyard::store::{Micros, Pool, Store};
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{TestDatabase, both_databases, execute, texts};

both_databases!(
    what_ended_well_goes_when_it_is_old,
    ids_stay_while_they_may_come_again,
    what_somebody_has_to_decide_on_stays_with_its_whole_story,
    tries_stay_counted_while_their_event_may_run_again,
    a_parked_row_goes_after_the_decision_about_it,
    many_rows_go_batch_by_batch,
);

const DAY: Micros = 24 * 3600 * 1_000_000;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

async fn sweep(store: &Store, retention: Duration) -> u64 {
    let swept = store.sweep(retention, &CancellationToken::new()).await;
    swept.unwrap().into_iter().map(|(_, rows)| rows).sum()
}

/// Adds a row that is so many days old.
struct Rows<'a>(&'a Store);

impl Rows<'_> {
    fn ago(&self, days: Micros) -> Micros {
        self.0.now() - days * DAY
    }

    async fn inbox(&self, id: &str, state: i16, age: Micros) {
        let ended = if state >= 2 {
            self.ago(age).to_string()
        } else {
            "NULL".to_owned()
        };
        let at = self.ago(age);
        let sql = format!(
            "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
             event_type, instance, created_at, started_at, ended_at) \
             VALUES ('{id}', 'h', 0, {state}, 1, {at}, 1, 't', 'i', {at}, {at}, {ended})"
        );
        execute(self.0, &sql).await;
    }

    async fn event(&self, key: &str, status: &str, age: Micros) {
        let processed = status != "pending";
        let at = self.ago(age);
        let sql = format!(
            "INSERT INTO events (id, event_type, payload, event_key, status, processed, \
             processed_at) VALUES ('{}', 't', '{{}}', '{key}', '{status}', {processed}, {at})",
            Uuid::new_v4()
        );
        execute(self.0, &sql).await;
    }

    async fn outbox(&self, id: &str, state: i16, age: Micros) {
        let at = self.ago(age);
        let sql = format!(
            "INSERT INTO outbox (lane, message_id, topic, event_type, cause_id, handler, data, \
             attributes, state, created_at, published_at) \
             VALUES (1, '{id}', 't', 't', 'c', 'h', '', '[]', {state}, {at}, {at})"
        );
        execute(self.0, &sql).await;
    }

    async fn dead_letter(&self, key: &str, status: &str, age: Micros) {
        let at = self.ago(age);
        let sql = format!(
            "INSERT INTO event_dead_letters (id, event_id, event_type, payload, error_message, \
             retry_count, original_created_at, event_key, status, decided_at) \
             VALUES ('{}', '{}', 't', '{{}}', 'm', 1, '2020-01-01', '{key}', '{status}', {at})",
            Uuid::new_v4(),
            Uuid::new_v4()
        );
        execute(self.0, &sql).await;
    }

    async fn failure(&self, id: &str, age: Micros) {
        let at = self.ago(age);
        let sql = format!(
            "INSERT INTO failures (event_id, handler, generation, attempt, error_class, \
             error_code, error_message, failed_at) VALUES ('{id}', 'h', 0, 1, 'c', 'c', 'm', {at})"
        );
        execute(self.0, &sql).await;
    }

    async fn repeat(&self, id: &str, age: Micros) {
        let at = self.ago(age);
        let sql = format!(
            "INSERT INTO repeats (event_id, handler, kind, ran_again, came_at) \
             VALUES ('{id}', 'h', 'hasura_retry', FALSE, {at})"
        );
        execute(self.0, &sql).await;
    }

    async fn subject(&self, id: &str, age: Micros) {
        let at = self.ago(age);
        let sql = format!(
            "INSERT INTO subjects (handler, subject, changed_at, event_id, seen_at) \
             VALUES ('h', '{id}', {at}, 'e', {at})"
        );
        execute(self.0, &sql).await;
    }

    /// Everything there is, by the name it was given.
    async fn left(&self) -> Vec<String> {
        let sql = "SELECT 'inbox ' || event_id FROM inbox \
            UNION ALL SELECT 'event ' || event_key FROM events \
            UNION ALL SELECT 'outbox ' || message_id FROM outbox \
            UNION ALL SELECT 'letter ' || event_key FROM event_dead_letters \
            UNION ALL SELECT 'failure ' || event_id FROM failures \
            UNION ALL SELECT 'repeat ' || event_id FROM repeats \
            UNION ALL SELECT 'subject ' || subject FROM subjects";
        let mut left = texts(self.0, sql).await;
        left.sort();
        left
    }
}

async fn what_ended_well_goes_when_it_is_old(database: TestDatabase) {
    let store = database.store().await;
    let rows = Rows(&store);
    for (name, age) in [("old", 31), ("young", 29)] {
        rows.inbox(&format!("done-{name}"), 2, age).await;
        rows.inbox(&format!("dead-{name}"), 3, age).await;
        rows.inbox(&format!("free-{name}"), 0, age).await;
        rows.inbox(&format!("running-{name}"), 1, age).await;
        for status in ["done", "skipped", "unrouted", "dead_lettered", "pending"] {
            rows.event(&format!("{status}-{name}"), status, age).await;
        }
        rows.outbox(&format!("waiting-{name}"), 0, age).await;
        rows.outbox(&format!("published-{name}"), 1, age).await;
        for status in ["open", "redriven", "discarded"] {
            rows.dead_letter(&format!("{status}-{name}"), status, age)
                .await;
        }
        rows.failure(name, age).await;
        rows.repeat(name, age).await;
        rows.subject(name, age).await;
    }

    let swept = sweep(&store, days(30)).await;

    let kept_for_ever = ["event pending-", "letter open-", "outbox waiting-"];
    let kept_for_ever = kept_for_ever.iter();
    let mut expected: Vec<String> = kept_for_ever.map(|name| format!("{name}old")).collect();
    for name in [
        "event dead_lettered-",
        "event done-",
        "event pending-",
        "event skipped-",
        "event unrouted-",
        "failure ",
        "inbox dead-",
        "inbox done-",
        "inbox free-",
        "inbox running-",
        "letter discarded-",
        "letter open-",
        "letter redriven-",
        "outbox published-",
        "outbox waiting-",
        "repeat ",
        "subject ",
    ] {
        expected.push(format!("{name}young"));
    }
    expected.sort();
    assert_eq!(rows.left().await, expected);
    assert_eq!(swept, 14);
}

async fn ids_stay_while_they_may_come_again(database: TestDatabase) {
    let store = database.store().await;
    let rows = Rows(&store);
    for (state, name) in [(0, "free"), (1, "running"), (2, "done")] {
        rows.inbox(&format!("{name}-seven"), state, 7).await;
        rows.inbox(&format!("{name}-nine"), state, 9).await;
    }
    rows.subject("seven", 7).await;
    rows.outbox("seven", 1, 7).await;

    sweep(&store, days(1)).await;

    let left = ["done-seven", "free-seven", "running-seven"].map(|name| format!("inbox {name}"));
    let left = left.into_iter().chain(["subject seven".to_owned()]);
    assert_eq!(rows.left().await, left.collect::<Vec<_>>());
}

async fn tries_stay_counted_while_their_event_may_run_again(database: TestDatabase) {
    let store = database.store().await;
    let rows = Rows(&store);
    for (state, name) in [(0, "free"), (1, "running")] {
        rows.event(&format!("{name}-kept"), "pending", 100).await;
        rows.inbox(&format!("{name}-kept"), state, 100).await;
        rows.dead_letter(&format!("{name}-owed"), "open", 100).await;
        rows.inbox(&format!("{name}-owed"), state, 100).await;
        // Another service's row, which is claimed under its own id.
        let id = Uuid::new_v4();
        let sql =
            format!("INSERT INTO events (id, event_type, payload) VALUES ('{id}', 't', '{{}}')");
        execute(&store, &sql).await;
        rows.inbox(&id.to_string(), state, 100).await;
    }
    // A claim is not dead while its lease is renewed, however long ago it began.
    rows.inbox("alive", 1, 100).await;
    let renewed = store.now() + 1;
    let sql = format!("UPDATE inbox SET lease_until = {renewed} WHERE event_id = 'alive'");
    execute(&store, &sql).await;
    assert_eq!(sweep(&store, days(30)).await, 0);

    let ended = "UPDATE events SET processed = TRUE, status = 'done', processed_at = 1";
    execute(&store, ended).await;
    let decided = "UPDATE event_dead_letters SET status = 'discarded', decided_at = 1";
    execute(&store, decided).await;

    // At the latest with the next sweep: an event and its claims are looked at one after the other.
    let swept = sweep(&store, days(30)).await + sweep(&store, days(30)).await;
    assert_eq!(swept, 12);
    assert_eq!(rows.left().await, ["inbox alive"]);
}

async fn what_somebody_has_to_decide_on_stays_with_its_whole_story(database: TestDatabase) {
    let store = database.store().await;
    let rows = Rows(&store);
    rows.dead_letter("owed", "open", 100).await;
    rows.inbox("owed", 3, 100).await;
    rows.event("owed", "dead_lettered", 100).await;
    rows.failure("owed", 100).await;
    // Another service's row says only which event it is about.
    let id = Uuid::new_v4();
    let sql = format!(
        "INSERT INTO event_dead_letters (id, event_id, event_type, payload, error_message, \
         retry_count, original_created_at) \
         VALUES ('{}', '{id}', 't', '{{}}', 'm', 1, '2020-01-01')",
        Uuid::new_v4()
    );
    execute(&store, &sql).await;
    rows.inbox(&id.to_string(), 3, 100).await;

    assert_eq!(sweep(&store, days(30)).await, 0);
    let decided = "UPDATE event_dead_letters SET status = 'discarded', decided_at = 1";
    execute(&store, decided).await;

    assert_eq!(sweep(&store, days(30)).await, 6);
    assert!(rows.left().await.is_empty());
}

async fn a_parked_row_goes_after_the_decision_about_it(database: TestDatabase) {
    let store = database.store().await;
    let rows = Rows(&store);
    rows.outbox("parked", 2, 100).await;
    rows.dead_letter("parked", "open", 100).await;
    assert_eq!(sweep(&store, days(30)).await, 0);

    execute(&store, "UPDATE event_dead_letters SET status = 'redriven'").await;

    assert_eq!(sweep(&store, days(30)).await, 2);
}

async fn many_rows_go_batch_by_batch(database: TestDatabase) {
    let store = database.store().await;
    let count = if database.is_postgres() {
        12_000
    } else {
        1_200
    };
    many(&store, count).await;
    let rows = Rows(&store);
    rows.outbox("young", 1, 1).await;

    let (first, second) = tokio::join!(sweep(&store, days(30)), sweep(&store, days(30)));

    // Two at once take turns, and neither counts what the other deleted.
    let left = rows.left().await.len() as u64;
    assert_eq!(first + second + left, 2 * count + 1);
    assert_eq!(sweep(&store, days(30)).await, left - 1);
    assert_eq!(rows.left().await, ["outbox young"]);
}

/// Adds so many old rows to the two tables that grow most.
async fn many(store: &Store, count: u64) {
    let at = store.now() - 100 * DAY;
    let numbers = if store.is_postgres() {
        format!("SELECT CAST(n AS TEXT) AS n FROM generate_series(1, {count}) AS n")
    } else {
        format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) \
             SELECT CAST(n AS TEXT) AS n FROM c"
        )
    };
    let sql = format!(
        "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
         event_type, instance, created_at, started_at, ended_at) \
         SELECT n, 'h', 0, 2, 1, 0, 1, 't', 'i', {at}, {at}, {at} FROM ({numbers}) AS numbers; \
         INSERT INTO outbox (lane, message_id, topic, event_type, cause_id, handler, data, \
         attributes, state, created_at, published_at) \
         SELECT 1, n, 't', 't', 'c', 'h', '', '[]', 1, {at}, {at} FROM ({numbers}) AS numbers"
    );
    execute(store, &sql).await;
}

#[tokio::test]
async fn a_sweep_that_finds_little_reads_little() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let store = database.store().await;
    let now = store.now();
    // Fifty thousand rows of the last days in each table, as there are in service.
    let series = "FROM generate_series(1, 50000) AS n";
    let at = format!("{now} - n::BIGINT * {}", 10 * DAY / 50_000);
    for sql in [
        format!(
            "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
             event_type, instance, created_at, started_at, ended_at) \
             SELECT n, 'h', 0, 2, 1, 0, 1, 't', 'i', {at}, {at}, {at} {series}"
        ),
        format!(
            "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
             event_type, instance, created_at, started_at) \
             SELECT n, 'other', 0, n % 2, 1, (n % 2) * ({at}), 1, 't', 'i', {at}, {at} {series}"
        ),
        format!(
            "INSERT INTO events (event_type, payload, event_key, status, processed, processed_at) \
             SELECT 't', '{{}}', n, 'done', TRUE, {at} {series}"
        ),
        format!(
            "INSERT INTO outbox (lane, message_id, topic, event_type, cause_id, handler, data, \
             attributes, state, created_at, published_at) \
             SELECT 1, n, 't', 't', 'c', 'h', '', '[]', 1, {at}, {at} {series}"
        ),
        format!(
            "INSERT INTO failures (event_id, handler, generation, attempt, error_class, \
             error_code, error_message, failed_at) SELECT n, 'h', 0, 1, 'c', 'c', 'm', {at} {series}"
        ),
        format!(
            "INSERT INTO repeats (event_id, handler, kind, ran_again, came_at) \
             SELECT n, 'h', 'k', FALSE, {at} {series}"
        ),
        format!(
            "INSERT INTO subjects (handler, subject, changed_at, event_id, seen_at) \
             SELECT 'h', n, {at}, 'e', {at} {series}"
        ),
        format!(
            "INSERT INTO event_dead_letters (id, event_id, event_type, payload, error_message, \
             retry_count, original_created_at, event_key, status, decided_at) \
             SELECT gen_random_uuid(), gen_random_uuid(), 't', '{{}}', 'm', 1, now(), n, \
             CASE WHEN n % 2 = 0 THEN 'open' ELSE 'discarded' END, {at} {series}"
        ),
        format!(
            "INSERT INTO redrives (id, kind, query, mode, per_second, last_seq, next_seq, total, \
             state, actor, reason, created_at, updated_at) SELECT n, 'replay', '{{}}', 'force', 1, \
             1, 1, 1, 'finished', 'a', 'r', {at}, {at} {series}"
        ),
        format!(
            "INSERT INTO redrive_items (redrive_id, n, item_id, event_id, aggregate, state, at) \
             SELECT n, 1, n, n, n, 2, {at} {series}"
        ),
        "VACUUM ANALYZE".to_owned(),
    ] {
        execute(&store, &sql).await;
    }

    for (table, sql) in store.sweeping_statements() {
        let before = (now - 30 * DAY).to_string();
        let sql = sql.replace("$1", &before).replace("$2", "5000");
        let plan = texts(&store, &format!("EXPLAIN {sql}")).await.join("\n");
        assert!(!plan.contains("Seq Scan"), "{table}:\n{plan}");
    }
}

#[tokio::test]
async fn a_sweep_of_the_embedded_database_reads_no_whole_table() {
    let database = TestDatabase::sqlite();
    let store = database.store().await;
    let Pool::Sqlite { read, .. } = store.pool() else {
        panic!("a file of SQLite");
    };
    for (table, sql) in store.sweeping_statements() {
        let before = (store.now() - 30 * DAY).to_string();
        let sql = sql.replace("$1", &before).replace("$2", "500");
        let plan = sqlx::query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
        let plan: Vec<(i64, i64, i64, String)> = plan.fetch_all(read).await.unwrap();
        let plan: Vec<String> = plan.into_iter().map(|(.., line)| line).collect();
        let whole = plan.iter().any(|line| line.starts_with("SCAN "));
        assert!(!whole, "{table}:\n{}", plan.join("\n"));
    }
}
