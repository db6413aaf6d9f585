//! Dead letters at the desk: found, grouped, given up.

use hookyard::desk::{DeadLetterFilter, Desk, DeskError, Discard, Page};

use crate::desk_kit::{execute, keep, letter, operator};
use crate::support::{TestDatabase, both_databases};

both_databases!(
    a_failure_is_kept_once_with_its_bytes,
    bytes_that_are_no_json_for_the_column_are_kept_all_the_same,
    pages_hold_every_dead_letter_once,
    s12_pages_and_filters_that_make_no_sense_are_refused,
    s10_what_looks_like_sql_in_a_filter_finds_nothing_and_breaks_nothing,
    failures_of_one_kind_are_one_group,
    rows_that_another_service_wrote_are_shown_too,
    discarding_needs_a_reason_and_leaves_a_note,
    discarding_more_than_was_seen_is_refused,
);

fn desk(store: &hookyard::store::Store) -> Desk {
    Desk::new(store.clone(), Vec::new())
}

fn code(error: &DeskError) -> &str {
    error.code()
}

async fn a_failure_is_kept_once_with_its_bytes(database: TestDatabase) {
    let store = database.store().await;
    keep(&store, &[letter("e1"), letter("e1")]).await;
    keep(&store, &[letter("e1")]).await;

    let desk = desk(&store);
    let page = desk
        .dead_letters(&DeadLetterFilter::default(), &Page::default())
        .await
        .unwrap();
    assert_eq!((page.total, page.dead_letters.len()), (1, 1));
    let shown = desk.dead_letter(&page.dead_letters[0].id).await.unwrap();
    assert_eq!(shown.dead_letter.event_id, "e1");
    assert_eq!(shown.payload, None);
    let shown = desk
        .dead_letter_with_payload(&page.dead_letters[0].id, &operator())
        .await
        .unwrap();
    let text = shown.payload.unwrap().text.unwrap();
    assert_eq!(text, crate::desk_kit::order("e1"));
}

async fn bytes_that_are_no_json_for_the_column_are_kept_all_the_same(database: TestDatabase) {
    let store = database.store().await;
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        br#"{"a":"\u0000"}"#.to_vec(),
        br#"{"a":"\ud800"}"#.to_vec(),
        br#"{"a":1e400000}"#.to_vec(),
        br#"{"a":1E+999999}"#.to_vec(),
        format!("[{}]", "9".repeat(200_000)).into_bytes(),
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes(),
        b"{\"a\":1}{\"b\":2}".to_vec(),
        br#"{"fine":[1,2.5,{"x":null}]}"#.to_vec(),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let mut row = letter(&format!("no\0uuid-{number}"));
        row.original.clone_from(body);
        row.error_message = "with a \0 in it".to_owned();
        keep(&store, &[row]).await;
    }

    let desk = desk(&store);
    let page = desk
        .dead_letters(&DeadLetterFilter::default(), &Page::default())
        .await
        .unwrap();
    assert_eq!(page.total, i64::try_from(bodies.len()).unwrap());
    for (shown, body) in page.dead_letters.iter().rev().zip(&bodies) {
        let detail = desk
            .dead_letter_with_payload(&shown.id, &operator())
            .await
            .unwrap();
        let payload = detail.payload.unwrap();
        assert_eq!(shown.size_bytes, i64::try_from(body.len()).unwrap());
        match String::from_utf8(body.clone()) {
            Ok(text) => assert_eq!(payload.text.unwrap(), text),
            Err(_) => assert_eq!(payload.base64.unwrap(), "//4A"),
        }
    }
}

async fn pages_hold_every_dead_letter_once(database: TestDatabase) {
    let store = database.store().await;
    let letters: Vec<_> = (0..25).map(|n| letter(&format!("e{n}"))).collect();
    keep(&store, &letters).await;
    let desk = desk(&store);

    let mut page = Page {
        limit: Some(10),
        cursor: None,
    };
    let mut seen = Vec::new();
    loop {
        let answer = desk
            .dead_letters(&DeadLetterFilter::default(), &page)
            .await
            .unwrap();
        assert_eq!(answer.total, 25);
        seen.extend(answer.dead_letters.into_iter().map(|it| it.event_id));
        // What fails meanwhile does not shift the pages.
        keep(&store, &[letter("newer")]).await;
        page.cursor = answer.next;
        if page.cursor.is_none() {
            break;
        }
        keep(&store, &[]).await;
        // The count moves with the newer one, the pages do not.
        let filter = DeadLetterFilter {
            event_id: Some("newer".to_owned()),
            ..DeadLetterFilter::default()
        };
        let ask = Discard {
            select: filter,
            expected: Some(1),
        };
        desk.discard(&ask, &operator()).await.unwrap();
    }
    let expected: Vec<_> = (0..25).rev().map(|n| format!("e{n}")).collect();
    assert_eq!(seen, expected);
}

