//! Row S4: what was kept about somebody can be taken out, and what is left says that it was.

use hookyard::desk::{By, Desk, Erase, Erased, Page};
use hookyard::store::dead_letters::{self, NewDeadLetter};
use hookyard::store::outbox::{self, OutboxRow};
use hookyard::store::{DeliveryNote, Store};
use uuid::Uuid;

use crate::support::{TestDatabase, both_databases, execute, texts};

both_databases!(
    s4_a_subject_is_taken_out_of_every_table,
    s4_a_subject_is_found_however_json_writes_it,
    s4_an_event_is_taken_out_by_its_id,
    s4_an_erased_event_is_not_run_any_more,
    s4_a_dry_run_only_counts,
    s4_what_says_too_little_is_refused,
);

const PERSON: &str = "0b5c9f3e-77aa-4d1c-9d0e-5f0d6a3c2b11";

fn desk(store: &Store) -> Desk {
    Desk::new(store.clone(), Vec::new())
}

fn operator() -> By {
    By {
        actor: "somebody".to_owned(),
        reason: "asked to be forgotten".to_owned(),
    }
}

fn about(subject: &str) -> Erase {
    Erase {
        subject: Some(subject.to_owned()),
        ..Erase::default()
    }
}

fn only(event_id: &str) -> Erase {
    Erase {
        event_id: Some(event_id.to_owned()),
        ..Erase::default()
    }
}

/// Fills every table with one row that says `text` and one that does not. Text is JSON.
async fn fill(store: &Store, text: &str) {
    for (name, says) in [("theirs", text), ("others", "nobody")] {
        let id = Uuid::new_v4();
        let sql = format!(
            "INSERT INTO events (id, event_key, event_type, payload, metadata, processed, status) \
             VALUES ('{id}', '{name}', 't', '{{\"user\": \"{says}\"}}', '{{}}', TRUE, 'done')"
        );
        execute(store, &sql).await;
        let mut tx = store.begin().await.unwrap();
        let body = format!("{{\"user\":\"{says}\"}}").into_bytes();
        let note = DeliveryNote {
            ordering_key: Some(says.to_owned()),
            ..DeliveryNote::default()
        };
        let letter = NewDeadLetter {
            event_key: name.to_owned(),
            source: "push",
            original: body.clone(),
            delivery: note.to_json(),
            ..NewDeadLetter::default()
        };
        dead_letters::insert(&mut tx, &letter, 1).await.unwrap();
        for state in ["published", "waiting"] {
            let row = OutboxRow {
                message_id: format!("{name}-{state}"),
                topic: "events".to_owned(),
                ordering_key: Some(says.to_owned()),
                event_type: "t".to_owned(),
                cause_id: name.to_owned(),
                handler: "h".to_owned(),
                correlation_id: None,
                trace_id: None,
                data: body.clone().into(),
                attributes: vec![("ce-subject".to_owned(), says.to_owned())],
            };
            outbox::insert(&mut tx, &[row], 1).await.unwrap();
        }
        tx.commit().await.unwrap();
        let sql = format!(
            "UPDATE outbox SET state = 1 WHERE message_id = '{name}-published'; \
             INSERT INTO subjects (handler, subject, changed_at, event_id, seen_at) \
             VALUES ('h', 'users {says}', 1, '{name}', 1)"
        );
        execute(store, &sql).await;
    }
}

/// Returns everything that is kept, as one text.
async fn everything(store: &Store) -> String {
    let bytes = |column: &str| {
        if store.is_postgres() {
            format!("COALESCE(convert_from({column}, 'UTF8'), '-')")
        } else {
            format!("COALESCE(CAST({column} AS TEXT), '-')")
        }
    };
    let sql = format!(
        "SELECT event_key || ' ' || status || ' ' || CAST(payload AS TEXT) || ' ' || \
         COALESCE(CAST(metadata AS TEXT), '') FROM events \
         UNION ALL SELECT event_key || ' ' || status || ' ' || CAST(payload AS TEXT) || ' ' || {} \
         || ' ' || COALESCE(delivery, '') FROM event_dead_letters \
         UNION ALL SELECT message_id || ' ' || COALESCE(ordering_key, '') || attributes || {} \
         FROM outbox WHERE state <> 0 \
         UNION ALL SELECT event_id || ' ' || subject FROM subjects",
        bytes("original"),
        bytes("data"),
    );
    let mut rows = texts(store, &sql).await;
    rows.sort();
    rows.join("\n")
}

