//! Redrives of dead letters: once each, from where to where, stopped and resumed.

use hookyard::desk::{DeadLetterFilter, Edit, Page, RunMode, StartRedrive};
use hookyard::sandbox::Fault;
use hookyard::store::redrives::{self, Taken};
use tokio::join;

use crate::desk_kit::{Yard, execute, keep, letter, operator, order};
use crate::support::{TestDatabase, both_databases, contract_event};

both_databases!(
    a_redriven_event_runs_again_and_its_dead_letter_is_closed,
    c12_two_redrives_of_one_dead_letter_at_once_run_it_once,
    c12_the_same_request_twice_is_one_redrive,
    c12_what_was_done_meanwhile_is_not_run_again_unless_forced,
    what_fails_again_stays_open_and_is_not_taken_along,
    a_dead_letter_of_a_used_id_is_not_taken_for_done,
    a_preview_says_what_would_run_and_runs_nothing,
    more_than_expected_begins_nothing,
    an_aborted_redrive_runs_no_further,
    a_redrive_whose_instance_died_goes_on_and_runs_nothing_twice,
    an_item_that_ends_every_instance_is_given_up_and_the_others_are_done,
    what_cannot_be_decoded_stays_open,
    a_busy_upstream_is_tried_again,
    a_corrected_copy_runs_under_a_new_id,
    u13_a_dead_letter_says_what_was_done_and_its_redrive_does_the_rest,
);

fn all() -> StartRedrive {
    StartRedrive {
        all: true,
        per_second: Some(10_000),
        ..StartRedrive::default()
    }
}

async fn statuses(yard: &Yard) -> Vec<(String, String)> {
    let filter = DeadLetterFilter {
        status: Some("all".to_owned()),
        ..DeadLetterFilter::default()
    };
    let page = yard
        .desk
        .dead_letters(&filter, &Page::default())
        .await
        .unwrap();
    let pair = |it: hookyard::desk::DeadLetter| (it.event_id, it.status);
    page.dead_letters.into_iter().rev().map(pair).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    expected.iter().map(owned).collect()
}

async fn a_redriven_event_runs_again_and_its_dead_letter_is_closed(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["e1", "e2"]).await;

    let over = yard.redrive_all().await;
    assert_eq!(over.redrive.state, "finished");
    assert_eq!((over.redrive.total, over.redrive.done), (2, 2), "{over:?}");
    let mut runs = yard.shipped.runs();
    runs.sort();
    assert_eq!(runs, ["e1", "e2"]);
    assert_eq!(
        statuses(&yard).await,
        pairs(&[("e1", "redriven"), ("e2", "redriven")])
    );
    // Pub/Sub delivering it once more changes nothing.
    assert_eq!(yard.app.push(&order("e1")).await.status, 200);
    assert_eq!(yard.shipped.runs().len(), 2);
    let actions: Vec<_> = yard.desk.audit(&Page::default()).await.unwrap().entries;
    assert_eq!(actions[0].action, "redrive.start");
    assert_eq!(actions[0].actor, "someone on call");
}

async fn c12_two_redrives_of_one_dead_letter_at_once_run_it_once(database: TestDatabase) {
    let store = database.store().await;
    keep(&store, &["e1", "e2", "e3"].map(letter)).await;
    // Both begin before there is a service, or the first could be over before the second begins.
    let desk = hookyard::desk::Desk::new(store, Vec::new());
    let (ask, by) = (all(), operator());
    let (one, two) = join!(desk.redrive(&ask, &by), desk.redrive(&ask, &by));

    let yard = Yard::on(&database).await;
    join!(yard.run(), yard.run(), yard.run());
    let one = yard.over(&one.unwrap().id).await.redrive;
    let two = yard.over(&two.unwrap().id).await.redrive;
    assert_eq!(one.done + two.done, 3, "{one:?} {two:?}");
    assert_eq!(one.skipped + two.skipped, 3);
    let mut runs = yard.shipped.runs();
    runs.sort();
    assert_eq!(runs, ["e1", "e2", "e3"]);
}

async fn c12_the_same_request_twice_is_one_redrive(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["e1"]).await;

    let ask = StartRedrive {
        request_id: Some("ticket 17".to_owned()),
        mode: RunMode::Force,
        ..all()
    };
    let by = operator();
    let (one, two) = join!(yard.desk.redrive(&ask, &by), yard.desk.redrive(&ask, &by));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.id, two.id);
    yard.run().await;
    yard.over(&one.id).await;
    let again = yard.desk.redrive(&ask, &by).await.unwrap();
    assert_eq!((again.id, again.done), (one.id, 1));
    assert_eq!(yard.shipped.runs(), ["e1"]);
    let other = StartRedrive {
        mode: RunMode::Force,
        select: DeadLetterFilter {
            handler: Some("shipping".to_owned()),
            ..DeadLetterFilter::default()
        },
        ..ask
    };
    let refused = yard.desk.redrive(&other, &by).await.unwrap_err();
    assert_eq!(refused.code(), "request_id_reused");
}

