//! What the HTTP client does when the other side fails: rows U1 to U5, U11, U16, U17, U19.

use std::time::Duration;

use futures_util::future::join_all;
use hookyard::clients::http::{Policy, Request};
use hookyard::config::ProductCatalog;
use hookyard::error::{Class, Error};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::clients_support::{Logs, Peer, Reply, Run, ok, status, subscription, with_header};

const SECOND: Duration = Duration::from_secs(1);

fn hasty() -> Policy {
    Policy::default().with_try_timeout(Duration::from_secs(2))
}

/// Asserts three waits of about 1, 2 and 4 s.
fn assert_jittered(waits: &[Duration]) {
    assert_eq!(waits.len(), 3, "{waits:?}");
    for (wait, middle) in waits.iter().zip([1.0, 2.0, 4.0]) {
        let wait = wait.as_secs_f64();
        assert!((middle * 0.499..=middle * 1.501).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn u1_a_refused_connection_is_tried_four_times_within_the_budget() {
    // Bound and not listening: refused, and nobody else's meanwhile.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    let run = Run::new();
    let chargebee = run.chargebee_at(&url, ProductCatalog::V2, Policy::default());

    let result = chargebee.on_behalf_of(&run.call).subscription("s").await;

    let error = result.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(error.code().as_str(), "connect_failed");
    assert_eq!(run.counted("chargebee", "transient"), 4);
    assert_jittered(&run.clock.slept());
    assert!(run.call.deadline.remaining() > SECOND * 35);
}

#[tokio::test]
async fn u1_an_unknown_host_is_tried_four_times() {
    // A label of more than 63 bytes: no resolver has to be asked.
    let url = format!("http://{}.invalid", "a".repeat(64));
    let run = Run::new();
    let chargebee = run.chargebee_at(&url, ProductCatalog::V2, Policy::default());

    let result = chargebee.on_behalf_of(&run.call).subscription("s").await;

    let error = result.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(run.counted("chargebee", "transient"), 4);
    assert!(!format!("{error:?}").contains("aaaa"), "{error:?}");
}

#[tokio::test]
async fn u1_what_does_not_speak_tls_is_tried_four_times() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"HTTP/1.1 400 no\r\n\r\n").await.ok();
        }
    });
    let run = Run::new();
    let chargebee = run.chargebee_at(&url, ProductCatalog::V2, Policy::default());

    let result = chargebee.on_behalf_of(&run.call).subscription("s").await;

    assert_eq!(result.unwrap_err().class(), Class::Transient);
    assert_eq!(run.counted("chargebee", "transient"), 4);
}

#[tokio::test]
async fn u2_an_upstream_that_does_not_finish_is_cut_off_and_its_connection_given_up() {
    let replies = [Reply::Silence, Reply::HalfHeaders, Reply::HalfBody];
    join_all(replies.map(async |reply| {
        let peer = Peer::start([reply]).await;
        let run = Run::new();
        let policy = hasty().with_retries(1);
        let chargebee = run.chargebee_at(&peer.url(), ProductCatalog::V2, policy);

        let calls = chargebee.on_behalf_of(&run.call);
        let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

        assert_eq!(error.class(), Class::Transient);
        assert_eq!(error.code().as_str(), "timeout");
        peer.assert_same_request(2);
        let connections: Vec<_> = peer.asked().iter().map(|a| a.connection).collect();
        assert_eq!(connections, [1, 2]);
    }))
    .await;
}