async fn s12_pages_and_filters_that_make_no_sense_are_refused(database: TestDatabase) {
    let store = database.store().await;
    keep(&store, &[letter("e1")]).await;
    let desk = desk(&store);
    for limit in [0, -1, 1001, 1_000_000_000, i64::MIN, i64::MAX] {
        let page = Page {
            limit: Some(limit),
            cursor: None,
        };
        let filter = DeadLetterFilter::default();
        let refused = [
            desk.dead_letters(&filter, &page).await.map(|_| ()),
            desk.redrives(&page).await.map(|_| ()),
            desk.audit(&page).await.map(|_| ()),
        ];
        for answer in refused {
            assert_eq!(code(&answer.unwrap_err()), "invalid_request", "{limit}");
        }
    }
    for cursor in [
        "",
        "x",
        "-1",
        "0",
        "99999999999999999999",
        "1;DROP TABLE audit",
        "1.",
        ".x",
    ] {
        let page = Page {
            limit: None,
            cursor: Some(cursor.to_owned()),
        };
        let filter = DeadLetterFilter::default();
        let answer = desk.dead_letters(&filter, &page).await;
        assert_eq!(code(&answer.unwrap_err()), "invalid_request", "{cursor}");
        assert_eq!(
            code(&desk.redrives(&page).await.unwrap_err()),
            "invalid_request"
        );
    }
    let text = |value: &str| Some(value.to_owned());
    let none = DeadLetterFilter::default;
    let filters = [
        DeadLetterFilter {
            since: text("yesterday"),
            ..none()
        },
        DeadLetterFilter {
            until: text("2026-13-01T00:00:00Z"),
            ..none()
        },
        DeadLetterFilter {
            until: text(""),
            ..none()
        },
        DeadLetterFilter {
            status: text("closed"),
            ..none()
        },
        DeadLetterFilter {
            source: text("elsewhere"),
            ..none()
        },
        DeadLetterFilter {
            error_class: text("odd"),
            ..none()
        },
        DeadLetterFilter {
            ids: vec!["no-uuid".to_owned()],
            ..none()
        },
        DeadLetterFilter {
            ids: vec![String::new(); 1001],
            ..none()
        },
        DeadLetterFilter {
            handler: text("a\0b"),
            ..none()
        },
        DeadLetterFilter {
            handler: Some("x".repeat(10_000)),
            ..none()
        },
    ];
    for filter in filters {
        let answer = desk.dead_letters(&filter, &Page::default()).await;
        assert_eq!(code(&answer.unwrap_err()), "invalid_request", "{filter:?}");
    }
    // A time far away is no mistake.
    for year in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        let filter = DeadLetterFilter {
            since: text(year),
            ..none()
        };
        desk.dead_letters(&filter, &Page::default()).await.unwrap();
    }
    assert_eq!(
        code(
            &desk
                .dead_letter_with_payload("1 OR 1=1", &operator())
                .await
                .unwrap_err()
        ),
        "invalid_request"
    );
    let unknown = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        code(
            &desk
                .dead_letter_with_payload(unknown, &operator())
                .await
                .unwrap_err()
        ),
        "not_found"
    );
}

async fn s10_what_looks_like_sql_in_a_filter_finds_nothing_and_breaks_nothing(
    database: TestDatabase,
) {
    let store = database.store().await;
    keep(&store, &[letter("e1")]).await;
    let desk = desk(&store);
    for attack in [
        "' OR '1'='1",
        "'; DROP TABLE event_dead_letters; --",
        "\\'; SELECT 1; --",
        "%",
        "_",
        "$1",
        "?",
        "NULL",
        "$$;$$",
    ] {
        let text = Some(attack.to_owned());
        let filters = [
            DeadLetterFilter {
                handler: text.clone(),
                ..DeadLetterFilter::default()
            },
            DeadLetterFilter {
                event_type: text.clone(),
                ..DeadLetterFilter::default()
            },
            DeadLetterFilter {
                event_id: text.clone(),
                ..DeadLetterFilter::default()
            },
            DeadLetterFilter {
                fingerprint: text.clone(),
                ..DeadLetterFilter::default()
            },
            DeadLetterFilter {
                correlation_id: text.clone(),
                ..DeadLetterFilter::default()
            },
            DeadLetterFilter {
                error_code: text,
                ..DeadLetterFilter::default()
            },
        ];
        for filter in filters {
            let page = desk.dead_letters(&filter, &Page::default()).await.unwrap();
            assert!(page.dead_letters.is_empty(), "{filter:?}");
            assert!(desk.groups(&filter).await.unwrap().is_empty());
            let ask = Discard {
                select: filter,
                expected: None,
            };
            assert_eq!(desk.discard(&ask, &operator()).await.unwrap().count, 0);
        }
        let answer = desk.explain(attack).await;
        assert_eq!(code(&answer.unwrap_err()), "not_found", "{attack}");
    }
    let page = desk
        .dead_letters(&DeadLetterFilter::default(), &Page::default())
        .await
        .unwrap();
    assert_eq!(page.total, 1);
}