async fn c12_what_was_done_meanwhile_is_not_run_again_unless_forced(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    assert_eq!(yard.app.push(&order("e1")).await.status, 200);
    keep(&yard.store, &[letter("e1")]).await;
    let over = yard.redrive_all().await;
    assert_eq!((over.redrive.done, over.redrive.skipped), (0, 1));
    assert_eq!(
        over.problems[0].reason.as_deref(),
        Some("was done meanwhile")
    );
    assert_eq!(yard.shipped.runs(), ["e1"]);
    assert_eq!(statuses(&yard).await, pairs(&[("e1", "redriven")]));

    let mut another = letter("e1");
    another.error_code = "shipping_was_wrong".to_owned();
    keep(&yard.store, &[another]).await;
    let ask = StartRedrive {
        mode: RunMode::Force,
        ..all()
    };
    let redrive = yard.desk.redrive(&ask, &operator()).await.unwrap();
    yard.run().await;
    assert_eq!(yard.over(&redrive.id).await.redrive.done, 1);
    assert_eq!(yard.shipped.runs(), ["e1", "e1"]);
}

async fn what_fails_again_stays_open_and_is_not_taken_along(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["e1"]).await;
    yard.refuse(true);

    let over = yard.redrive_all().await;
    assert_eq!((over.redrive.total, over.redrive.failed), (1, 1));
    assert_eq!(over.problems[0].outcome, "dead_lettered");
    assert_eq!(statuses(&yard).await, pairs(&[("e1", "open")]));
    let force = StartRedrive {
        mode: RunMode::Force,
        ..all()
    };
    let redrive = yard.desk.redrive(&force, &operator()).await.unwrap();
    yard.run().await;
    assert_eq!(yard.over(&redrive.id).await.redrive.failed, 1);
    // A run of its own has a dead letter of its own.
    assert_eq!(
        statuses(&yard).await,
        pairs(&[("e1", "redriven"), ("e1", "open")])
    );
    yard.refuse(false);
    assert_eq!(yard.redrive_all().await.redrive.done, 1);
    assert_eq!(
        statuses(&yard).await,
        pairs(&[("e1", "redriven"), ("e1", "redriven")])
    );
    assert_eq!(yard.shipped.runs(), ["e1"]);
}

async fn a_dead_letter_of_a_used_id_is_not_taken_for_done(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    assert_eq!(yard.app.push(&order("e1")).await.status, 200);
    let other = order("e1").replace(r#"{"id":1}"#, r#"{"id":2}"#);
    assert_eq!(yard.app.push(&other).await.status, 200);
    assert_eq!(statuses(&yard).await, pairs(&[("e1", "open")]));

    let over = yard.redrive_all().await;
    assert_eq!((over.redrive.done, over.redrive.skipped), (0, 1));
    assert_eq!(statuses(&yard).await, pairs(&[("e1", "open")]));
    let force = StartRedrive {
        mode: RunMode::Force,
        ..all()
    };
    let redrive = yard.desk.redrive(&force, &operator()).await.unwrap();
    yard.run().await;
    assert_eq!(yard.over(&redrive.id).await.redrive.done, 1);
    assert_eq!(yard.shipped.runs(), ["e1", "e1"]);
}

async fn a_preview_says_what_would_run_and_runs_nothing(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["e1", "e2"]).await;
    assert_eq!(yard.app.push(&order("e3")).await.status, 200);
    keep(&yard.store, &[letter("e3")]).await;

    let preview = yard.desk.preview_redrive(&all()).await.unwrap();
    assert_eq!((preview.count, preview.done_since), (3, 1));
    assert_eq!(preview.handlers[0].name, "shipping");
    assert_eq!(preview.handlers[0].count, 3);
    let sample: Vec<_> = preview
        .sample
        .iter()
        .map(|it| it.event_id.as_str())
        .collect();
    assert_eq!(sample, ["e1", "e2", "e3"]);
    assert!(
        yard.desk
            .redrives(&Page::default())
            .await
            .unwrap()
            .redrives
            .is_empty()
    );
    assert_eq!(yard.shipped.runs(), ["e3"]);
}