const ALL: Erased = Erased {
    events: 1,
    dead_letters: 1,
    outbox: 1,
    subjects: 1,
    waiting: 1,
    dry_run: false,
};

async fn s4_a_subject_is_taken_out_of_every_table(database: TestDatabase) {
    let store = database.store().await;
    fill(&store, PERSON).await;
    assert_eq!(everything(&store).await.matches(PERSON).count(), 8);

    let erased = desk(&store).erase(&about(PERSON), &operator()).await;

    assert_eq!(erased.unwrap(), ALL);
    let left = everything(&store).await;
    assert!(!left.contains(PERSON), "{left}");
    assert_eq!(left.matches("nobody").count(), 8, "{left}");
    assert!(left.contains("theirs discarded {}"), "{left}");
    let again = desk(&store).erase(&about(PERSON), &operator()).await;
    assert_eq!(again.unwrap().dead_letters, 0);
    // The audit tells that it was done, not about whom.
    let audit = desk(&store).audit(&Page::default()).await.unwrap();
    let entry = audit.entries.last().unwrap();
    assert_eq!(
        (entry.action.as_str(), entry.actor.as_str()),
        ("erase", "somebody")
    );
    assert!(!serde_json::to_string(&audit).unwrap().contains(PERSON));
}

async fn s4_a_subject_is_found_however_json_writes_it(database: TestDatabase) {
    let spellings = ["jörg/o'neil@example.com", r"j\u00f6rg\/o'neil@example.com"];
    for spelling in spellings {
        let store = database.store().await;
        let bytes = format!("{{\"mail\":\"{spelling}\"}}").into_bytes();
        let letter = NewDeadLetter {
            event_key: spelling.len().to_string(),
            source: "push",
            original: bytes,
            ..NewDeadLetter::default()
        };
        let mut tx = store.begin().await.unwrap();
        dead_letters::insert(&mut tx, &letter, 1).await.unwrap();
        tx.commit().await.unwrap();

        let erased = desk(&store).erase(&about(spellings[0]), &operator()).await;

        assert_eq!(erased.unwrap().dead_letters, 1, "{spelling}");
    }
}

async fn s4_an_event_is_taken_out_by_its_id(database: TestDatabase) {
    let store = database.store().await;
    fill(&store, PERSON).await;

    let erased = desk(&store).erase(&only("theirs"), &operator()).await;

    assert_eq!(erased.unwrap(), ALL);
    let left = everything(&store).await;
    assert!(!left.contains(PERSON), "{left}");
    let audit = desk(&store).audit(&Page::default()).await.unwrap();
    assert_eq!(audit.entries[0].target, "theirs");
}

async fn s4_an_erased_event_is_not_run_any_more(database: TestDatabase) {
    let store = database.store().await;
    let row = crate::support::rows::EventRow::new("t");
    let id = row
        .of(PERSON)
        .payload(r#"{"name":"x"}"#)
        .insert(&store)
        .await;

    let erased = desk(&store).erase(&about(PERSON), &operator()).await;

    assert_eq!(erased.unwrap().events, 1);
    let sql = format!(
        "SELECT status || ' ' || CAST(payload AS TEXT) FROM events \
         WHERE CAST(id AS TEXT) = '{id}' AND processed AND aggregate_id IS NULL"
    );
    assert_eq!(texts(&store, &sql).await, ["skipped {}"]);
}

async fn s4_a_dry_run_only_counts(database: TestDatabase) {
    let store = database.store().await;
    fill(&store, PERSON).await;
    let before = everything(&store).await;
    let ask = Erase {
        dry_run: true,
        ..about(PERSON)
    };

    let counted = desk(&store).erase(&ask, &operator()).await.unwrap();

    let expected = Erased {
        dry_run: true,
        ..ALL
    };
    assert_eq!(counted, expected);
    assert_eq!(everything(&store).await, before);
    let audit = desk(&store).audit(&Page::default()).await.unwrap();
    assert!(audit.entries.is_empty());
}

async fn s4_what_says_too_little_is_refused(database: TestDatabase) {
    let desk = desk(&database.store().await);
    let both = Erase {
        event_id: Some("e".to_owned()),
        ..about(PERSON)
    };
    for ask in [Erase::default(), about("a"), both] {
        let refused = desk.erase(&ask, &operator()).await.unwrap_err();
        assert_eq!(refused.code(), "invalid_request");
    }
    let nobody = By {
        reason: " ".to_owned(),
        ..operator()
    };
    assert!(desk.erase(&about(PERSON), &nobody).await.is_err());
}
