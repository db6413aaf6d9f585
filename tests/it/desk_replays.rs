//! Replays of processed events: as often as asked for, marked, and not by every handler.

use std::sync::atomic::Ordering;

use hookyard::desk::{Desk, EventFilter, Page, SideEffects, StartReplay};

use crate::desk_kit::{Yard, execute, operator, processed, row_id, text};
use crate::support::{TestDatabase, both_databases};

both_databases!(
    x8_every_replay_runs_an_event_once_and_marks_it,
    x8_a_dry_run_has_no_effect,
    x8_handlers_that_do_not_want_to_be_replayed_are_left_out,
    x8_a_row_that_waits_for_the_worker_is_left_to_it,
    x8_a_range_is_replayed_in_order_within_an_aggregate,
    x8_a_replay_that_selects_nothing_in_particular_is_refused,
    x8_a_replay_that_fails_leaves_a_dead_letter_that_can_be_redriven,
);

fn replay(select: EventFilter) -> StartReplay {
    StartReplay {
        select,
        per_second: Some(10_000),
        ..StartReplay::default()
    }
}

fn by_ids(ids: &[u32]) -> EventFilter {
    EventFilter {
        ids: ids.iter().map(|n| row_id(*n)).collect(),
        ..EventFilter::default()
    }
}

async fn run(yard: &Yard, ask: &StartReplay) -> hookyard::desk::RedriveDetail {
    let replay = yard.desk.replay(ask, &operator()).await.unwrap();
    yard.run().await;
    yard.over(&replay.id).await
}

async fn metadata(yard: &Yard, n: u32) -> serde_json::Value {
    let sql = format!(
        "SELECT CAST(metadata AS TEXT) FROM events WHERE id = '{}'",
        row_id(n)
    );
    serde_json::from_str(&text(&yard.store, sql).await).unwrap()
}

async fn x8_every_replay_runs_an_event_once_and_marks_it(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    processed(&yard.store, 1..4).await;
    let mut ask = replay(by_ids(&[1, 2]));

    let over = run(&yard, &ask).await;
    assert_eq!(
        (over.redrive.kind.as_str(), over.redrive.done),
        ("replay", 2),
        "{over:?}"
    );
    let mut runs = yard.shipped.runs();
    runs.sort();
    assert_eq!(runs, [row_id(1), row_id(2)]);
    let marked = metadata(&yard, 1).await;
    assert_eq!(marked["replayed"]["times"], 1);
    assert_eq!(marked["replayed"]["redrive"], over.redrive.id.as_str());
    assert_eq!(marked["correlation_id"], "story");
    assert_eq!(
        metadata(&yard, 3).await["replayed"],
        serde_json::Value::Null
    );

    ask.request_id = Some("second".to_owned());
    run(&yard, &ask).await;
    run(&yard, &ask).await;
    assert_eq!(yard.shipped.runs().len(), 4);
    assert_eq!(metadata(&yard, 1).await["replayed"]["times"], 2);
    // A row set back by another service gets a run of its own.
    let sql = format!(
        "SELECT CAST(generation AS TEXT) FROM events WHERE id = '{}'",
        row_id(1)
    );
    assert_eq!(text(&yard.store, sql).await, "3");
    let audit = yard.desk.audit(&Page::default()).await.unwrap().entries;
    let actions: Vec<_> = audit.iter().map(|it| it.action.as_str()).collect();
    assert_eq!(actions, ["replay.start", "replay.start"]);
}

