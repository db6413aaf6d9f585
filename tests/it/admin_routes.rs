//! What docs/API.md says of single routes, asked over HTTP.

use hookyard::store::dead_letters::{self, NewDeadLetter};
use serde_json::{Value, json};

use crate::admin_access::{Operator, get, operator};
use crate::desk_kit::{Yard, execute, keep, letter, processed, row_id};
use crate::support::rows::EventRow;
use crate::support::{Behaviour, Probe, TestApp, TestDatabase, both_databases, eventually};

both_databases!(
    every_filter_of_dead_letters_narrows_the_list,
    an_id_is_found_whatever_it_is_and_a_stranger_is_not,
    ordering_keys_are_shown_when_they_are_asked_for_and_that_is_audited,
    a_redrive_can_be_asked_for_twice_forced_and_aborted,
    what_failed_again_is_named_by_its_redrive,
    some_are_discarded_and_the_others_stay,
    a_replay_is_previewed_limited_to_a_handler_and_counted,
    a_batch_runs_what_is_due,
    nothing_is_done_about_what_is_not_there,
);

/// Posts; returns status and body.
async fn post(app: &TestApp, path: &str, body: Value) -> (u16, Value) {
    let answer = operator(app).post(path, &body).await;
    (answer.status.as_u16(), answer.json())
}

/// Keeps two dead letters that have nothing in common: `one`, and `two` an hour later.
async fn two_letters(yard: &Yard) {
    let other = NewDeadLetter {
        event_type: "user.verified".to_owned(),
        source: "subscription",
        handler: None,
        error_class: "transient".to_owned(),
        error_code: "timeout".to_owned(),
        error_message: "no answer (timeout)".to_owned(),
        message_id: Some("message-2".to_owned()),
        correlation_id: Some("story-2".to_owned()),
        trace_id: Some("13b469bed344a0b3d1f872d30ce4438b".to_owned()),
        ..letter("two")
    };
    let ten = 1_767_607_200_000_000; // 2026-01-05T10:00:00Z
    let mut tx = yard.store.begin().await.unwrap();
    for (letter, at) in [(letter("one"), ten), (other, ten + 3_600_000_000)] {
        dead_letters::insert(&mut tx, &letter, at).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn every_filter_of_dead_letters_narrows_the_list(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    two_letters(&yard).await;
    let all = get(&yard.app, "/dead-letters").await;
    let letters = all["dead_letters"].as_array().unwrap();
    // Newest first.
    let text = |name: &str| letters[0][name].as_str().unwrap().to_owned();
    let (id, fingerprint) = (text("id"), text("fingerprint"));

    for (query, found) in [
        (format!("ids={id}"), vec!["two"]),
        (
            format!("ids={id},{}", letters[1]["id"].as_str().unwrap()),
            vec!["two", "one"],
        ),
        (format!("fingerprint={fingerprint}"), vec!["two"]),
        ("event_type=user.verified".to_owned(), vec!["two"]),
        ("event_type=user.verifie".to_owned(), vec![]),
        ("handler=shipping".to_owned(), vec!["one"]),
        ("source=subscription".to_owned(), vec!["two"]),
        ("error_class=transient".to_owned(), vec!["two"]),
        ("error_code=shipping_refuses".to_owned(), vec!["one"]),
        ("event_id=one".to_owned(), vec!["one"]),
        ("correlation_id=story-2".to_owned(), vec!["two"]),
        ("status=all".to_owned(), vec!["two", "one"]),
        ("status=discarded".to_owned(), vec![]),
        ("since=2026-01-05T10:30:00Z".to_owned(), vec!["two"]),
        ("until=2026-01-05T11:00:00Z".to_owned(), vec!["one"]),
        (
            "since=2026-01-05T10:00:00Z&until=2026-01-05T11:00:01Z".to_owned(),
            vec!["two", "one"],
        ),
        ("handler=shipping&error_code=timeout".to_owned(), vec![]),
    ] {
        let list = get(&yard.app, &format!("/dead-letters?{query}")).await;
        let ids = list["dead_letters"].as_array().unwrap().iter();
        let ids: Vec<_> = ids.map(|it| it["event_id"].as_str().unwrap()).collect();
        assert_eq!(ids, found, "{query}");
        assert_eq!(list["total"], found.len(), "{query}");
        let groups = get(&yard.app, &format!("/dead-letters/groups?{query}")).await;
        let groups = groups["groups"].as_array().unwrap();
        assert_eq!(groups.len(), found.len(), "{query}");
    }
}

async fn an_id_is_found_whatever_it_is_and_a_stranger_is_not(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    two_letters(&yard).await;
    let letters = get(&yard.app, "/dead-letters?event_id=two").await;
    let id = letters["dead_letters"][0]["id"].as_str().unwrap();
    for (id, kind) in [
        ("two", "event"),
        (id, "dead_letter"),
        ("message-2", "message"),
        ("story-2", "correlation"),
        ("13b469bed344a0b3d1f872d30ce4438b", "trace"),
    ] {
        let story = get(&yard.app, &format!("/explain/{id}")).await;
        assert!(
            story["found_as"].as_array().unwrap().contains(&json!(kind)),
            "{id}: {story}"
        );
        assert_eq!(story["events"][0]["event_id"], "two", "{id}: {story}");
    }
    let stranger = operator(&yard.app).get("/explain/nobody").await;
    assert_eq!(
        (stranger.status.as_u16(), &stranger.json()["error"]["code"]),
        (404, &json!("not_found"))
    );
}

async fn ordering_keys_are_shown_when_they_are_asked_for_and_that_is_audited(
    database: TestDatabase,
) {
    let app = TestApp::builder()
        .database(&database)
        .variable("ADMIN_READ_TOKEN", "look");
    let app = app.start().await;
    let sql = "INSERT INTO outbox (lane, message_id, topic, ordering_key, event_type, cause_id, \
        handler, data, attributes, state, created_at) VALUES (1, 'went', 't', 'ann@example.org', \
        'order.shipped', 'one', 'shipping', '', '[]', 1, 1)";
    execute(&database.store().await, sql).await;
    let reader = Operator::with(&app, "look");

    for asks in [&operator(&app), &reader] {
        let story = asks.get("/explain/went").await.json();
        let emitted = &story["events"][0]["emitted"][0];
        assert_eq!(emitted["event_id"], "went", "{story}");
        assert_eq!(emitted["ordering_key"], Value::Null, "{story}");
    }
    let refused = reader.get("/explain/went?payload=true").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (403, &json!("payload_is_closed"))
    );
    assert_eq!(get(&app, "/audit").await["entries"], json!([]));

    let story = get(&app, "/explain/went?payload=true").await;

    let emitted = &story["events"][0]["emitted"][0];
    assert_eq!(emitted["ordering_key"], "ann@example.org", "{story}");
    let audit = get(&app, "/audit").await;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 1, "{audit}");
    assert_eq!(audit["entries"][0]["action"], "event.read");
    assert_eq!(audit["entries"][0]["target"], "went");
}

