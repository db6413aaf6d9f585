//! The `events` table: which rows are due, and what becomes of them.

use std::time::Duration;

use hookyard::clock::ManualClock;
use hookyard::event::{Delivery, Event};
use hookyard::store::Store;
use hookyard::store::dead_letters::NewDeadLetter;
use hookyard::store::events::{DueEvent, Wanted};
use hookyard::store::keep::Keeper;
use hookyard::store::marks::{EventStatus, Mark, RowRun, TryFailure, mark};

use tokio_util::task::TaskTracker;

use crate::support::rows::{EventRow, count, execute, insert_rows, row_state, uuid};
use crate::support::{TestDatabase, both_databases, contract_event};

both_databases!(
    rows_are_due_oldest_first_and_by_insertion_where_times_tie,
    a_row_that_commits_late_is_the_first_that_is_due,
    what_the_caller_has_is_left_out,
    a_look_brings_no_more_than_so_many_bytes_but_one_row,
    a_settled_row_is_due_no_more_until_it_is_set_back,
    a_failed_try_holds_its_aggregate_until_it_is_due_again,
    a_row_that_is_put_off_has_no_failed_try,
    a_row_that_is_given_up_is_a_dead_letter_once,
    a_mark_of_an_earlier_run_changes_nothing,
    metadata_that_is_no_object_stays_as_it_is,
    a_delivery_is_kept_with_its_bytes_once_for_each_message,
    deliveries_kept_at_once_are_all_kept_in_the_order_they_came,
    rows_nobody_can_read_a_time_of_are_due_too,
    a_waiting_row_can_be_made_due,
    a_row_that_waits_behind_another_stays_behind_it_when_it_is_made_due,
);

const LANES: [i16; 64] = {
    let mut lanes = [0; 64];
    let mut lane = 0;
    while lane < 64 {
        lanes[lane as usize] = lane;
        lane += 1;
    }
    lanes
};

async fn due(store: &Store) -> Vec<DueEvent> {
    due_without(store, &[], &[]).await
}

async fn due_without(store: &Store, without: &[i64], aggregates: &[String]) -> Vec<DueEvent> {
    let wanted = Wanted {
        lanes: &LANES,
        per_lane: 100,
        bytes: i64::MAX,
        without,
        without_aggregates: aggregates,
    };
    store.due_events(wanted).await.unwrap()
}

async fn ids(store: &Store) -> Vec<String> {
    due(store).await.into_iter().map(|row| row.id).collect()
}

fn run(row: &DueEvent) -> RowRun {
    RowRun {
        id: row.id.clone(),
        generation: row.generation,
    }
}

fn settled(row: &DueEvent, status: EventStatus) -> Mark {
    Mark::Settled {
        run: run(row),
        status,
        failure: None,
        was_held: row.was_held(),
    }
}

fn put_off(store: &Store, row: &DueEvent, by: Duration, attempts: i32) -> Mark {
    let failure = TryFailure {
        attempts,
        class: "transient".to_owned(),
        code: "timeout".to_owned(),
        message: "chargebee is unavailable (timeout)".to_owned(),
    };
    Mark::PutOff {
        run: run(row),
        until: store.now() + i64::try_from(by.as_micros()).unwrap(),
        failure: (attempts > 0).then_some(failure),
    }
}

async fn rows_are_due_oldest_first_and_by_insertion_where_times_tie(database: TestDatabase) {
    let store = database.store().await;
    let aggregate = uuid();
    let row = |at| EventRow::new("a.happened").of(&aggregate).at(at);
    let rows = [row(20), row(10), row(10), row(10), row(5)];
    insert_rows(&store, &rows).await;

    let order = [4, 1, 2, 3, 0].map(|n: usize| rows[n].id.clone());
    assert_eq!(ids(&store).await, order);
}

async fn a_row_that_commits_late_is_the_first_that_is_due(database: TestDatabase) {
    let store = database.store().await;
    let aggregate = uuid();
    let row = |at| EventRow::new("a.happened").of(&aggregate).at(at);
    let early = row(10).insert(&store).await;
    let first = due(&store).await;
    assert_eq!(first[0].id, early);
    mark(&store, &[settled(&first[0], EventStatus::Done)])
        .await
        .unwrap();

    let later = row(20).insert(&store).await;
    let late_commit = row(5).insert(&store).await;
    assert_eq!(ids(&store).await, [late_commit, later]);
}