async fn x8_a_dry_run_has_no_effect(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    processed(&yard.store, 1..4).await;
    let before = metadata(&yard, 1).await;

    let preview = yard
        .desk
        .preview_replay(&replay(by_ids(&[1, 3])))
        .await
        .unwrap();
    assert_eq!(preview.count, 2);
    assert_eq!(preview.event_types[0].name, "order.paid");
    let handlers: Vec<_> = preview
        .handlers
        .iter()
        .map(|it| (it.handler.as_str(), it.replay.as_str(), it.count))
        .collect();
    assert_eq!(handlers, [("mailing", "skip", 2), ("shipping", "run", 2)]);
    assert_eq!(
        preview.first_at.map(|at| at.to_string()).as_deref(),
        Some("2026-01-05T10:01:00.000000Z")
    );
    assert_eq!(preview.sample.len(), 2);
    yard.run().await;
    assert!(yard.shipped.runs().is_empty());
    assert_eq!(metadata(&yard, 1).await, before);
    assert!(
        yard.desk
            .redrives(&Page::default())
            .await
            .unwrap()
            .redrives
            .is_empty()
    );
    assert!(
        yard.desk
            .audit(&Page::default())
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

async fn x8_handlers_that_do_not_want_to_be_replayed_are_left_out(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    processed(&yard.store, 1..2).await;

    let mut ask = replay(by_ids(&[1]));
    assert_eq!(run(&yard, &ask).await.redrive.done, 1);
    assert!(yard.mailed.lock().unwrap().is_empty());

    ask.handler = Some("mailing".to_owned());
    let over = run(&yard, &ask).await;
    assert_eq!((over.redrive.done, over.redrive.skipped), (0, 1));
    assert!(yard.mailed.lock().unwrap().is_empty());

    ask.side_effects = SideEffects::Run;
    assert_eq!(run(&yard, &ask).await.redrive.done, 1);
    assert_eq!(*yard.mailed.lock().unwrap(), [row_id(1)]);
    assert_eq!(yard.shipped.runs(), [row_id(1)]);

    ask.handler = Some("nobody".to_owned());
    let refused = yard.desk.replay(&ask, &operator()).await.unwrap_err();
    assert_eq!(refused.code(), "invalid_request");
}

async fn x8_a_row_that_waits_for_the_worker_is_left_to_it(database: TestDatabase) {
    let store = database.store().await;
    processed(&store, 1..3).await;
    let desk = Desk::new(store.clone(), Vec::new());
    let replay = desk
        .replay(&replay(by_ids(&[1, 2])), &operator())
        .await
        .unwrap();
    assert_eq!(replay.total, 2);
    let sql = format!(
        "UPDATE events SET processed = FALSE WHERE id = '{}'",
        row_id(1)
    );
    execute(&store, sql).await;

    let yard = Yard::on(&database).await;
    yard.run().await;
    let over = yard.over(&replay.id).await;
    assert_eq!((over.redrive.done, over.redrive.skipped), (1, 1));
    assert_eq!(yard.shipped.runs(), [row_id(2)]);
}

async fn x8_a_range_is_replayed_in_order_within_an_aggregate(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    processed(&yard.store, 1..31).await;
    let range = EventFilter {
        event_type: Some("order.paid".to_owned()),
        since: Some("2026-01-05T10:05:00Z".to_owned()),
        until: Some("2026-01-05T11:25:00+01:00".to_owned()),
        ..EventFilter::default()
    };
    let over = run(&yard, &replay(range)).await;
    assert_eq!((over.redrive.total, over.redrive.done), (20, 20));
    let runs = yard.shipped.runs();
    for parity in [0, 1] {
        let expected: Vec<_> = (5..25).filter(|n| n % 2 == parity).map(row_id).collect();
        let mine: Vec<_> = runs
            .iter()
            .filter(|id| expected.contains(id))
            .cloned()
            .collect();
        assert_eq!(mine, expected);
    }

    let one = EventFilter {
        aggregate_id: Some(row_id(9_000_001)),
        ..EventFilter::default()
    };
    assert_eq!(
        yard.desk.preview_replay(&replay(one)).await.unwrap().count,
        15
    );
}

async fn x8_a_replay_that_selects_nothing_in_particular_is_refused(database: TestDatabase) {
    let store = database.store().await;
    processed(&store, 1..3).await;
    let desk = Desk::new(store.clone(), Vec::new());
    let everything = StartReplay::default();
    let refused = desk.replay(&everything, &operator()).await.unwrap_err();
    assert_eq!(refused.code(), "invalid_request");
    let ask = StartReplay {
        expected: Some(1),
        ..replay(by_ids(&[1, 2]))
    };
    let refused = desk.replay(&ask, &operator()).await.unwrap_err();
    assert_eq!(refused.code(), "more_than_expected");
    for pace in [0, -1, 10_001] {
        let ask = StartReplay {
            per_second: Some(pace),
            ..replay(by_ids(&[1]))
        };
        let refused = desk.replay(&ask, &operator()).await.unwrap_err();
        assert_eq!(refused.code(), "invalid_request");
    }
    // An id that is no row's is no mistake; it is found by the id it is claimed under, too.
    let ids = EventFilter {
        ids: vec!["' OR 1=1 --".to_owned(), "x".to_owned()],
        ..EventFilter::default()
    };
    assert_eq!(desk.preview_replay(&replay(ids)).await.unwrap().count, 0);
}

async fn x8_a_replay_that_fails_leaves_a_dead_letter_that_can_be_redriven(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    processed(&yard.store, 1..2).await;
    yard.shipped.refuses.store(true, Ordering::SeqCst);
    let over = run(&yard, &replay(by_ids(&[1]))).await;
    assert_eq!((over.redrive.failed, over.redrive.done), (1, 0));
    yard.refuse(false);
    assert_eq!(yard.redrive_all().await.redrive.done, 1);
    assert_eq!(yard.shipped.runs(), [row_id(1)]);
}