async fn a_redrive_can_be_asked_for_twice_forced_and_aborted(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    // At one a second there is a minute for the requests below.
    let ids: Vec<String> = (10..70).map(|n| format!("order-{n}")).collect();
    let letters: Vec<_> = ids.iter().map(|id| letter(id)).collect();
    keep(&yard.store, &letters).await;
    let slow = json!({"reason": "mended", "all": true, "per_second": 1, "request_id": "r-1"});

    let (status, begun) = post(&yard.app, "/dead-letters/redrive", slow.clone()).await;
    let (again, same) = post(&yard.app, "/dead-letters/redrive", slow).await;

    assert_eq!(
        (status, again, &begun["total"]),
        (202, 202, &json!(60)),
        "{begun}"
    );
    assert_eq!(begun["id"], same["id"]);
    let id = begun["id"].as_str().unwrap();
    let abort = format!("/redrives/{id}/abort");
    let (status, aborted) = post(&yard.app, &abort, json!({"reason": "too slow"})).await;
    assert_eq!(
        (status, &aborted["state"]),
        (200, &json!("aborted")),
        "{aborted}"
    );
    yard.over(id).await;
    let open = get(&yard.app, "/dead-letters").await["total"].as_i64();
    assert!(open >= Some(1), "an order a second: {open:?}");

    let ask = json!({"reason": "faster", "all": true, "per_second": 1000, "mode": "force"});
    let (status, forced) = post(&yard.app, "/dead-letters/redrive", ask).await;
    assert_eq!(
        (status, &forced["mode"]),
        (202, &json!("force")),
        "{forced}"
    );
    let over = yard.over(forced["id"].as_str().unwrap()).await;
    assert_eq!(Some(over.redrive.done), open);
    assert_eq!(get(&yard.app, "/dead-letters").await["total"], 0);
    let mut runs = yard.shipped.runs();
    runs.sort();
    assert_eq!(runs, ids);
    let listed = get(&yard.app, "/redrives").await;
    assert_eq!(
        listed["redrives"][0]["id"], forced["id"],
        "newest first: {listed}"
    );
}

async fn what_failed_again_is_named_by_its_redrive(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    yard.failed_orders(&["one"]).await;
    yard.refuse(true);
    let list = get(&yard.app, "/dead-letters").await;
    let first = list["dead_letters"][0]["id"].as_str().unwrap();

    let path = format!("/dead-letters/{first}/redrive");
    let (status, begun) = post(&yard.app, &path, json!({"reason": "try"})).await;
    assert_eq!(status, 202, "{begun}");
    yard.over(begun["id"].as_str().unwrap()).await;

    let path = format!("/redrives/{}", begun["id"].as_str().unwrap());
    let redrive = get(&yard.app, &path).await;
    assert_eq!(
        (&redrive["done"], &redrive["failed"]),
        (&json!(0), &json!(1)),
        "{redrive}"
    );
    let problems = redrive["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{redrive}");
    assert!(
        problems[0].to_string().contains("shipping_refuses"),
        "{redrive}"
    );
    let open = get(&yard.app, "/dead-letters").await;
    assert_eq!(
        open["total"], 1,
        "it is a dead letter still, or again: {open}"
    );
}

