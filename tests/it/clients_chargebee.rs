//! Chargebee over the wire: rows U6 to U8, S8, and the traps of idempotency and credentials.

use hookyard::clients::Call;
use hookyard::clients::chargebee::CustomerDetails;
use hookyard::clients::http::Policy;
use hookyard::config::ProductCatalog;
use hookyard::error::{Class, Error};

use crate::clients_support::{API_KEY, Logs, Peer, Run, ok, status, subscription};

const KEY: &str = "chargebee-idempotency-key";

fn details() -> CustomerDetails {
    CustomerDetails {
        first_name: Some("Ada".to_owned()),
        email: Some("ada@example.com".to_owned()),
        ..CustomerDetails::default()
    }
}

#[tokio::test]
async fn requests_are_what_the_official_library_sends() {
    let peer = Peer::start([ok(subscription(Some("c-1")))]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let calls = chargebee.on_behalf_of(&run.call);

    let read = calls.subscription("sub_1").await.unwrap();
    calls.link_contract("sub_1", "c-1").await.unwrap();
    calls.cancel_at_term_end("sub_1").await.unwrap();

    assert_eq!(
        (read.id.as_str(), read.status.as_str()),
        ("sub_1", "active")
    );
    assert_eq!(read.cf_contract_id.as_deref(), Some("c-1"));
    let asked = peer.asked();
    let lines: Vec<_> = asked
        .iter()
        .map(|asked| {
            (
                asked.method.as_str(),
                asked.path.as_str(),
                asked.body.as_str(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("GET", "/api/v2/subscriptions/sub_1", ""),
            (
                "POST",
                "/api/v2/subscriptions/sub_1/update_for_items",
                "cf_contract_id=c-1"
            ),
            (
                "POST",
                "/api/v2/subscriptions/sub_1/cancel_for_items",
                "end_of_term=true"
            ),
        ]
    );
    for asked in &asked {
        // base64 of "canary_chargebee_key:"
        let login = "Basic Y2FuYXJ5X2NoYXJnZWJlZV9rZXk6";
        assert_eq!(asked.header("authorization"), Some(login));
        assert_eq!(asked.header("accept"), Some("application/json"));
        let agent = asked.header("user-agent").unwrap();
        assert!(agent.starts_with("hookyard/"), "{agent}");
    }
    assert_eq!(asked[0].header(KEY), None);
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    assert_eq!(asked[1].header("content-type"), Some(form));
    assert_ne!(asked[1].header(KEY), asked[2].header(KEY));
}

#[tokio::test]
async fn the_first_product_catalogue_has_other_paths() {
    let peer = Peer::start([ok(subscription(None))]).await;
    let run = Run::new();
    let chargebee = run.chargebee_at(&peer.url(), ProductCatalog::V1, Policy::default());
    let calls = chargebee.on_behalf_of(&run.call);

    calls.link_contract("sub_1", "c-1").await.unwrap();
    calls.cancel_at_term_end("sub_1").await.unwrap();

    let paths: Vec<_> = peer.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(
        paths,
        [
            "/api/v2/subscriptions/sub_1",
            "/api/v2/subscriptions/sub_1/cancel"
        ]
    );
}

#[tokio::test]
async fn trap_7_nothing_differs_between_tries_and_redeliveries() {
    let peer = Peer::start([status(503, ""), status(429, ""), ok(subscription(None))]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    let calls = chargebee.on_behalf_of(&run.call);
    calls.link_contract("sub_1", "c-1").await.unwrap();
    // The same event is delivered again, in another trace and to another instance.
    let again = Call {
        trace: hookyard::event::TraceContext::new_root(),
        ..run.call_with_seconds(20)
    };
    let other = run.chargebee(&peer);
    let calls = other.on_behalf_of(&again);
    calls.link_contract("sub_1", "c-1").await.unwrap();

    peer.assert_same_request(4);
    let asked = &peer.asked()[0];
    assert!(asked.header(KEY).unwrap().len() <= 100);
    assert_eq!(asked.header("traceparent"), None);
}

#[tokio::test]
async fn trap_7_each_event_handler_and_request_has_a_key_of_its_own() {
    let customer = r#"{"customer":{"id":"x"},"subscription":{"id":"x","status":"active"}}"#;
    let peer = Peer::start([ok(customer)]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let other_event = Call {
        event_id: hookyard::event::EventId::new("e2").unwrap(),
        generation: 0,
        ..run.call.clone()
    };
    let other_handler = Call {
        handler: "other_handler",
        ..run.call.clone()
    };

    for call in [&run.call, &other_event, &other_handler] {
        let calls = chargebee.on_behalf_of(call);
        calls.link_contract("s1", "c-1").await.unwrap();
        calls.link_contract("s2", "c-1").await.unwrap();
        calls.cancel_at_term_end("s1").await.unwrap();
        calls.create_customer("c1", &details()).await.unwrap();
        calls.create_customer("c2", &details()).await.unwrap();
        calls.update_customer("c1", &details()).await.unwrap();
    }

    let asked = peer.asked();
    let keys: std::collections::HashSet<_> = asked.iter().map(|a| a.header(KEY)).collect();
    assert_eq!((asked.len(), keys.len()), (18, 18));
}

#[tokio::test]
async fn u6_a_permanent_error_is_not_tried_again_and_keeps_its_code() {
    for (http, word) in [
        (400, "invalid_request"),
        (400, "param_wrong_value"),
        (400, "resource_limit_exhausted"),
        (400, "configuration_incompatible"),
        (402, "payment_processing_failed"),
        (405, "http_method_not_supported"),
        (409, "invalid_state_for_request"),
        (400, "a_word_of_next_year"),
    ] {
        let body = format!(
            r#"{{"message":"canary@example.com","type":"invalid_request",
            "api_error_code":"{word}","param":"canary@example.com"}}"#
        );
        let peer = Peer::start([status(http, body)]).await;
        let run = Run::new();
        let chargebee = run.chargebee(&peer);

        let calls = chargebee.on_behalf_of(&run.call);
        let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

        assert!(matches!(error, Error::Rejected { .. }), "{error}");
        assert_eq!(error.code().as_str(), word);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(peer.tries(), 1);
        assert_eq!(run.counted("chargebee", "permanent"), 1);
    }
}

#[tokio::test]
async fn u6_members_that_are_missing_or_strange_leave_the_status_to_decide() {
    for (http, body, code) in [
        (400, "", "bad_request"),
        (400, "<html>", "bad_request"),
        (404, "{}", "not_found"),
        (422, "[]", "unprocessable"),
        (
            400,
            r#"{"api_error_code":7,"type":"invalid_request"}"#,
            "bad_request",
        ),
        (400, r#"{"api_error_code":"canary@example.com"}"#, "other"),
        (418, "null", "client_error"),
    ] {
        let peer = Peer::start([status(http, body)]).await;
        let run = Run::new();
        let chargebee = run.chargebee(&peer);

        let calls = chargebee.on_behalf_of(&run.call);
        let error = calls.subscription("sub_1").await.unwrap_err();

        assert_eq!(error.class(), Class::Permanent, "{body}");
        assert_eq!(error.code().as_str(), code);
        assert_eq!(peer.tries(), 1);
    }
}

#[tokio::test]
async fn u6_what_does_not_exist_is_not_found() {
    let peer = Peer::start([status(404, r#"{"api_error_code":"resource_not_found"}"#)]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let calls = chargebee.on_behalf_of(&run.call);

    let error = calls.subscription("sub_1").await.unwrap_err();

    assert!(
        matches!(
            error,
            Error::NotFound {
                what: "subscription",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(calls.customer("cust_1").await.unwrap(), None);
    assert_eq!(peer.tries(), 2);
}

#[tokio::test]
async fn u6_a_key_used_for_another_request_is_permanent_and_somebody_is_told() {
    let (logs, _guard) = Logs::capture();
    let body = r#"{"api_error_code":"unable_to_process_request"}"#;
    let peer = Peer::start([status(422, body)]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    let calls = chargebee.on_behalf_of(&run.call);
    let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

    assert_eq!(error.class(), Class::Permanent);
    assert_eq!(logs.lines_with(&["ERROR", "idempotency_key_reused"]), 1);
    assert_eq!(peer.tries(), 1);
}

#[tokio::test]
async fn u6_what_passes_is_tried_again_whatever_its_status_is_called() {
    for (http, word) in [
        (429, "api_request_limit_exceeded"),
        (429, "third_party_api_request_limit_exceeded"),
        (429, "lock_timeout"),
        (409, "lock_timeout"),
        (500, "internal_error"),
        (500, "resource_not_found"),
        (503, "internal_temporary_error"),
        (503, "db_connection_failure"),
        (503, "site_read_only_mode"),
        (503, "site_not_ready"),
        (500, "a_word_of_next_year"),
    ] {
        let body = format!(r#"{{"api_error_code":"{word}"}}"#);
        let peer = Peer::start([status(http, body)]).await;
        let run = Run::new();
        let chargebee = run.chargebee(&peer);

        let calls = chargebee.on_behalf_of(&run.call);
        let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert_eq!(error.code().as_str(), word);
        peer.assert_same_request(4);
    }
}

#[tokio::test]
async fn u7_a_customer_that_is_there_already_is_told_apart() {
    let peer = Peer::start([
        status(400, r#"{"api_error_code":"duplicate_entry","param":"id"}"#),
        ok(r#"{"customer":{"id":"cust_1","first_name":"Ada","email":"ada@example.com"}}"#),
    ])
    .await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let calls = chargebee.on_behalf_of(&run.call);

    let error = calls
        .create_customer("cust_1", &details())
        .await
        .unwrap_err();
    let there = calls.customer("cust_1").await.unwrap().unwrap();

    assert_eq!(error.code().as_str(), "duplicate_entry");
    assert!(there.has(&details()));
    let asked = peer.asked();
    assert_eq!(asked[0].path, "/api/v2/customers");
    assert_eq!(
        asked[0].body,
        "id=cust_1&first_name=Ada&email=ada%40example.com"
    );
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn u8_refused_credentials_are_not_the_events_fault_and_open_the_breaker() {
    for (http, body) in [
        (401, r#"{"api_error_code":"api_authentication_failed"}"#),
        (401, r#"{"api_error_code":"basic_authentication_failed"}"#),
        (403, r#"{"api_error_code":"api_authorization_failed"}"#),
        (403, r#"{"api_error_code":"request_blocked"}"#),
        (404, r#"{"api_error_code":"site_not_found"}"#),
        (401, "<html>"),
        (403, ""),
    ] {
        let (logs, _guard) = Logs::capture();
        let peer = Peer::start([status(http, body)]).await;
        let run = Run::new();
        let chargebee = run.chargebee(&peer);
        let calls = chargebee.on_behalf_of(&run.call);

        for tries in 1..=5 {
            let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();
            assert!(matches!(error, Error::Credentials { .. }), "{error}");
            assert_eq!(error.class(), Class::Transient);
            assert!(error.needs_operator());
            assert_eq!(peer.tries(), tries);
        }
        let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

        assert!(matches!(error, Error::BreakerOpen { .. }), "{error}");
        peer.assert_same_request(5);
        assert_eq!(run.counted("chargebee", "credentials"), 5);
        assert_eq!(run.counted("chargebee", "breaker_open"), 1);
        assert_eq!(logs.lines_with(&["ERROR", "alert=\"upstream_auth\""]), 5);
    }
}

#[tokio::test]
async fn s8_an_id_stays_one_segment_of_the_path() {
    let peer = Peer::start([ok(subscription(None))]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let calls = chargebee.on_behalf_of(&run.call);

    for (id, path) in [
        ("../../customers/x", "..%2F..%2Fcustomers%2Fx"),
        ("%2F", "%252F"),
        ("%2e%2e", "%252e%252e"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a#b", "a%23b"),
        ("a b\r\nx-evil: 1", "a%20b%0D%0Ax-evil%3A%201"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("a\\b", "a%5Cb"),
    ] {
        calls.link_contract(id, "c-1").await.unwrap();
        let asked = peer.asked().pop().unwrap();
        assert_eq!(
            asked.path,
            format!("/api/v2/subscriptions/{path}/update_for_items")
        );
    }
    let tries = peer.tries();

    for id in ["", ".", ".."] {
        for error in [
            calls.subscription(id).await.unwrap_err(),
            calls.link_contract(id, "c-1").await.unwrap_err(),
            calls.cancel_at_term_end(id).await.unwrap_err(),
            calls.customer(id).await.unwrap_err(),
            calls.create_customer(id, &details()).await.unwrap_err(),
            calls.update_customer(id, &details()).await.unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::Permanent);
            assert_eq!(error.code().as_str(), "bad_id");
        }
    }
    assert_eq!(peer.tries(), tries);
}

#[tokio::test]
async fn each_try_is_told_to_whoever_reads_the_trace() {
    let (logs, _guard) = Logs::capture();
    let peer = Peer::start([status(503, ""), ok(subscription(None))]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    let calls = chargebee.on_behalf_of(&run.call);
    calls.link_contract("sub_1", "c-1").await.unwrap();

    let what = "POST chargebee /subscriptions/{id}/update_for_items ->";
    let step = |end: &str| logs.lines_with(&["hookyard::step", &format!("{what} {end}\"")]);
    assert_eq!(step("503 service_unavailable"), 1, "{}", logs.text());
    assert_eq!(step("200"), 1, "{}", logs.text());
}

#[tokio::test]
async fn no_key_and_no_value_reaches_a_log_or_an_error() {
    let (logs, _guard) = Logs::capture();
    let run = Run::new();
    let mut errors = String::new();
    for reply in [
        status(401, r#"{"message":"canary_message"}"#),
        status(400, r#"{"api_error_code":"CANARY_CODE"}"#),
        status(503, "canary_body"),
        ok(r#"{"customer":{"id":"c","email":["canary@example.com"]}}"#),
        crate::clients_support::Reply::HangUp,
    ] {
        let peer = Peer::start([reply]).await;
        let chargebee = run.chargebee(&peer);
        let calls = chargebee.on_behalf_of(&run.call);
        let canary = CustomerDetails {
            email: Some("canary@example.com".to_owned()),
            ..CustomerDetails::default()
        };
        let error = calls
            .update_customer("canary_id", &canary)
            .await
            .unwrap_err();
        errors.push_str(&format!("{error} {error:?} {chargebee:?} {canary:?}\n"));
    }

    let all = logs.text() + &errors;
    for canary in ["canary", "CANARY", API_KEY, "Y2FuYXJ5X2"] {
        assert!(!all.contains(canary), "{canary} in {all}");
    }
    assert!(logs.text().contains("hookyard::step"));
}

#[tokio::test]
async fn a_check_asks_once() {
    let peer = Peer::start([status(503, ""), ok(r#"{"list":[]}"#)]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    assert!(chargebee.check().await.is_err());
    assert_eq!(peer.tries(), 1);
    assert!(chargebee.check().await.is_ok());
    assert_eq!(peer.asked()[1].path, "/api/v2/subscriptions?limit=1");
}
