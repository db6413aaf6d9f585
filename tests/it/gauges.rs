//! What the alerts look at says what is in the tables.

use hookyard::store::Store;
use hookyard::store::dead_letters::{self, NewDeadLetter};
use hookyard::telemetry::Metrics;

use crate::support::rows::EventRow;
use crate::support::{TestDatabase, both_databases, execute};

both_databases!(
    what_waits_shows_in_the_metrics,
    nothing_that_waits_is_zero_and_not_missing,
);

async fn measured(store: &Store) -> Vec<String> {
    let metrics = Metrics::new().unwrap();
    store.measure(&metrics).await.unwrap();
    let text = metrics.render();
    let lines = text.lines().filter(|line| {
        ["dead_letters_open", "oldest_due", "lanes_paused"]
            .iter()
            .any(|name| line.starts_with("hookyard_") && line.contains(name))
    });
    lines.map(str::to_owned).collect()
}

async fn what_waits_shows_in_the_metrics(database: TestDatabase) {
    let store = database.store().await;
    let later = EventRow::new("t").at(60_000).insert(&store).await;
    let waits = EventRow::new("t").at(0).insert(&store).await;
    let done = EventRow::new("t").at(-60_000).insert(&store).await;
    let now = store.now();
    execute(
        &store,
        &format!(
            "UPDATE events SET next_attempt_at = {} WHERE CAST(id AS TEXT) = '{waits}'; \
             UPDATE events SET processed = TRUE, status = 'done' WHERE CAST(id AS TEXT) = '{done}'; \
             UPDATE lanes SET paused_until = {} WHERE kind = 0 AND lane < 3; \
             UPDATE lanes SET paused_until = {} WHERE kind = 1 AND lane < 2",
            now + 3_600_000_000,
            now + 3_600_000_000,
            now - 1,
        ),
    )
    .await;
    for id in ["open", "decided"] {
        let letter = NewDeadLetter {
            event_key: id.to_owned(),
            source: "push",
            ..NewDeadLetter::default()
        };
        let mut tx = store.begin().await.unwrap();
        dead_letters::insert(&mut tx, &letter, 1).await.unwrap();
        tx.commit().await.unwrap();
    }
    execute(
        &store,
        "UPDATE event_dead_letters SET status = 'discarded' WHERE event_key = 'decided'",
    )
    .await;

    let mut lines = measured(&store).await;

    // The one that is due; an earlier one waits for its next try, another has ended.
    let age = lines.remove(1);
    let age = age.strip_prefix("hookyard_events_oldest_due_age_seconds ");
    let age: f64 = age.unwrap().parse().unwrap();
    let made = 1_767_607_260.0;
    let now = now as f64 / 1e6;
    assert!((age - (now - made)).abs() < 60.0, "{age} {later}");
    assert_eq!(
        lines,
        [
            "hookyard_dead_letters_open 1",
            "hookyard_lanes_paused{table=\"events\"} 3",
            "hookyard_lanes_paused{table=\"outbox\"} 0",
        ]
    );
}

async fn nothing_that_waits_is_zero_and_not_missing(database: TestDatabase) {
    let store = database.store().await;

    assert_eq!(
        measured(&store).await,
        [
            "hookyard_dead_letters_open 0",
            "hookyard_events_oldest_due_age_seconds 0",
            "hookyard_lanes_paused{table=\"events\"} 0",
            "hookyard_lanes_paused{table=\"outbox\"} 0",
        ]
    );
}