async fn failures_of_one_kind_are_one_group(database: TestDatabase) {
    let store = database.store().await;
    let with = |key: &str, code: &str, message: &str| {
        let mut row = letter(key);
        row.error_code = code.to_owned();
        row.error_message = message.to_owned();
        row
    };
    let timeout = "took 1500 ms for order 3f1c2d2e-0000-4000-8000-000000000001";
    let other_timeout = "took 31 ms for order 9a1c2d2e-0000-4000-8000-00000000000f";
    let rows = [
        with("a", "timeout", timeout),
        with("b", "timeout", other_timeout),
        with("c", "not_found", "chargebee has no such subscription"),
    ];
    keep(&store, &rows).await;

    let desk = desk(&store);
    let groups = desk.groups(&DeadLetterFilter::default()).await.unwrap();
    let counts: Vec<_> = groups
        .iter()
        .map(|it| (it.error_code.as_str(), it.count))
        .collect();
    assert_eq!(counts, [("timeout", 2), ("not_found", 1)]);
    let filter = DeadLetterFilter {
        fingerprint: Some(groups[0].fingerprint.clone()),
        ..DeadLetterFilter::default()
    };
    let page = desk.dead_letters(&filter, &Page::default()).await.unwrap();
    assert_eq!(page.total, 2);
    assert_eq!(groups[0].newest_id, page.dead_letters[0].id);
}

async fn rows_that_another_service_wrote_are_shown_too(database: TestDatabase) {
    let store = database.store().await;
    let sql = "INSERT INTO event_dead_letters (id, event_id, event_type, payload, error_message, \
        retry_count, original_created_at) VALUES ('3f1c2d2e-0000-4000-8000-000000000001', \
        '3f1c2d2e-0000-4000-8000-000000000002', 'user.verified', '{\"a\": 1}', 'no', 5, \
        '2026-01-05 10:00:00+00:00')";
    execute(&store, sql).await;

    let desk = desk(&store);
    let id = "3f1c2d2e-0000-4000-8000-000000000001";
    let shown = desk
        .dead_letter_with_payload(id, &operator())
        .await
        .unwrap();
    assert_eq!(
        shown.dead_letter.event_id,
        "3f1c2d2e-0000-4000-8000-000000000002"
    );
    let (first_at, kept_at) = (shown.dead_letter.first_at, shown.dead_letter.kept_at);
    assert_eq!(first_at.to_string(), "2026-01-05T10:00:00.000000Z");
    assert!(kept_at.to_string().starts_with("20"), "{kept_at}");
    assert_eq!(shown.payload.unwrap().text.unwrap(), "{\"a\": 1}");
}

async fn discarding_needs_a_reason_and_leaves_a_note(database: TestDatabase) {
    let store = database.store().await;
    keep(&store, &[letter("e1"), letter("e2")]).await;
    let desk = desk(&store);
    let page = desk
        .dead_letters(&DeadLetterFilter::default(), &Page::default())
        .await
        .unwrap();
    let id = page.dead_letters[0].id.clone();
    let ask = Discard {
        select: DeadLetterFilter {
            ids: vec![id.clone()],
            ..DeadLetterFilter::default()
        },
        expected: Some(1),
    };
    let mut by = operator();
    by.reason = "  ".to_owned();
    assert_eq!(
        code(&desk.discard(&ask, &by).await.unwrap_err()),
        "invalid_request"
    );
    let nothing = desk.discard(&Discard::default(), &operator()).await;
    assert_eq!(code(&nothing.unwrap_err()), "invalid_request");

    assert_eq!(desk.discard(&ask, &operator()).await.unwrap().count, 1);
    let again = desk.discard(&ask, &operator()).await;
    assert_eq!(code(&again.unwrap_err()), "decided");
    let shown = desk.dead_letter(&id).await.unwrap().dead_letter;
    assert_eq!(shown.status, "discarded");
    assert_eq!(shown.decided_by.as_deref(), Some("someone on call"));
    assert_eq!(shown.note.as_deref(), Some("the warehouse is open again"));
    let audit = desk.audit(&Page::default()).await.unwrap().entries;
    assert_eq!(audit.len(), 1);
    assert_eq!(audit[0].action, "dead_letter.discard");
    assert_eq!(audit[0].target, id);
    let open = desk
        .dead_letters(&DeadLetterFilter::default(), &Page::default())
        .await
        .unwrap();
    assert_eq!(open.total, 1);
}

async fn discarding_more_than_was_seen_is_refused(database: TestDatabase) {
    let store = database.store().await;
    keep(&store, &[letter("e1"), letter("e2")]).await;
    let desk = desk(&store);
    let ask = Discard {
        select: DeadLetterFilter {
            handler: Some("shipping".to_owned()),
            ..DeadLetterFilter::default()
        },
        expected: Some(1),
    };
    let refused = desk.discard(&ask, &operator()).await.unwrap_err();
    assert_eq!(code(&refused), "more_than_expected");
    let open = desk
        .dead_letters(&DeadLetterFilter::default(), &Page::default())
        .await
        .unwrap();
    assert_eq!(open.total, 2);
    assert!(
        desk.audit(&Page::default())
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}
