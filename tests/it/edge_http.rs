//! The edge against clients that mean no good: rows B16 to B22, T1, T9 and P16.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use crate::edge_server::{Edge, body_of, get_request, hasty, header_of, options, status};
use crate::support::PATIENCE;

#[tokio::test]
async fn t1_without_a_token_the_answer_comes_before_the_body() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 10485760\r\n\r\n")
        .await;

    let answer = client.one_answer().await;

    assert_eq!(status(&answer), 401);
    assert_eq!(header_of(&answer, "www-authenticate"), Some("Bearer"));
    assert_eq!(body_of(&answer), "");
}

#[tokio::test]
async fn t1_a_client_that_sends_its_body_anyway_still_gets_the_answer() {
    let edge = Edge::start().await;
    let head = "POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 10485760\r\n\r\n";
    let request = [head.as_bytes(), &vec![b'x'; 10_485_760]].concat();

    let mut client = edge.connect().await;
    let sent = tokio::io::AsyncWriteExt::write_all(&mut client.0, &request).await;

    assert!(sent.is_ok(), "no reset while it was still sending");
    assert_eq!(status(&client.rest().await), 401);
    assert_eq!(edge.seen.read.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn t9_oversized_tokens_are_refused_at_once() {
    let edge = Edge::start().await;
    for (length, expected) in [(16 * 1024, 401), (1024 * 1024, 431)] {
        let token = "a".repeat(length);
        let request = format!(
            "POST /push HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             connection: close\r\n\r\n"
        );
        assert_eq!(status(&edge.exchange(request).await), expected);
    }
    edge.assert_serves().await;
}

#[tokio::test]
async fn b16_a_body_declared_too_large_is_refused_before_it_is_sent() {
    let edge = Edge::start().await;
    let request = edge.push("content-length: 1048577\r\n", "");

    let answer = edge.exchange(request).await;

    assert_eq!(status(&answer), 413);
    assert_eq!(body_of(&answer), "");
    assert_eq!(edge.seen.read.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn b16_a_chunked_body_is_refused_where_it_passes_the_limit() {
    let edge = Edge::start().await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let at_limit = format!("{}0\r\n\r\n", chunk.repeat(16));
    let over = format!("{}1\r\nx\r\n0\r\n\r\n", chunk.repeat(16));
    let endless = chunk.repeat(200);

    let chunked = "transfer-encoding: chunked\r\n";
    let accepted = edge.exchange(edge.push(chunked, &at_limit)).await;
    assert_eq!((status(&accepted), body_of(&accepted)), (200, "1048576"));
    for body in [over, endless] {
        assert_eq!(status(&edge.exchange(edge.push(chunked, &body)).await), 413);
    }
}

#[tokio::test]
async fn b17_compressed_bodies_are_refused() {
    let edge = Edge::start().await;
    for coding in [
        "gzip",
        "br",
        "deflate",
        "zstd",
        "x-unknown",
        "identity, gzip",
    ] {
        let headers = format!("content-encoding: {coding}\r\ncontent-length: 2\r\n");
        let answer = edge.exchange(edge.push(&headers, "{}")).await;
        assert_eq!(status(&answer), 415, "{coding}");
    }
    let headers = "content-encoding: Identity\r\ncontent-length: 2\r\n";
    assert_eq!(status(&edge.exchange(edge.push(headers, "{}")).await), 200);
}

#[tokio::test]
async fn b18_no_content_type_is_a_reason_to_refuse() {
    let edge = Edge::start().await;
    for kind in [
        "application/json",
        "application/json; charset=utf-16",
        "application/cloudevents+json",
        "application/x-www-form-urlencoded",
        "text/plain",
        "image/png",
        "",
    ] {
        let headers = format!("content-type: {kind}\r\ncontent-length: 2\r\n");
        let answer = edge.exchange(edge.push(&headers, "{}")).await;
        assert_eq!(status(&answer), 200, "{kind}");
    }
    let answer = edge
        .exchange(edge.push("content-length: 2\r\n", "{}"))
        .await;
    assert_eq!(status(&answer), 200);
}

#[tokio::test]
async fn b19_a_head_that_does_not_get_on_is_cut_off() {
    let edge = Edge::with(hasty(), None).await;
    let beginnings = [
        "",
        "G",
        "POST /push HTTP/1.1\r\nhost",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    // Each ends, which is what is tested: the helper fails when one does not.
    join_all(beginnings.map(async |beginning| {
        let mut client = edge.connect().await;
        client.send(beginning).await;
        client.rest().await
    }))
    .await;
    edge.assert_serves().await;
}

#[tokio::test]
async fn b19_a_slow_second_head_on_a_kept_connection_is_cut_off() {
    let edge = Edge::with(hasty(), None).await;
    let mut client = edge.connect().await;
    client.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(status(&client.one_answer().await), 200);

    client.send("GET /health HT").await;

    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn b19_an_idle_connection_outlives_the_head_timeout_but_not_the_idle_timeout() {
    let mut patience = hasty();
    patience.idle_timeout = Duration::from_secs(6);
    let edge = Edge::with(patience.clone(), None).await;
    let mut client = edge.connect().await;
    let request = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send(request).await;
    assert_eq!(status(&client.one_answer().await), 200);
    tokio::time::sleep(patience.header_timeout * 2).await;
    client.send(request).await;
    assert_eq!(status(&client.one_answer().await), 200);

    let idle_from = tokio::time::Instant::now();

    assert_eq!(client.rest().await, "");
    assert!(idle_from.elapsed() >= patience.idle_timeout / 2);
}

#[tokio::test]
async fn b19_a_body_that_does_not_get_on_is_a_408() {
    let edge = Edge::with(hasty(), None).await;
    let mut client = edge.connect().await;
    client
        .send(edge.push("content-length: 100\r\n", "{\"a\":"))
        .await;

    assert_eq!(status(&client.rest().await), 408);
}

#[tokio::test]
async fn b19_a_half_closed_client_still_gets_its_answer() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    client.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    edge.until(|seen| seen.slow.load(Ordering::SeqCst) == 1)
        .await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.0)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    edge.seen.release.notify_one();

    let answer = client.rest().await;

    assert_eq!(body_of(&answer), "slow but done");
}

#[tokio::test]
async fn b19_hundreds_of_silent_connections_do_not_stop_good_ones() {
    let edge = Edge::start().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(edge.connect().await);
    }

    for _ in 0..20 {
        edge.assert_serves().await;
    }
}

#[tokio::test]
async fn b19_connections_beyond_the_limit_wait_for_a_place() {
    let mut few = options();
    few.max_connections = 2;
    let edge = Edge::with(few, None).await;
    let mut first = edge.connect().await;
    let mut second = edge.connect().await;
    for client in [&mut first, &mut second] {
        client
            .send("GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await;
    }
    edge.until(|seen| seen.slow.load(Ordering::SeqCst) == 2)
        .await;
    let mut third = edge.connect().await;
    third.send(get_request("/health")).await;
    let early = tokio::time::timeout(Duration::from_millis(50), third.0.readable()).await;
    assert!(early.is_err(), "there was no place yet");

    edge.seen.release.notify_one();

    assert_eq!(status(&third.rest().await), 200);
}

#[tokio::test]
async fn b20_framing_that_can_be_read_in_two_ways_is_refused() {
    let edge = Edge::start().await;
    for (headers, body) in [
        ("content-length: 5\r\ncontent-length: 6\r\n", "hello!"),
        ("content-length: 5, 6\r\n", "hello!"),
        ("content-length: -1\r\n", ""),
        ("content-length: +5\r\n", "hello"),
        ("content-length: 0x5\r\n", "hello"),
        ("content-length: 99999999999999999999999\r\n", ""),
        ("transfer-encoding: gzip\r\n", "hello"),
        ("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        ("transfer-encoding : chunked\r\n", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\n", "zz\r\nhello\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\n", "5\r\nhelloXX0\r\n\r\n"),
    ] {
        let answer = edge.exchange(edge.push(headers, body)).await;
        assert_eq!(status(&answer), 400, "{headers}{answer}");
    }
    assert_eq!(edge.seen.read.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn b20_length_and_chunks_together_never_smuggle_a_second_request() {
    let edge = Edge::start().await;
    let smuggled = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    let headers = "content-length: 4\r\ntransfer-encoding: chunked\r\n";
    let request = edge.push(headers, &format!("0\r\n\r\n{smuggled}"));

    let answer = edge.exchange(request).await;

    assert!([200, 400].contains(&status(&answer)), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1);
    assert_eq!(edge.seen.slow.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn b20_a_body_shorter_than_declared_is_not_taken() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    client
        .send(edge.push("content-length: 100\r\n", "{}"))
        .await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.0)
        .await
        .unwrap();
    client.rest().await;

    edge.until(|seen| seen.broken.load(Ordering::SeqCst) == 1)
        .await;
    assert_eq!(edge.seen.read.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn b20_a_body_longer_than_declared_does_not_become_part_of_it() {
    let edge = Edge::start().await;
    let token = edge.issuer.token();
    let request = format!(
        "POST /push HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-length: 2\r\n\r\n{{}}trailing rubbish\r\n\r\n"
    );

    let answer = edge.exchange(request).await;

    assert_eq!(status(&answer), 200);
    assert!(answer.contains("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn b20_each_pipelined_request_shows_its_own_token() {
    let edge = Edge::start().await;
    let token = edge.issuer.token();
    let first = format!(
        "POST /push HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-length: 2\r\n\r\n{{}}"
    );
    let second = "POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";

    let answer = edge
        .exchange(format!("{first}{second}{}", get_request("/health")))
        .await;

    let statuses: Vec<u16> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| status(&answer[at..]))
        .collect();
    assert_eq!(statuses, [200, 401, 200]);
    assert_eq!(edge.seen.read.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn b20_http_1_0_is_served_and_closed() {
    let edge = Edge::start().await;

    let answer = edge.exchange("GET /health HTTP/1.0\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    for request in [
        "GET /health\r\n\r\n",
        "GET /health HTTP/3.7\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let answer = edge.exchange(request).await;
        assert!([0, 400].contains(&status(&answer)), "{answer}");
    }
}

#[tokio::test]
async fn b20_the_body_is_asked_for_only_after_the_token_was_seen() {
    let edge = Edge::start().await;
    let expect = "expect: 100-continue\r\ncontent-length: 2\r\n";
    let mut client = edge.connect().await;
    client.send(edge.push(expect, "")).await;
    assert_eq!(status(&client.one_answer().await), 100);
    client.send("{}").await;
    assert_eq!(status(&client.rest().await), 200);

    let without = format!("POST /push HTTP/1.1\r\nhost: x\r\n{expect}\r\n");
    let mut client = edge.connect().await;
    client.send(without).await;

    assert_eq!(status(&client.one_answer().await), 401);
}

#[tokio::test]
async fn b20_a_flood_of_http_2_resets_ends_that_connection_only() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    // Preface, empty SETTINGS, then streams that are reset as soon as they are opened.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let head = [
        0x82, 0x86, 0x41, 0x01, b'x', 0x04, 0x05, b'/', b's', b'l', b'o', b'w',
    ];
    for stream in (1..20_000_u32).step_by(2) {
        let id = stream.to_be_bytes();
        bytes.extend_from_slice(&[0, 0, 12, 0x01, 0x05]);
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&[0, 0, 4, 0x03, 0]);
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&[0, 0, 0, 8]);
    }
    client.send(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut answer);
    let ended = tokio::time::timeout(PATIENCE, read).await;

    assert!(ended.is_ok(), "the connection must be ended");
    assert!(edge.seen.slow.load(Ordering::SeqCst) < 1000);
    edge.assert_serves().await;
}

#[tokio::test]
async fn http_2_without_tls_is_served() {
    let edge = Edge::start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("http://{}/push", edge.address);

    for _ in 0..3 {
        let answer = client
            .post(&url)
            .bearer_auth(edge.issuer.token())
            .body("x".repeat(200_000))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(answer.text().await.unwrap(), "200000");
    }
}

#[tokio::test]
async fn b21_other_methods_and_paths_reach_no_door() {
    let edge = Edge::start().await;
    for method in [
        "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
    ] {
        let request = format!("{method} /push HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = edge.exchange(request).await;
        assert_eq!(status(&answer), 405, "{method}");
        assert_eq!(header_of(&answer, "allow"), Some("POST"), "{method}");
    }
    for path in [
        "/push/",
        "//push",
        "/PUSH",
        "/%70ush",
        "/push%2f",
        "/x/%2e%2e/push",
        "/",
    ] {
        let request = edge.push("content-length: 2\r\n", "{}");
        let answer = edge.exchange(request.replacen("/push", path, 1)).await;
        assert_eq!(status(&answer), 404, "{path}");
    }
    assert_eq!(edge.seen.read.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn b22_work_goes_on_when_the_client_hangs_up() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    client.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    edge.until(|seen| seen.slow.load(Ordering::SeqCst) == 1)
        .await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(20)).await;

    edge.seen.release.notify_one();

    edge.until(|seen| seen.finished.load(Ordering::SeqCst) == 1)
        .await;
}

#[tokio::test]
async fn b22_a_client_that_leaves_in_the_middle_of_its_body_is_noticed() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    client
        .send(edge.push("content-length: 100\r\n", "{\"a\":"))
        .await;
    drop(client);

    edge.until(|seen| seen.broken.load(Ordering::SeqCst) == 1)
        .await;
    edge.assert_serves().await;
}

/// Runs itself again in a process that may open 64 files only.
#[tokio::test]
async fn p16_accepting_survives_running_out_of_file_descriptors() {
    const IN_CHILD: &str = "HOOKYARD_TEST_FEW_DESCRIPTORS";
    if !std::env::vars_os().any(|(name, _)| name == IN_CHILD) {
        let child = std::process::Command::new("sh")
            .args(["-c", r#"ulimit -n 64 && exec "$0" --exact "$1""#])
            .arg(std::env::current_exe().unwrap())
            .arg("edge_http::p16_accepting_survives_running_out_of_file_descriptors")
            .env(IN_CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    let edge = Edge::start().await;
    edge.assert_serves().await;
    let mut clients = Vec::new();
    while let Ok(client) = tokio::net::TcpStream::connect(edge.address).await {
        clients.push(client);
        assert!(clients.len() < 100, "the limit is not in force");
    }
    // Nothing can be accepted now; some rounds of the loop go by.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(clients);

    edge.assert_serves().await;
}