async fn some_are_discarded_and_the_others_stay(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    two_letters(&yard).await;
    let ask = json!({"reason": "a test", "select": {"source": "subscription"}, "expected": 1});

    assert_eq!(
        post(&yard.app, "/dead-letters/discard", ask.clone()).await,
        (200, json!({"count": 1}))
    );
    assert_eq!(
        post(&yard.app, "/dead-letters/discard", ask).await,
        (200, json!({"count": 0}))
    );
    let open = get(&yard.app, "/dead-letters").await;
    assert_eq!(
        (&open["total"], &open["dead_letters"][0]["event_id"]),
        (&json!(1), &json!("one"))
    );
}

async fn a_replay_is_previewed_limited_to_a_handler_and_counted(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    processed(&yard.store, 1..4).await;
    let select = json!({"event_type": "order.paid", "since": "2026-01-05T10:02:00Z"});

    let (status, preview) = post(
        &yard.app,
        "/replay",
        json!({"dry_run": true, "select": select}),
    )
    .await;
    assert_eq!((status, &preview["count"]), (200, &json!(2)), "{preview}");
    let ask = json!({"reason": "bug", "select": select, "expected": 1});
    let (status, refused) = post(&yard.app, "/replay", ask).await;
    assert_eq!(status, 409, "{refused}");
    assert!(yard.shipped.runs().is_empty() && yard.mailed.lock().unwrap().is_empty());

    // The one that takes no part in replays, asked for by name and with its side effects.
    let ask = json!({"reason": "bug", "select": select, "expected": 2, "per_second": 1000,
        "handler": "mailing", "side_effects": "run"});
    let (status, begun) = post(&yard.app, "/replay", ask).await;
    assert_eq!((status, &begun["kind"]), (202, &json!("replay")), "{begun}");
    let over = yard.over(begun["id"].as_str().unwrap()).await;

    assert_eq!(over.redrive.done, 2, "{over:?}");
    let mut mailed = yard.mailed.lock().unwrap().clone();
    mailed.sort();
    assert_eq!(mailed, [row_id(2), row_id(3)]);
    assert!(yard.shipped.runs().is_empty());
}

async fn a_batch_runs_what_is_due(database: TestDatabase) {
    // It does not work off the table by itself.
    let probe = Probe::that([Behaviour::Succeed]);
    let app = TestApp::builder()
        .database(&database)
        .handler(probe.clone());
    let app = app.start().await;
    let store = database.store().await;
    let due = EventRow::new("probes.update")
        .payload("{}")
        .insert(&store)
        .await;
    let later = EventRow::new("probes.update")
        .payload("{}")
        .insert(&store)
        .await;
    let at = store.now() + 3_600_000_000;
    let sql =
        format!("UPDATE events SET next_attempt_at = {at} WHERE CAST(id AS TEXT) = '{later}'");
    execute(&store, sql).await;

    let (status, _) = post(&app, "/process-batch", json!({})).await;

    assert_eq!(status, 202);
    let kept = async |id: &str| {
        let story = get(&app, &format!("/explain/{id}")).await;
        story["events"][0]["kept"]["status"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    eventually(
        || "the due one runs".to_owned(),
        async || kept(&due).await == "done",
    )
    .await;
    assert_eq!((kept(&later).await.as_str(), probe.runs()), ("pending", 1));
}

async fn nothing_is_done_about_what_is_not_there(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    let id = "0c282ca4-c204-4a79-aa07-89d93eb93eff";
    let because = json!({"reason": "r"});
    let edit = json!({"reason": "r", "payload": "{}"});
    for (path, body) in [
        (format!("/dead-letters/{id}/edit"), &edit),
        (format!("/redrives/{id}/abort"), &because),
    ] {
        let (status, answer) = post(&yard.app, &path, body.clone()).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (404, &json!("not_found")),
            "{path}"
        );
    }
    for path in [format!("/dead-letters/{id}"), format!("/redrives/{id}")] {
        let answer = operator(&yard.app).get(&path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["error"]["code"], "not_found", "{path}");
    }
    assert_eq!(get(&yard.app, "/audit").await["entries"], json!([]));
}

/// Without its database every route of the desk says so, and when to come back.
#[tokio::test]
async fn a_desk_without_its_database_says_when_to_come_back() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (line, url) = database.line().await;
    let app = TestApp::builder()
        .variable("DATABASE_URL", url)
        .variable("DATABASE_ACQUIRE_TIMEOUT_MS", "1000")
        .start()
        .await;
    line.go_down();

    for path in [
        "/status",
        "/explain/x",
        "/audit",
        "/dead-letters",
        "/redrives",
    ] {
        let answer = operator(&app).get(path).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert_eq!(
            answer.json()["error"]["code"],
            "database_unavailable",
            "{path}"
        );
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    let ask = json!({"reason": "r", "subject": "somebody"});
    assert_eq!(post(&app, "/erasures", ask).await.0, 503);
    let health = operator(&app).get("/health").await;
    assert_eq!(
        (health.status.as_u16(), &health.json()["status"]),
        (200, &json!("healthy"))
    );
}