#[tokio::test]
async fn u2_a_body_without_end_is_read_up_to_the_cap_only() {
    let peer = Peer::start([Reply::Endless(200)]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    let calls = chargebee.on_behalf_of(&run.call);
    let error = calls.subscription("sub_1").await.unwrap_err();

    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
    assert_eq!(error.code().as_str(), "answer_too_large");
    peer.assert_same_request(2);
    assert_eq!(peer.asked()[1].connection, 2);
    assert_eq!(run.counted("chargebee", "unreadable"), 2);
}

#[tokio::test]
async fn u2_an_error_with_a_body_without_end_is_judged_by_its_status() {
    let peer = Peer::start([Reply::Endless(503), ok(subscription(None))]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    let calls = chargebee.on_behalf_of(&run.call);

    assert!(calls.subscription("sub_1").await.is_ok());
    peer.assert_same_request(2);
}

#[tokio::test]
async fn u3_an_answer_that_is_lost_after_the_change_is_fetched_again_under_the_same_key() {
    for lost in [
        Reply::HangUp,
        Reply::CutOff,
        Reply::Silence,
        status(500, ""),
    ] {
        let replay = Reply::Http {
            status: 200,
            headers: vec![("chargebee-idempotency-replayed", "true".to_owned())],
            body: subscription(Some("c-1")),
        };
        let peer = Peer::start([lost, replay]).await;
        let run = Run::new();
        let chargebee = run.chargebee_at(&peer.url(), ProductCatalog::V2, hasty());

        let calls = chargebee.on_behalf_of(&run.call);
        let linked = calls.link_contract("sub_1", "c-1").await.unwrap();

        assert_eq!(linked.cf_contract_id.as_deref(), Some("c-1"));
        peer.assert_same_request(2);
        assert!(
            peer.asked()[0]
                .header("chargebee-idempotency-key")
                .is_some()
        );
    }
}

#[tokio::test]
async fn u3_what_is_not_idempotent_is_sent_once() {
    let peer = Peer::start([status(503, "")]).await;
    let run = Run::new();
    let crm = run.upstream(&peer, Policy::default());
    let request = Request::post("/notes", "text/plain", "hello");

    let result = crm
        .send(&run.call, "POST /notes", request, |answer| {
            answer.json_on_success::<()>()
        })
        .await;

    assert_eq!(result.unwrap_err().code().as_str(), "service_unavailable");
    assert_eq!(peer.tries(), 1);
}

#[tokio::test]
async fn u4_retry_after_is_the_least_wait() {
    let run = Run::new();
    let cases = [
        (with_header(429, "retry-after", "7"), 7..8),
        (with_header(503, "retry-after", run.http_date(20)), 20..21),
        (with_header(429, "retry-after", "0"), 0..2),
        (with_header(429, "retry-after", "-3"), 0..2),
        (with_header(429, "retry-after", "soon"), 0..2),
    ];
    for (reply, seconds) in cases {
        let run = Run::new();
        let peer = Peer::start([reply, ok(subscription(None))]).await;
        let chargebee = run.chargebee(&peer);

        let calls = chargebee.on_behalf_of(&run.call);
        calls.link_contract("sub_1", "c-1").await.unwrap();

        peer.assert_same_request(2);
        let slept = run.clock.slept();
        assert_eq!(slept.len(), 1);
        assert!(seconds.contains(&slept[0].as_secs()), "{slept:?}");
    }
}

#[tokio::test]
async fn u4_a_retry_after_beyond_the_budget_goes_back_at_once() {
    let run = Run::new();
    for wait in ["3600".to_owned(), run.http_date(3600)] {
        let run = Run::new();
        let peer = Peer::start([with_header(429, "retry-after", wait)]).await;
        let chargebee = run.chargebee(&peer);

        let calls = chargebee.on_behalf_of(&run.call);
        let error = calls.subscription("sub_1").await.unwrap_err();

        assert_eq!(error.class(), Class::Transient);
        assert_eq!(error.retry_after(), Some(SECOND * 3600));
        assert_eq!(peer.tries(), 1);
        assert!(run.clock.slept().is_empty());
    }
}

#[tokio::test]
async fn u5_a_server_error_of_any_look_is_transient() {
    for code in [500, 502, 503, 504] {
        for body in ["", "<html>bad gateway</html>", "{}", "[1", r#"{"type":7}"#] {
            let peer = Peer::start([status(code, body)]).await;
            let run = Run::new();
            let chargebee = run.chargebee(&peer);

            let calls = chargebee.on_behalf_of(&run.call);
            let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            peer.assert_same_request(4);
            assert_jittered(&run.clock.slept());
            assert_eq!(run.counted("chargebee", "transient"), 4);
        }
    }
}

#[tokio::test]
async fn trap_4_no_wait_outlives_the_deadline_however_often_retry_after_asks() {
    let peer = Peer::start([with_header(429, "retry-after", "1")]).await;
    let run = Run::new().with_seconds_left(2);
    let chargebee = run.chargebee(&peer);

    let calls = chargebee.on_behalf_of(&run.call);
    let error = calls.subscription("sub_1").await.unwrap_err();

    assert_eq!(error.retry_after(), Some(SECOND));
    assert_eq!(peer.tries(), 2);
    assert!(!run.call.deadline.passed());

    let peer = Peer::start([with_header(429, "retry-after", "1")]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let calls = chargebee.on_behalf_of(&run.call);
    assert!(calls.subscription("sub_1").await.is_err());
    assert_eq!(peer.tries(), 4);
}

#[tokio::test]
async fn trap_4_a_deadline_that_has_passed_allows_no_try() {
    let peer = Peer::start([ok(subscription(None))]).await;
    let run = Run::new();
    run.clock.advance(SECOND * 50);
    let chargebee = run.chargebee(&peer);

    let calls = chargebee.on_behalf_of(&run.call);
    let error = calls.subscription("sub_1").await.unwrap_err();

    assert!(matches!(error, Error::OutOfTime { .. }), "{error}");
    assert_eq!(peer.tries(), 0);
}

#[tokio::test]
async fn u11_an_answer_that_cannot_be_read_is_asked_for_once_more() {
    for body in [
        "hello",
        "",
        "{}",
        "[]",
        "{\"subscription\":null}",
        "{\"subscription\":{\"id\":7}}",
        "{\"subscription\":{\"id\":\"sub_1\"",
    ] {
        let peer = Peer::start([ok(body)]).await;
        let run = Run::new();
        let chargebee = run.chargebee(&peer);
        let calls = chargebee.on_behalf_of(&run.call);

        let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        assert_eq!(error.class(), Class::Permanent);
        peer.assert_same_request(2);

        peer.answer([ok(body), ok(subscription(None))]);
        assert!(calls.link_contract("sub_1", "c-1").await.is_ok());
        peer.assert_same_request(4);
    }
}

#[tokio::test]
async fn u11_without_time_to_ask_again_an_unreadable_answer_goes_back() {
    let peer = Peer::start([ok("hello")]).await;
    let run = Run::new();
    let policy = Policy::default().with_waits(SECOND * 100, SECOND * 100);
    let chargebee = run.chargebee_at(&peer.url(), ProductCatalog::V2, policy);

    let calls = chargebee.on_behalf_of(&run.call);
    let error = calls.subscription("sub_1").await.unwrap_err();

    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(error.code().as_str(), "not_json");
    assert_eq!(peer.tries(), 1);
}

#[tokio::test]
async fn u16_a_redirect_is_not_followed_and_somebody_is_told() {
    let elsewhere = Peer::start([ok(subscription(None))]).await;
    for code in [301, 302, 303, 307, 308] {
        let (logs, _guard) = Logs::capture();
        let location = format!("{}/api/v2/subscriptions/sub_1", elsewhere.url());
        let peer = Peer::start([with_header(code, "location", location)]).await;
        let run = Run::new();
        let chargebee = run.chargebee(&peer);

        let calls = chargebee.on_behalf_of(&run.call);
        let error = calls.link_contract("sub_1", "c-1").await.unwrap_err();

        assert_eq!(error.class(), Class::Permanent);
        assert_eq!(error.code().as_str(), "redirect");
        assert_eq!((peer.tries(), elsewhere.tries()), (1, 0));
        assert_eq!(logs.lines_with(&["ERROR", "upstream_redirect"]), 1);
    }
}

#[tokio::test]
async fn u17_an_upstream_that_is_down_for_ten_minutes_is_asked_now_and_then() {
    let peer = Peer::start([status(503, "")]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    for _ in 0..10_000 {
        let call = run.call_with_seconds(50);
        let calls = chargebee.on_behalf_of(&call);
        let error = calls.subscription("sub_1").await.unwrap_err();
        assert_eq!(error.class(), Class::Transient);
        assert!(peer.tries() < 5 || error.retry_after().is_some());
        run.clock.advance(Duration::from_millis(60));
    }

    let tries = peer.tries() as u64;
    assert!((10..=20).contains(&tries), "{tries}");
    assert_eq!(run.counted("chargebee", "transient"), tries);
    assert!(run.counted("chargebee", "breaker_open") > 9_900);

    peer.answer([ok(subscription(None))]);
    run.clock.advance(SECOND * 60);
    for _ in 0..5 {
        let call = run.call_with_seconds(50);
        let calls = chargebee.on_behalf_of(&call);
        assert!(calls.subscription("sub_1").await.is_ok());
    }
}

#[tokio::test]
async fn u17_one_probe_at_a_time_asks_and_one_that_is_cut_off_makes_room() {
    let peer = Peer::start([status(503, "")]).await;
    let run = Run::new();
    let policy = hasty().with_breaker(1, SECOND * 10, SECOND * 60);
    let chargebee = run.chargebee_at(&peer.url(), ProductCatalog::V2, policy);
    let call = run.call_with_seconds(3600);
    let calls = chargebee.on_behalf_of(&call);
    let error = calls.subscription("sub_1").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(SECOND * 10));
    assert_eq!(peer.tries(), 1);
    run.clock.advance(SECOND * 10);
    peer.answer([Reply::Silence]);

    let results = join_all((0..20).map(|_| calls.subscription("sub_1"))).await;

    assert_eq!(peer.tries(), 2);
    let open = |result: &Result<_, Error>| matches!(result, Err(Error::BreakerOpen { .. }));
    assert_eq!(results.iter().filter(|result| open(result)).count(), 19);

    run.clock.advance(SECOND * 20);
    let cut_off = tokio::time::timeout(Duration::from_millis(30), calls.subscription("sub_1"));
    assert!(cut_off.await.is_err());
    peer.answer([ok(subscription(None))]);
    assert!(calls.subscription("sub_1").await.is_ok());
}

#[tokio::test]
async fn u17_what_is_wrong_with_the_request_does_not_open_the_breaker() {
    let peer = Peer::start([status(400, r#"{"api_error_code":"param_wrong_value"}"#)]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);

    for _ in 0..20 {
        let calls = chargebee.on_behalf_of(&run.call);
        assert!(calls.subscription("sub_1").await.is_err());
    }

    assert_eq!(peer.tries(), 20);
    assert_eq!(run.counted("chargebee", "permanent"), 20);
}

#[tokio::test]
async fn u19_a_kept_connection_that_the_peer_closes_is_replaced() {
    // Closed on arrival of the second request, as when both sides cross each other.
    let peer = Peer::start([
        ok(subscription(None)),
        Reply::HangUp,
        ok(subscription(Some("c-1"))),
    ])
    .await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let calls = chargebee.on_behalf_of(&run.call);

    calls.subscription("sub_1").await.unwrap();
    calls.link_contract("sub_1", "c-1").await.unwrap();

    let asked = peer.asked();
    let connections: Vec<_> = asked.iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
    let key = "chargebee-idempotency-key";
    assert_eq!(asked[1].header(key), asked[2].header(key));
    assert_eq!(asked[1].body, asked[2].body);
}

#[tokio::test]
async fn u19_a_peer_that_closes_after_each_answer_is_no_failure() {
    let peer = Peer::start([Reply::AnswerAndClose(subscription(None))]).await;
    let run = Run::new();
    let chargebee = run.chargebee(&peer);
    let calls = chargebee.on_behalf_of(&run.call);

    for _ in 0..10 {
        calls.link_contract("sub_1", "c-1").await.unwrap();
    }

    peer.assert_same_request(10);
    let connections: Vec<_> = peer.asked().iter().map(|a| a.connection).collect();
    assert_eq!(connections.len(), 10);
    assert_eq!(run.counted("chargebee", "ok"), 10);
}

#[tokio::test]
async fn a_path_that_is_not_encoded_is_refused() {
    let peer = Peer::start([ok("{}")]).await;
    let run = Run::new();
    let crm = run.upstream(&peer, Policy::default());

    for path in [
        "/a/../b",
        "/a b",
        "/é",
        "/a#b",
        "/a/%2e%2e/b",
        "/./b",
        "@evil.example/x",
        "0/x",
    ] {
        let result = crm
            .send(&run.call, "GET /x", Request::get(path), |_| Ok(()))
            .await;
        assert_eq!(result.unwrap_err().code().as_str(), "bad_path", "{path}");
    }
    assert_eq!(peer.tries(), 0);
}

#[tokio::test]
async fn calls_can_move_between_threads() {
    fn movable<T: Send>(_: &T) {}
    let peer = Peer::start([ok(subscription(None))]).await;
    let run = Run::new();
    let (chargebee, hasura) = (run.chargebee(&peer), run.hasura(&peer));

    movable(&chargebee.on_behalf_of(&run.call).subscription("sub_1"));
    movable(&hasura.on_behalf_of(&run.call).contract("c-1"));
    movable(&chargebee.check());
}