async fn more_than_expected_begins_nothing(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["e1", "e2"]).await;
    let ask = StartRedrive {
        expected: Some(1),
        ..all()
    };
    let refused = yard.desk.redrive(&ask, &operator()).await.unwrap_err();
    assert_eq!(refused.code(), "more_than_expected");
    assert!(
        yard.desk
            .redrives(&Page::default())
            .await
            .unwrap()
            .redrives
            .is_empty()
    );
    let nothing = yard
        .desk
        .redrive(&StartRedrive::default(), &operator())
        .await;
    assert_eq!(nothing.unwrap_err().code(), "invalid_request");
}

async fn an_aborted_redrive_runs_no_further(database: TestDatabase) {
    let store = database.store().await;
    keep(&store, &[letter("e1"), letter("e2")]).await;
    let desk = hookyard::desk::Desk::new(store.clone(), Vec::new());
    let redrive = desk.redrive(&all(), &operator()).await.unwrap();
    let aborted = desk.abort(&redrive.id, &operator()).await.unwrap();
    assert_eq!(aborted.state, "aborted");
    let twice = desk.abort(&redrive.id, &operator()).await.unwrap_err();
    assert_eq!(twice.code(), "over");

    let yard = Yard::on(&database).await;
    yard.run().await;
    assert!(yard.shipped.runs().is_empty());
    assert_eq!(
        statuses(&yard).await,
        pairs(&[("e1", "open"), ("e2", "open")])
    );
    assert_eq!(yard.redrive_all().await.redrive.done, 2);
}

async fn a_redrive_whose_instance_died_goes_on_and_runs_nothing_twice(database: TestDatabase) {
    let store = database.store().await;
    keep(&store, &[letter("e1"), letter("e2"), letter("e3")]).await;
    let desk = hookyard::desk::Desk::new(store.clone(), Vec::new());
    let redrive = desk.redrive(&all(), &operator()).await.unwrap();
    // An instance takes two, runs one of them, and dies.
    let expired = store.now();
    let leased = redrives::lease(&store, expired).await.unwrap().unwrap();
    let Taken::Items(items) = redrives::take(&store, &leased, 2, expired).await.unwrap() else {
        panic!("there is something to do");
    };
    assert_eq!(items.len(), 2);
    let now = store.now();
    let sql = format!(
        "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, \
        attempt, outcome, event_type, instance, created_at, started_at, ended_at) \
        VALUES ('e1', 'shipping', 0, 2, 1, 0, 1, 'done', 'orders.update', 'dead', {now}, {now}, {now})"
    );
    execute(&store, sql).await;

    let yard = Yard::on(&database).await;
    yard.run().await;
    let over = yard.over(&redrive.id).await;
    assert_eq!(over.redrive.done, 3, "{over:?}");
    let mut runs = yard.shipped.runs();
    runs.sort();
    assert_eq!(runs, ["e2", "e3"]);
    // The dead one wakes up and must not count.
    let late = redrives::settle(&store, &leased, &[], store.now())
        .await
        .unwrap();
    assert!(!late);
}

async fn an_item_that_ends_every_instance_is_given_up_and_the_others_are_done(
    database: TestDatabase,
) {
    let store = database.store().await;
    let letters = ["e1", "e2", "e3", "e4"].map(letter);
    keep(&store, &letters).await;
    let desk = hookyard::desk::Desk::new(store.clone(), Vec::new());
    let redrive = desk.redrive(&all(), &operator()).await.unwrap();
    // Whatever is taken together with it dies with it; the first time nobody knows of what.
    let mut taken = Vec::new();
    for _ in 0..6 {
        let expired = store.now() - 1;
        let leased = redrives::lease(&store, expired).await.unwrap().unwrap();
        let page = redrives::take(&store, &leased, 3, expired).await.unwrap();
        let Taken::Items(items) = page else {
            panic!("there is something to do");
        };
        taken.push(items.len());
    }
    assert_eq!(taken, [3, 1, 1, 1, 1, 1]);

    let yard = Yard::on(&database).await;
    yard.run().await;
    let over = yard.over(&redrive.id).await;
    assert_eq!((over.redrive.done, over.redrive.failed), (3, 1), "{over:?}");
    assert_eq!(yard.shipped.runs().len(), 3);
    let open = statuses(&yard).await;
    let open: Vec<_> = open.iter().filter(|(_, it)| it == "open").collect();
    assert_eq!(open.len(), 1, "{open:?}");
}

