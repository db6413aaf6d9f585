//! Our own routes, request ids, and how serving ends (row P1 at the edge).

use std::sync::atomic::Ordering;
use std::time::Duration;

use hookyard::ingress::Gate;
use serde_json::{Value, json};

use crate::edge_server::{Edge, body_of, get_request, header_of, options, status};

fn get_with(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n")
}

#[tokio::test]
async fn health_and_ready_are_public() {
    let edge = Edge::start().await;

    let health = edge.exchange(get_request("/health")).await;
    assert_eq!(status(&health), 200);
    assert_eq!(body_of(&health), r#"{"status":"ok"}"#);
    let early = edge.exchange(get_request("/ready")).await;
    assert_eq!(status(&early), 503);
    assert!(body_of(&early).contains("keys_not_fetched"), "{early}");
    edge.issuer.verifier.refresh_due().await;
    let ready = edge.exchange(get_request("/ready")).await;
    assert_eq!(status(&ready), 200);
}

#[tokio::test]
async fn head_works_where_get_does() {
    let edge = Edge::start().await;
    for path in ["/health", "/ready", "/nowhere"] {
        let get = edge.exchange(get_request(path)).await;
        let head = edge
            .exchange(get_request(path).replacen("GET", "HEAD", 1))
            .await;
        assert_eq!(status(&head), status(&get), "{path}");
        assert_eq!(body_of(&head), "");
    }
}

#[tokio::test]
async fn s5_admin_routes_are_closed_without_an_admin_token() {
    let edge = Edge::with(options(), None).await;
    for path in ["/metrics", "/handlers"] {
        for headers in [
            "",
            "authorization: Bearer \r\n",
            "authorization: Bearer x\r\n",
        ] {
            let answer = edge.exchange(get_with(path, headers)).await;
            assert_eq!(status(&answer), 403, "{path}");
            assert!(body_of(&answer).contains("ADMIN_TOKEN"), "{answer}");
        }
    }
}

#[tokio::test]
async fn s5_admin_routes_open_for_the_admin_token_only() {
    let edge = Edge::start().await;
    for path in ["/metrics", "/handlers"] {
        for headers in [
            "",
            "authorization: Bearer let-me-i\r\n",
            "authorization: Bearer let-me-in2\r\n",
            "authorization: Bearer LET-ME-IN\r\n",
            "authorization: Basic let-me-in\r\n",
            "authorization: let-me-in\r\n",
            "authorization: Bearer let-me-in\r\nauthorization: Bearer let-me-in\r\n",
            "cookie: token=let-me-in\r\n",
        ] {
            let answer = edge.exchange(get_with(path, headers)).await;
            assert_eq!(status(&answer), 401, "{path} {headers}");
            assert_eq!(header_of(&answer, "www-authenticate"), Some("Bearer"));
        }
        let pushers_token = format!("authorization: Bearer {}\r\n", edge.issuer.token());
        assert_eq!(
            status(&edge.exchange(get_with(path, &pushers_token)).await),
            401
        );
        let by_query = edge
            .exchange(get_request(&format!("{path}?token=let-me-in")))
            .await;
        assert_eq!(status(&by_query), 401);
        let admin = edge
            .exchange(get_with(path, "authorization: bearer let-me-in\r\n"))
            .await;
        assert_eq!(status(&admin), 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_and_handlers_show_what_they_are_given() {
    let edge = Edge::start().await;
    edge.issuer.verifier.refresh_due().await;
    let authorization = "authorization: Bearer let-me-in\r\n";

    let metrics = edge.exchange(get_with("/metrics", authorization)).await;
    assert_eq!(
        header_of(&metrics, "content-type"),
        Some("text/plain; version=0.0.4")
    );
    assert!(metrics.contains("hookyard_upstream_requests_total"));
    let handlers = edge.exchange(get_with("/handlers", authorization)).await;
    let shown: Value = serde_json::from_str(body_of(&handlers)).unwrap();
    assert_eq!(shown, json!([{"name": "activate_contract"}]));
}

#[tokio::test]
async fn s2_errors_have_one_shape_and_repeat_nothing_of_the_request() {
    let edge = Edge::start().await;
    let id = "x-request-id: my-id-1\r\n";
    for (answer, expected, code) in [
        (
            edge.exchange(get_with("/canary", id)).await,
            404,
            "not_found",
        ),
        (
            edge.exchange(get_with("/push?canary", id)).await,
            405,
            "method_not_allowed",
        ),
        (
            edge.exchange(get_with("/metrics", id)).await,
            401,
            "unauthorized",
        ),
    ] {
        assert_eq!(status(&answer), expected);
        assert_eq!(header_of(&answer, "content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(body_of(&answer)).unwrap();
        assert_eq!(body["error"]["code"], code);
        assert_eq!(body["error"]["request_id"], "my-id-1");
        assert!(body["error"]["message"].is_string());
        assert!(!body_of(&answer).contains("canary"));
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let edge = Edge::start().await;
    let admin = "authorization: Bearer let-me-in\r\n";
    let mut made = Vec::new();
    for request in [
        get_request("/health"),
        get_request("/ready"),
        get_request("/nowhere"),
        get_request("/push"),
        get_request("/metrics"),
        get_with("/metrics", admin),
        get_with("/handlers", admin),
        edge.push("content-length: 2\r\n", "{}"),
        edge.push("content-length: 99999999\r\n", ""),
    ] {
        let answer = edge.exchange(&request).await;
        made.push(header_of(&answer, "x-request-id").unwrap().to_owned());
        let given = request.replacen("host: x\r\n", "host: x\r\nx-request-id: given\r\n", 1);
        let answer = edge.exchange(given).await;
        assert_eq!(header_of(&answer, "x-request-id"), Some("given"));
    }
    assert!(made.iter().all(|id| id.len() >= 32));
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 9);
}

#[tokio::test]
async fn s3_an_indecent_request_id_is_replaced() {
    let edge = Edge::start().await;
    for bad in ["", "a b", "a\tb", "ä", &"x".repeat(129)] {
        let answer = edge
            .exchange(get_with("/health", &format!("x-request-id: {bad}\r\n")))
            .await;
        let id = header_of(&answer, "x-request-id").unwrap();
        assert!(id != bad && id.len() >= 32, "{bad}: {id}");
    }
    let longest = "x".repeat(128);
    let answer = edge
        .exchange(get_with("/health", &format!("x-request-id: {longest}\r\n")))
        .await;
    assert_eq!(header_of(&answer, "x-request-id"), Some(longest.as_str()));
}

#[tokio::test]
async fn p1_requests_under_way_are_answered_and_new_ones_are_not_let_in() {
    let edge = Edge::start().await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = edge.connect().await;
        client.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        clients.push(client);
    }
    let mut idle = edge.connect().await;
    idle.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.one_answer().await;
    let mut silent = edge.connect().await;
    edge.until(|seen| seen.slow.load(Ordering::SeqCst) == 50)
        .await;

    edge.shutdown.cancel();

    assert_eq!(idle.rest().await, "", "idle connections are closed");
    assert_eq!(silent.rest().await, "");
    let refused = tokio::net::TcpStream::connect(edge.address).await;
    assert!(refused.is_err(), "the listener is closed");
    assert!(!edge.served.is_finished());
    edge.seen.release.notify_waiters();
    for mut client in clients {
        let answer = client.rest().await;
        assert_eq!(body_of(&answer), "slow but done");
        assert_eq!(header_of(&answer, "connection"), Some("close"));
    }
    assert_eq!(edge.served.await.unwrap().cut, 0);
}

#[tokio::test]
async fn p2_what_outlasts_the_grace_is_cut_off() {
    let mut short = options();
    short.grace = Duration::from_millis(50);
    let edge = Edge::with(short, None).await;
    let mut client = edge.connect().await;
    client.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    edge.until(|seen| seen.slow.load(Ordering::SeqCst) == 1)
        .await;

    edge.shutdown.cancel();

    assert_eq!(edge.served.await.unwrap().cut, 1);
    assert_eq!(client.rest().await, "");
    assert_eq!(edge.seen.finished.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn p1_an_http_2_request_under_way_is_answered() {
    let edge = Edge::start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("http://{}/slow", edge.address);
    let asking = tokio_util::task::TaskTracker::new().spawn(async move {
        let answer = client.get(url).send().await.unwrap();
        answer.text().await.unwrap()
    });
    edge.until(|seen| seen.slow.load(Ordering::SeqCst) == 1)
        .await;

    edge.shutdown.cancel();
    edge.seen.release.notify_waiters();

    assert_eq!(asking.await.unwrap(), "slow but done");
    assert_eq!(edge.served.await.unwrap().cut, 0);
}

#[test]
fn c15_a_full_gate_turns_away_at_once_and_opens_again() {
    let gate = Gate::new(2);
    let first = gate.enter().unwrap();
    let second = gate.enter().unwrap();

    assert!(gate.enter().is_none());
    assert_eq!(gate.in_flight(), 2);
    let answer = Gate::full();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    drop(first);
    let third = gate.enter();
    assert!(third.is_some());
    drop((second, third));
    assert_eq!(gate.in_flight(), 0);
}