async fn what_the_caller_has_is_left_out(database: TestDatabase) {
    let store = database.store().await;
    let (mine, other) = (uuid(), uuid());
    let alone = EventRow::new("a").at(1).insert(&store).await;
    EventRow::new("a").of(&mine).at(2).insert(&store).await;
    EventRow::new("a").of(&mine).at(3).insert(&store).await;
    let theirs = EventRow::new("a").of(&other).at(4).insert(&store).await;
    let all = due(&store).await;
    assert_eq!(all.len(), 4);

    let of_alone: Vec<i64> = all
        .iter()
        .filter(|r| r.id == alone)
        .map(|r| r.seq)
        .collect();
    let left = due_without(&store, &of_alone, std::slice::from_ref(&mine)).await;
    assert_eq!(left.iter().map(|r| &r.id).collect::<Vec<_>>(), [&theirs]);

    let one = Wanted {
        lanes: &[all[0].lane],
        per_lane: 1,
        bytes: i64::MAX,
        without: &[],
        without_aggregates: &[],
    };
    assert_eq!(store.due_events(one).await.unwrap().len(), 1);
}

async fn a_look_brings_no_more_than_so_many_bytes_but_one_row(database: TestDatabase) {
    let store = database.store().await;
    if database.is_postgres() {
        // Not compressed: they weigh what they say.
        let sql = "ALTER TABLE events ALTER COLUMN payload SET STORAGE EXTERNAL";
        execute(&store, sql).await;
    }
    let text = format!(r#""{}""#, "x".repeat(10_000));
    let (mine, other) = (uuid(), uuid());
    let row = |aggregate: &str, at| EventRow::new("a").of(aggregate).at(at).payload(&text);
    let rows = [row(&mine, 1), row(&mine, 2), row(&mine, 3), row(&other, 4)];
    insert_rows(&store, &rows).await;
    let all = due(&store).await;
    let lane = all.iter().find(|row| row.id == rows[0].id).unwrap().lane;
    let found = async |lanes: &[i16], bytes| {
        let wanted = Wanted {
            lanes,
            per_lane: 100,
            bytes,
            without: &[],
            without_aggregates: &[],
        };
        let found = store.due_events(wanted).await.unwrap();
        found.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };

    let first: Vec<String> = rows[..3].iter().map(|row| row.id.clone()).collect();
    assert_eq!(found(&[lane], 1).await, first[..1]);
    assert_eq!(found(&[lane], 15_000).await, first[..2]);
    assert_eq!(found(&LANES, 35_000).await.len(), 4);
    assert_eq!(found(&LANES, 25_000).await.len(), 3);
    assert_eq!(found(&LANES, 1).await.len(), 1);
}

async fn a_settled_row_is_due_no_more_until_it_is_set_back(database: TestDatabase) {
    let store = database.store().await;
    let id = EventRow::new("a").payload(r#"{"n": 12345678901234567890}"#);
    let id = id
        .metadata(r#"{"correlation_id":"c"}"#)
        .insert(&store)
        .await;
    let row = due(&store).await.remove(0);
    assert_eq!((row.key(), row.generation, row.attempts), (&*id, 0, 0));
    assert_eq!(&*row.payload, br#"{"n": 12345678901234567890}"#);
    assert!(row.metadata.as_deref().unwrap().contains("correlation_id"));
    assert_eq!(row.created_at, Some(1_767_607_200_000_000));

    mark(&store, &[settled(&row, EventStatus::Skipped)])
        .await
        .unwrap();
    assert!(due(&store).await.is_empty());
    let state = row_state(&store, &id).await;
    assert_eq!(
        (state.processed, &*state.status, state.generation),
        (true, "skipped", 1)
    );

    execute(&store, "UPDATE events SET processed = FALSE").await;
    let again = due(&store).await;
    assert_eq!((again.len(), again[0].generation), (1, 1));
}

async fn a_failed_try_holds_its_aggregate_until_it_is_due_again(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let aggregate = uuid();
    let first = EventRow::new("a").of(&aggregate).at(1).insert(&store).await;
    let second = EventRow::new("a").of(&aggregate).at(2).insert(&store).await;
    let alone = EventRow::new("a").at(3).insert(&store).await;
    let row = |rows: Vec<DueEvent>, id: &str| rows.into_iter().find(|r| r.id == id).unwrap();

    for attempt in 1..=2 {
        let failed = row(due(&store).await, &first);
        assert_eq!(failed.attempts, attempt - 1);
        let failed = put_off(&store, &failed, Duration::from_secs(5), attempt);
        mark(&store, &[failed]).await.unwrap();
        assert_eq!(
            ids(&store).await,
            [&*alone],
            "the second waits for the first"
        );
        clock.advance(Duration::from_secs(6));
    }
    let state = row_state(&store, &first).await;
    assert_eq!(
        (state.attempts, state.error_code.as_deref()),
        (2, Some("timeout"))
    );
    let metadata: serde_json::Value = serde_json::from_str(&state.metadata.unwrap()).unwrap();
    assert_eq!(metadata["retry_count"], 2);
    assert_eq!(metadata["last_error"]["code"], "timeout");

    let mut order = ids(&store).await;
    order.retain(|id| *id != alone);
    assert_eq!(order, [&*first, &*second]);
    let done = row(due(&store).await, &first);
    assert!(done.was_held());
    let held = put_off(&store, &done, Duration::from_secs(60), 3);
    mark(&store, &[held]).await.unwrap();
    mark(&store, &[settled(&done, EventStatus::Done)])
        .await
        .unwrap();
    assert_eq!(
        count(&store, "SELECT COUNT(*) FROM held_aggregates").await,
        0
    );
    assert!(
        ids(&store).await.contains(&second),
        "nothing waits any more"
    );
}

async fn a_row_that_is_put_off_has_no_failed_try(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let id = EventRow::new("a").of(&uuid()).insert(&store).await;
    let row = due(&store).await.remove(0);
    let off = put_off(&store, &row, Duration::from_secs(1), 0);
    mark(&store, &[off]).await.unwrap();

    let state = row_state(&store, &id).await;
    assert_eq!(
        (state.attempts, state.error_code, state.metadata),
        (0, None, None)
    );
    assert!(due(&store).await.is_empty());
    clock.advance(Duration::from_secs(2));
    assert_eq!(due(&store).await[0].attempts, 0);
}

async fn a_row_that_is_given_up_is_a_dead_letter_once(database: TestDatabase) {
    let store = database.store().await;
    let id = EventRow::new("a.happened")
        .payload(r#"{"n":1}"#)
        .insert(&store)
        .await;
    let row = due(&store).await.remove(0);
    let letter = NewDeadLetter {
        event_key: row.key().to_owned(),
        event_type: row.event_type.clone(),
        source: "events",
        error_class: "transient".to_owned(),
        error_code: "timeout".to_owned(),
        error_message: "chargebee is unavailable (timeout)".to_owned(),
        retry_count: 5,
        original: row.payload.to_vec(),
        delivery: "{}".to_owned(),
        ..NewDeadLetter::default()
    };
    let given_up = || Mark::GivenUp {
        run: run(&row),
        letter: Box::new(letter.clone()),
        outbox: Vec::new(),
    };
    mark(&store, &[given_up()]).await.unwrap();
    mark(&store, &[given_up()]).await.unwrap();

    let state = row_state(&store, &id).await;
    assert_eq!((state.processed, &*state.status), (true, "dead_lettered"));
    let letters = "SELECT COUNT(*) FROM event_dead_letters WHERE retry_count = 5";
    assert_eq!(count(&store, letters).await, 1);
    assert!(due(&store).await.is_empty());
}

async fn a_mark_of_an_earlier_run_changes_nothing(database: TestDatabase) {
    let store = database.store().await;
    let id = EventRow::new("a").of(&uuid()).insert(&store).await;
    let row = due(&store).await.remove(0);
    mark(&store, &[settled(&row, EventStatus::Done)])
        .await
        .unwrap();
    execute(&store, "UPDATE events SET processed = FALSE").await;

    let late = put_off(&store, &row, Duration::from_secs(60), 1);
    mark(&store, &[late, settled(&row, EventStatus::Skipped)])
        .await
        .unwrap();
    let state = row_state(&store, &id).await;
    assert_eq!(
        (state.processed, state.generation, state.attempts),
        (false, 1, 0)
    );
    assert_eq!(
        count(&store, "SELECT COUNT(*) FROM held_aggregates").await,
        0
    );
}

async fn metadata_that_is_no_object_stays_as_it_is(database: TestDatabase) {
    let store = database.store().await;
    let id = EventRow::new("a").metadata("[1]").insert(&store).await;
    let row = due(&store).await.remove(0);
    let failed = put_off(&store, &row, Duration::from_secs(1), 1);
    mark(&store, &[failed]).await.unwrap();
    let state = row_state(&store, &id).await;
    assert_eq!(
        (state.metadata.as_deref(), state.attempts),
        (Some("[1]"), 1)
    );
}

fn delivered(event: &str, message: &str, key: Option<&str>) -> Event {
    let delivery = Delivery {
        data: contract_event(event, "signed", "active").into(),
        message_id: Some(message.to_owned()),
        ordering_key: key.map(str::to_owned),
        attributes: vec![("origin".to_owned(), "shop".to_owned())],
        ..Delivery::default()
    };
    Event::decode(delivery).unwrap()
}

async fn a_delivery_is_kept_with_its_bytes_once_for_each_message(database: TestDatabase) {
    let store = database.store().await;
    let keeper = Keeper::new(store.clone(), TaskTracker::new());
    for message in ["m1", "m1", "m2"] {
        let event = delivered("event-1", message, None);
        keeper.keep(&event).await.unwrap();
    }
    let rows = due(&store).await;
    assert_eq!(rows.len(), 2);
    let event = delivered("event-1", "m1", None);
    for row in &rows {
        assert_eq!(row.key(), event.id.as_str());
        assert_eq!(row.original.as_ref(), Some(&event.delivery.data));
        assert_eq!((row.payload.len(), &row.aggregate), (0, &None));
        let note = hookyard::store::DeliveryNote::parse(row.delivery.as_deref().unwrap());
        assert_eq!(note.attributes, event.delivery.attributes);
    }
}

async fn deliveries_kept_at_once_are_all_kept_in_the_order_they_came(database: TestDatabase) {
    let store = database.store().await;
    let keeper = Keeper::new(store.clone(), TaskTracker::new());
    let events: Vec<Event> = (0..200)
        .map(|n| delivered(&format!("event-{n}"), &format!("m{n}"), Some("customer-7")))
        .collect();
    let kept = events.iter().map(|event| keeper.keep(event));
    for kept in futures_util::future::join_all(kept).await {
        kept.unwrap();
    }
    let wanted = Wanted {
        lanes: &LANES,
        per_lane: 1000,
        bytes: i64::MAX,
        without: &[],
        without_aggregates: &[],
    };
    let rows = store.due_events(wanted).await.unwrap();
    let order: Vec<&str> = rows.iter().map(DueEvent::key).collect();
    let came: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(order, came);
    assert!(rows.iter().all(|row| row.aggregate == rows[0].aggregate));
}

async fn rows_nobody_can_read_a_time_of_are_due_too(database: TestDatabase) {
    let store = database.store().await;
    EventRow::new("a").insert(&store).await;
    EventRow::new("a").insert(&store).await;
    if database.is_postgres() {
        execute(
            &store,
            "UPDATE events SET created_at = 'infinity' WHERE seq = 1",
        )
        .await;
    } else {
        execute(
            &store,
            "UPDATE events SET created_at = 'soon' WHERE seq = 1",
        )
        .await;
    }
    execute(&store, "UPDATE events SET created_at = NULL WHERE seq = 2").await;
    let rows = due(&store).await;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.created_at.is_none()));
}

async fn a_waiting_row_can_be_made_due(database: TestDatabase) {
    let store = database.store().await;
    let aggregate = uuid();
    let id = EventRow::new("a").of(&aggregate).at(1).insert(&store).await;
    EventRow::new("a").of(&aggregate).at(2).insert(&store).await;
    let row = due(&store).await.remove(0);
    let failed = put_off(&store, &row, Duration::from_secs(3600), 1);
    mark(&store, &[failed]).await.unwrap();
    assert!(due(&store).await.is_empty());

    assert_eq!(store.make_due(&id).await.unwrap(), [row.lane]);
    assert_eq!(due(&store).await.len(), 2);
    assert_eq!(store.make_due(&uuid()).await.unwrap(), [0; 0]);
    assert!(store.has_event(&id).await.unwrap());
    assert!(!store.has_event(&uuid()).await.unwrap());
}

async fn a_row_that_waits_behind_another_stays_behind_it_when_it_is_made_due(
    database: TestDatabase,
) {
    let store = database.store().await;
    let aggregate = uuid();
    let first = EventRow::new("a").of(&aggregate).at(1).insert(&store).await;
    let second = EventRow::new("a").of(&aggregate).at(2).insert(&store).await;
    let row = due(&store).await.remove(0);
    let failed = put_off(&store, &row, Duration::from_secs(3600), 1);
    mark(&store, &[failed]).await.unwrap();

    assert_eq!(store.make_due(&second).await.unwrap(), [row.lane]);
    assert!(due(&store).await.is_empty(), "the first has not run");
    store.make_due(&first).await.unwrap();
    assert_eq!(ids(&store).await, [first, second]);
}