async fn what_cannot_be_decoded_stays_open(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    assert_eq!(yard.app.push("no event at all").await.status, 200);
    let mut unknown = letter("e9");
    unknown.handler = None;
    unknown.event_type = "gadgets.update".to_owned();
    unknown.original = crate::support::event("e9", "gadgets", "UPDATE", "null", "{}").into_bytes();
    keep(&yard.store, &[unknown]).await;

    let over = yard.redrive_all().await;
    assert_eq!((over.redrive.failed, over.redrive.done), (2, 0));
    let reasons: Vec<_> = over
        .problems
        .iter()
        .filter_map(|it| it.reason.as_deref())
        .collect();
    assert_eq!(
        reasons,
        [
            "no handler takes this event type",
            "the data is not one JSON document"
        ]
    );
    let open = statuses(&yard).await;
    assert!(open.iter().all(|(_, status)| status == "open"), "{open:?}");
    assert_eq!(open.len(), 2);
}

async fn a_busy_upstream_is_tried_again(database: TestDatabase) {
    use std::sync::atomic::Ordering;
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["e1"]).await;
    yard.shipped.busy.store(true, Ordering::SeqCst);
    let redrive = yard.desk.redrive(&all(), &operator()).await.unwrap();
    let mend = async {
        loop {
            let story = yard.desk.explain("e1").await.unwrap();
            let run = story.events[0].runs.first();
            if run.is_some_and(|run| !run.failures.is_empty()) {
                yard.shipped.busy.store(false, Ordering::SeqCst);
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    join!(mend, yard.run());
    let over = yard.over(&redrive.id).await;
    assert_eq!((over.redrive.done, over.redrive.failed), (1, 0));
    assert_eq!(yard.shipped.runs(), ["e1"]);
}

async fn a_corrected_copy_runs_under_a_new_id(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["e1"]).await;
    let (all, first) = (DeadLetterFilter::default(), Page::default());
    let page = yard.desk.dead_letters(&all, &first).await.unwrap();
    let id = page.dead_letters[0].id.clone();
    let edit = |payload: &str| Edit {
        payload: payload.to_owned(),
        request_id: Some("once".to_owned()),
    };
    for broken in ["", "[]", "{}", "{\"id\":1", "\"e1\""] {
        let refused = yard
            .desk
            .edit(&id, &edit(broken), &operator())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), "invalid_request", "{broken}");
    }

    let corrected = order("e1").replace(r#"{"id":1}"#, r#"{"id":12345678901234567890.10}"#);
    let edited = yard
        .desk
        .edit(&id, &edit(&corrected), &operator())
        .await
        .unwrap();
    let again = yard
        .desk
        .edit(&id, &edit(&corrected), &operator())
        .await
        .unwrap();
    assert_eq!(edited, again);
    yard.run().await;
    assert_eq!(yard.over(&edited.redrive_id).await.redrive.done, 1);
    assert_eq!(yard.shipped.runs(), [edited.event_id.as_str()]);

    let expected = [("e1", "redriven"), (edited.event_id.as_str(), "redriven")];
    assert_eq!(statuses(&yard).await, pairs(&expected));
    let other = Edit {
        request_id: None,
        ..edit(&corrected)
    };
    let refused = yard.desk.edit(&id, &other, &operator()).await.unwrap_err();
    assert_eq!(refused.code(), "decided");
    let story = yard.desk.explain(&edited.event_id).await.unwrap();
    assert_eq!(story.events[0].correlation_id.as_deref(), Some("e1"));
}

async fn u13_a_dead_letter_says_what_was_done_and_its_redrive_does_the_rest(
    database: TestDatabase,
) {
    let yard = Yard::on(&database).await;
    let faults = yard.app.sandbox.hasura().faults();
    faults.pass();
    faults.next(Fault::graphql_error("constraint-violation"));
    let event = contract_event("c1", "signed", "active");
    assert_eq!(yard.app.push(&event).await.status, 200);

    let (all, first) = (DeadLetterFilter::default(), Page::default());
    let page = yard.desk.dead_letters(&all, &first).await.unwrap();
    assert_eq!(
        page.dead_letters[0].error_message,
        "hasura rejected the request (constraint-violation); \
         done before: chargebee POST /subscriptions/{id}/update_for_items"
    );
    assert_eq!(yard.app.effects().len(), 1);
    assert!(yard.app.events().is_empty());

    assert_eq!(yard.redrive_all().await.redrive.done, 1);
    yard.app.wait_for_events(1).await;
    let effects = yard.app.effects();
    assert_eq!(effects.len(), 2, "{effects:?}");
    assert_eq!(
        yard.app.hasura_subscription_id("c1-contract").as_deref(),
        Some("c1-sub")
    );
    assert_eq!(
        yard.app.chargebee_contract_id("c1-sub").as_deref(),
        Some("c1-contract")
    );
}
