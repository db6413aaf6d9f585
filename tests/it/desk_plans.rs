//! The desk's questions about one event or a few do not read whole tables.

use hookyard::clock::SystemClock;
use hookyard::desk::{DeadLetterFilter, Desk, EventFilter, Page, StartRedrive, StartReplay};
use hookyard::store::redrives::{self, Ended, Settled, Taken};

use crate::desk_kit::{execute, operator, text};
use crate::support::TestDatabase;

/// Fifty thousand rows in each table, as there are in service.
const ROWS: [&str; 8] = [
    "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, outcome, \
     event_type, message_id, correlation_id, trace_id, instance, created_at, started_at, ended_at) \
     SELECT n, 'shipping', 0, 3, 1, 0, 1, 'done', 't', 'm' || n, 'c' || n, 't' || n, 'i', n, n, n \
     FROM generate_series(1, 50000) AS n",
    "INSERT INTO repeats (event_id, handler, kind, message_id, ran_again, came_at) \
     SELECT n, 'h', 'double_publish', 'm' || n, FALSE, n FROM generate_series(1, 50000) AS n",
    "INSERT INTO failures (event_id, handler, generation, attempt, error_class, error_code, \
     error_message, failed_at) SELECT n, 'h', 0, 1, 'transient', 'c', 'm', n \
     FROM generate_series(1, 50000) AS n",
    "INSERT INTO outbox (lane, message_id, topic, event_type, cause_id, handler, data, attributes, \
     state, created_at) SELECT n % 64, 'o' || n, 't', 't', n, 'h', '', '[]', 1, n \
     FROM generate_series(1, 50000) AS n",
    "INSERT INTO events (id, event_type, aggregate_id, payload, processed, event_key, status) \
     SELECT CAST(md5(n::TEXT) AS UUID), 't', gen_random_uuid(), '{}', TRUE, \
     CASE WHEN n % 2 = 0 THEN 'k' || n END, 'done' FROM generate_series(1, 50000) AS n",
    "INSERT INTO event_dead_letters (id, event_id, event_type, payload, error_message, retry_count, \
     original_created_at, event_key, handler, message_id, trace_id, correlation_id, kept_at, \
     original) SELECT CAST(md5(n::TEXT) AS UUID), gen_random_uuid(), 't', '{}', 'm', 1, now(), n, \
     'shipping', 'm' || n, 't' || n, 'c' || n, 1, '' FROM generate_series(1, 50000) AS n",
    "INSERT INTO redrives (id, kind, query, mode, per_second, last_seq, next_seq, total, state, \
     actor, reason, created_at, updated_at) VALUES ('old', 'replay', '{}', 'force', 1, 1, 1, 1, \
     'finished', 'a', 'r', 1, 1)",
    "INSERT INTO redrive_items (redrive_id, n, item_id, event_id, aggregate, state, at) \
     SELECT 'old', n, n, n, n, 2, 1 FROM generate_series(1, 50000) AS n",
];

#[tokio::test]
async fn what_the_desk_asks_about_a_few_events_reads_no_whole_table() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    database.store().await.close().await;
    // One connection, so that its statistics are those of everything that was asked.
    let store = database.connect_with(SystemClock::shared(), |config| {
        config.max_connections = 1;
    });
    for rows in ROWS {
        execute(&store, rows).await;
    }
    execute(&store, "VACUUM ANALYZE").await;
    let whole_tables = async || {
        text(
            &store,
            "SELECT CAST(pg_stat_force_next_flush() AS TEXT) || ''",
        )
        .await;
        let sql = "SELECT string_agg(relname || ' ' || seq_scan, ', ' ORDER BY relname) \
            FROM pg_stat_user_tables WHERE relname IN ('inbox', 'repeats', 'failures', 'outbox', \
            'events', 'event_dead_letters', 'redrive_items')";
        text(&store, sql).await
    };
    let before = whole_tables().await;

    let desk = Desk::new(store.clone(), Vec::new());
    let id = text(&store, "SELECT CAST(CAST(md5('7') AS UUID) AS TEXT)").await;
    for id in ["7", "m8", "c9", "t10", "o11", "k12", id.as_str()] {
        desk.explain(id).await.unwrap();
    }
    let page = Page::default();
    let of_one = DeadLetterFilter {
        event_id: Some("7".to_owned()),
        ..DeadLetterFilter::default()
    };
    desk.dead_letters(&of_one, &page).await.unwrap();
    let by_id = DeadLetterFilter {
        ids: vec![id.clone()],
        ..DeadLetterFilter::default()
    };
    desk.dead_letters(&by_id, &page).await.unwrap();
    desk.dead_letter_with_payload(&id, &operator())
        .await
        .unwrap();
    let ask = StartRedrive {
        select: by_id,
        ..StartRedrive::default()
    };
    let redrive = desk.redrive(&ask, &operator()).await.unwrap();
    assert_eq!(redrive.total, 1);
    let select = EventFilter {
        ids: vec![id.clone(), "k12".to_owned()],
        ..EventFilter::default()
    };
    let ask = StartReplay {
        select,
        ..StartReplay::default()
    };
    assert_eq!(desk.preview_replay(&ask).await.unwrap().count, 2);
    assert_eq!(desk.replay(&ask, &operator()).await.unwrap().total, 2);

    let until = store.now() + 60_000_000;
    for _ in 0..2 {
        let leased = redrives::lease(&store, until).await.unwrap().unwrap();
        let Taken::Items(items) = redrives::take(&store, &leased, 10, until).await.unwrap() else {
            panic!("there is something to do");
        };
        let mut settled = Vec::new();
        for item in items {
            redrives::endings(&store, &item).await.unwrap();
            let ended = Ended::Failed("no".to_owned());
            settled.push(Settled { item, ended });
        }
        assert!(
            redrives::settle(&store, &leased, &settled, until)
                .await
                .unwrap()
        );
        let over = redrives::take(&store, &leased, 10, until).await.unwrap();
        assert_eq!(over, Taken::Over);
    }
    desk.redrive_detail(&redrive.id).await.unwrap();

    assert_eq!(whole_tables().await, before);
    // And it would be seen.
    text(
        &store,
        "SELECT CAST(COUNT(*) AS TEXT) FROM failures WHERE error_code = 'x'",
    )
    .await;
    assert_ne!(whole_tables().await, before);
}
