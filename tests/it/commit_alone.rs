//! The group commit: one step that cannot be kept does not hold up the others.

use std::time::Duration;

use hookyard::clock::SystemClock;
use hookyard::store::commit::{Begun, End, Kept, Right, Step, commit};
use hookyard::store::inbox::{Facts, RunKey};
use hookyard::store::{Pool, Write};

use crate::support::{TestDatabase, count, execute};

fn end(event_id: &str, writes: Vec<Write>) -> Step {
    Step::End(Box::new(End {
        key: RunKey {
            event_id: event_id.to_owned(),
            handler: "h",
            generation: 0,
        },
        right: Right::First(Box::new(Begun {
            facts: Facts::default(),
        })),
        outcome: "done",
        reason: None,
        writes,
        outbox: Vec::new(),
        mark: None,
        dead_letter: None,
    }))
}

#[tokio::test]
async fn a_handlers_statement_that_waits_for_somebody_does_not_hold_up_the_others() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let store = database.store().await;
    execute(
        &store,
        "CREATE TABLE things (n INTEGER); INSERT INTO things VALUES (1)",
    )
    .await;
    let hasty = database.connect_with(SystemClock::shared(), |config| {
        config.statement_timeout = Duration::from_secs(3);
    });
    let Pool::Postgres(pool) = store.pool() else {
        panic!("this is PostgreSQL");
    };
    let mut somebody = pool.begin().await.unwrap();
    sqlx::query("UPDATE things SET n = 2")
        .execute(&mut *somebody)
        .await
        .unwrap();
    let waits = Write::new("UPDATE things SET n = n + 1");
    let impossible = Write::new("INSERT INTO things VALUES (1 / 0)");
    let steps = [
        end("before", Vec::new()),
        end("waits", vec![waits]),
        end("impossible", vec![impossible]),
        end("after", Vec::new()),
    ];

    let kept = commit(&hasty, &steps).await.unwrap();

    assert!(matches!(kept[0], Ok(Kept::Done)), "{kept:?}");
    assert!(kept[1].is_err(), "{kept:?}");
    assert!(matches!(kept[2], Ok(Kept::Refused(_))), "{kept:?}");
    assert!(matches!(kept[3], Ok(Kept::Done)), "{kept:?}");
    let ended = "SELECT COUNT(*) FROM inbox WHERE state = 2";
    assert_eq!(count(&store, ended).await, 2);
    somebody.rollback().await.unwrap();
    let kept = commit(&hasty, &steps[1..2]).await.unwrap();
    assert!(matches!(kept[0], Ok(Kept::Done)), "{kept:?}");
}
