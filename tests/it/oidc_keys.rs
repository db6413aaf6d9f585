//! How the issuer's keys are kept: rows T10 to T16.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hookyard::ingress::oidc::Flaw;
use hookyard::ingress::{TokenError, TokenVerifier as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::oidc_issuer::{Answer, Issuer, b64, jwk, key};

const HOUR: u64 = 3600;

#[tokio::test]
async fn t10_a_new_kid_is_fetched_once_and_the_old_one_is_refused_afterwards() {
    let issuer = Issuer::start().await;
    let old = issuer.token();
    assert_eq!(issuer.status(&old).await, 200);
    assert_eq!(issuer.hits(), 1);
    issuer.now_answers(Answer::keys(&[jwk("k1", key(1))]));

    assert_eq!(issuer.status(&issuer.token_of("k1", key(1))).await, 200);

    assert_eq!(issuer.hits(), 2);
    assert_eq!(issuer.status(&old).await, 401, "even as a remembered token");
    assert_eq!(issuer.hits(), 2, "the cool-down has begun");
}

#[tokio::test]
async fn t10_a_key_replaced_under_its_old_name_ends_what_it_verified() {
    let issuer = Issuer::start().await;
    let token = issuer.token();
    assert_eq!(issuer.status(&token).await, 200);
    issuer.now_answers(Answer::keys(&[jwk("k0", key(1))]));
    issuer.advance(HOUR);
    issuer.verifier.refresh_due().await;

    assert_eq!(issuer.status(&token).await, 401);
}

#[tokio::test]
async fn t11_a_flood_of_unknown_kids_causes_one_fetch_per_cool_down() {
    let issuer = Issuer::start().await;
    let good = issuer.token();
    assert_eq!(issuer.status(&good).await, 200);
    let tokens: Vec<String> = (0..200)
        .map(|i| issuer.token_of(&format!("x{i}"), key(0)))
        .collect();

    let flood = join_all(tokens.iter().map(|token| issuer.status(token))).await;
    assert!(flood.iter().all(|status| *status == 401));
    assert_eq!(issuer.hits(), 2);
    issuer.advance(29);
    assert_eq!(issuer.status(&tokens[0]).await, 401);
    assert_eq!(issuer.hits(), 2);
    issuer.advance(1);
    assert_eq!(issuer.status(&tokens[0]).await, 401);
    assert_eq!(issuer.hits(), 3);
}

#[tokio::test]
async fn t11_a_good_token_does_not_wait_for_a_fetch_a_bad_one_started() {
    let keys = Answer::keys(&[jwk("k0", key(0))]);
    let issuer = Arc::new(Issuer::waited_for(keys, Duration::from_secs(2)).await);
    let good = issuer.token();
    assert_eq!(issuer.status(&good).await, 200);
    issuer.now_answers(Answer::hanging_after(""));
    let tasks = TaskTracker::new();
    let bad = issuer.token_of("unknown", key(0));
    let waiting = tasks.spawn({
        let issuer = issuer.clone();
        async move { issuer.status(&bad).await }
    });
    while issuer.hits() < 2 {
        tokio::task::yield_now().await;
    }

    let fresh = issuer.token_with(|claims| claims["sub"] = json!("fresh"));
    for token in [&good, &fresh] {
        let verdict = issuer.verifier.verify_now(token);
        assert!(verdict.is_some_and(|verdict| verdict.is_ok()));
    }
    assert!(!waiting.is_finished());
    assert_eq!(waiting.await.unwrap(), 401);
}

#[tokio::test]
async fn t11_what_is_refused_anyway_causes_no_fetch() {
    let issuer = Issuer::start().await;
    assert_eq!(issuer.status(&issuer.token()).await, 200);
    let mut claims = issuer.claims();
    claims["aud"] = json!("https://other.example");
    let header = crate::oidc_issuer::header("unknown");
    let token = crate::oidc_issuer::sign(&header, &claims.to_string(), key(0));

    assert_eq!(issuer.status(&token).await, 401);

    assert_eq!(issuer.hits(), 1);
}

#[tokio::test]
async fn t11_concurrent_first_tokens_share_one_fetch() {
    let issuer = Issuer::start().await;
    let tokens: Vec<String> = (0..50)
        .map(|i| issuer.token_with(|claims| claims["sub"] = json!(i.to_string())))
        .collect();

    let all = join_all(tokens.iter().map(|token| issuer.status(token))).await;

    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(issuer.hits(), 1);
}

#[tokio::test]
async fn t12_without_keys_a_token_that_only_they_can_decide_is_503() {
    let html = "<html><body>Sign in</body></html>";
    let good = json!({"keys": [jwk("k0", key(0))]}).to_string();
    let truncated = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
        good.len(),
        &good[..good.len() / 2]
    );
    let canary = Issuer::start().await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        canary.url
    );
    let huge = [good.as_bytes(), &vec![b' '; 2 * 1024 * 1024]].concat();
    let answers = [
        (
            "500",
            Answer::raw("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        ),
        ("html", Answer::ok(html, "content-type: text/html\r\n")),
        ("truncated", Answer::raw(truncated)),
        ("{}", Answer::ok("{}", "")),
        ("no keys", Answer::keys(&[])),
        ("keys is a string", Answer::ok(r#"{"keys":"k0"}"#, "")),
        ("too large", Answer::ok(huge, "")),
        ("never answers", Answer::hanging_after("")),
        (
            "never ends",
            Answer::hanging_after("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"),
        ),
        ("redirect", Answer::raw(redirect)),
        ("no http", Answer::raw("hello\r\n\r\n")),
        ("closes", Answer::raw("")),
    ];
    for (name, answer) in answers {
        let issuer = Issuer::answering(answer).await;
        let verdict = issuer.judge(&issuer.token()).await;

        assert_eq!(verdict, Err(TokenError::KeysUnavailable), "{name}");
        assert!(!issuer.verifier.ready(), "{name}");
        assert_eq!(issuer.status("a.b.c").await, 401, "decidable: {name}");

        issuer.now_answers(Answer::keys(&[jwk("k0", key(0))]));
        assert_eq!(
            issuer.status(&issuer.token()).await,
            503,
            "too early: {name}"
        );
        issuer.advance(1);
        assert_eq!(issuer.status(&issuer.token()).await, 200, "{name}");
        assert!(issuer.verifier.ready());
    }
    assert_eq!(canary.hits(), 0);
}

#[tokio::test]
async fn t12_a_failing_key_endpoint_is_asked_less_and_less_often() {
    let issuer = Issuer::answering(Answer::raw("")).await;
    let token = issuer.token();
    for _ in 0..120 {
        assert_eq!(issuer.status(&token).await, 503);
        issuer.advance(1);
    }
    // After 0, 1, 3, 7, 15 seconds, then every 15.
    assert_eq!(issuer.hits(), 11);
}

#[tokio::test]
async fn t13_good_keys_serve_for_a_day_without_the_issuer() {
    let issuer = Issuer::start().await;
    assert_eq!(issuer.status(&issuer.token()).await, 200);
    issuer.now_answers(Answer::raw(""));

    issuer.advance(23 * HOUR);
    issuer.verifier.refresh_due().await;
    assert_eq!(issuer.status(&issuer.token()).await, 200);
    let last = issuer.token();
    assert_eq!(issuer.status(&last).await, 200);
    issuer.advance(HOUR + 61);
    assert_eq!(issuer.status(&issuer.token()).await, 503);
    assert_eq!(
        issuer.status(&last).await,
        401,
        "expired, which needs no key"
    );
    assert!(!issuer.verifier.ready());
    issuer.now_answers(Answer::keys(&[jwk("k0", key(0))]));
    issuer.advance(300);
    assert_eq!(issuer.status(&issuer.token()).await, 200);
}

#[tokio::test]
async fn t13_a_remembered_token_does_not_outlive_the_keys() {
    let issuer = Issuer::start().await;
    issuer.verifier.refresh_due().await;
    issuer.now_answers(Answer::raw(""));
    issuer.advance(24 * HOUR - 60);
    let token = issuer.token();
    assert_eq!(issuer.status(&token).await, 200);

    issuer.advance(61);

    assert_eq!(issuer.status(&token).await, 503);
}

#[tokio::test]
async fn t14_an_empty_or_garbled_refresh_changes_nothing() {
    for bad in [
        "",
        "{}",
        r#"{"keys":[]}"#,
        "[]",
        "null",
        r#"{"keys":[1,null]}"#,
    ] {
        let issuer = Issuer::start().await;
        assert_eq!(issuer.status(&issuer.token()).await, 200);
        issuer.now_answers(Answer::ok(bad, ""));
        issuer.advance(2 * HOUR);
        issuer.verifier.refresh_due().await;

        assert_eq!(issuer.hits(), 2);
        assert_eq!(issuer.status(&issuer.token()).await, 200, "{bad}");
    }
}

#[tokio::test]
async fn t14_bad_members_of_a_set_are_skipped() {
    let keys = [
        json!(7),
        json!(null),
        json!({"kty": "RSA"}),
        json!({"kty": "RSA", "kid": "x", "n": "!", "e": "AQAB"}),
        json!({"kty": "future", "kid": "y", "z": {}}),
        jwk("k0", key(0)),
        json!("k0"),
    ];
    let issuer = Issuer::answering(Answer::keys(&keys)).await;

    assert_eq!(issuer.status(&issuer.token()).await, 200);
    assert_eq!(issuer.verifier.probe_keys().await, Ok(1));
}

#[tokio::test]
async fn t15_unfit_keys_verify_nothing() {
    let (n, e) = crate::oidc_issuer::modulus_and_exponent(key(0));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut member = jwk("k0", key(0));
        change(&mut member);
        member
    };
    let sets: [(&str, Vec<Value>); 12] = [
        ("use enc", vec![changed(&|m| m["use"] = json!("enc"))]),
        ("alg RS512", vec![changed(&|m| m["alg"] = json!("RS512"))]),
        ("alg PS256", vec![changed(&|m| m["alg"] = json!("PS256"))]),
        ("kty EC", vec![changed(&|m| m["kty"] = json!("EC"))]),
        (
            "kty oct",
            vec![json!({"kty": "oct", "kid": "k0", "alg": "HS256", "k": b64(&n)})],
        ),
        (
            "EC key",
            vec![json!({"kty": "EC", "crv": "P-256", "kid": "k0", "x": b64(&n), "y": b64(&e)})],
        ),
        (
            "1024 bits",
            vec![changed(&|m| m["n"] = json!(b64(&n[..128])))],
        ),
        (
            "2047 bits",
            vec![changed(&|m| {
                m["n"] = json!(b64([&[0x7f], &n[1..]].concat()))
            })],
        ),
        ("exponent 1", vec![changed(&|m| m["e"] = json!("AQ"))]),
        ("even exponent", vec![changed(&|m| m["e"] = json!("AQAA"))]),
        ("no kid", vec![changed(&|m| m["kid"] = json!(null))]),
        ("kid twice", vec![jwk("k0", key(0)), jwk("k0", key(1))]),
    ];
    for (name, mut set) in sets {
        set.push(jwk("other", key(2)));
        let issuer = Issuer::answering(Answer::keys(&set)).await;
        let verdict = issuer.judge(&issuer.token()).await;
        assert_eq!(
            verdict,
            Err(TokenError::Invalid(Flaw::UnknownKey)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn t15_leading_zeros_and_absent_hints_are_fine() {
    let mut bare = jwk("k0", key(0));
    let (n, _) = crate::oidc_issuer::modulus_and_exponent(key(0));
    bare["n"] = json!(b64([&[0, 0], n.as_slice()].concat()));
    bare.as_object_mut().unwrap().remove("use");
    bare.as_object_mut().unwrap().remove("alg");
    let issuer = Issuer::answering(Answer::keys(&[bare])).await;

    assert_eq!(issuer.status(&issuer.token()).await, 200);
}

#[tokio::test]
async fn t16_cache_control_is_believed_within_bounds() {
    let keys = json!({"keys": [jwk("k0", key(0))]}).to_string();
    let cases = [
        ("cache-control: max-age=0\r\n", 300),
        ("cache-control: no-store\r\n", HOUR),
        ("", HOUR),
        ("cache-control: max-age=abc\r\n", 300),
        (
            "cache-control: public, MAX-AGE=1000, must-revalidate\r\n",
            1000,
        ),
        (
            "cache-control: public\r\ncache-control: max-age=\"1000\"\r\n",
            1000,
        ),
        ("cache-control: max-age=20000\r\nage: 5000\r\n", 15000),
        ("cache-control: max-age=315360000\r\n", 23 * HOUR),
        (
            "cache-control: max-age=99999999999999999999999\r\n",
            23 * HOUR,
        ),
    ];
    for (headers, seconds) in cases {
        let issuer = Issuer::answering(Answer::ok(&keys, headers)).await;
        issuer.verifier.refresh_due().await;
        issuer.advance(seconds - 1);
        issuer.verifier.refresh_due().await;
        assert_eq!(issuer.hits(), 1, "{headers}");
        issuer.advance(1);
        issuer.verifier.refresh_due().await;
        assert_eq!(issuer.hits(), 2, "{headers}");
    }
}

#[tokio::test]
async fn t16_a_refresh_that_brings_the_same_keys_keeps_verified_tokens() {
    let issuer = Issuer::start().await;
    let token = issuer.token();
    assert_eq!(issuer.status(&token).await, 200);
    issuer.advance(HOUR);
    issuer.verifier.refresh_due().await;

    assert_eq!(issuer.hits(), 2);
    assert_eq!(issuer.status(&token).await, 200);
    assert_eq!(issuer.verifier.remembered(), 1);
}

#[tokio::test]
async fn traffic_alone_starts_a_refresh_that_is_due() {
    let issuer = Issuer::start().await;
    assert_eq!(issuer.status(&issuer.token()).await, 200);
    issuer.advance(HOUR);

    assert_eq!(issuer.status(&issuer.token()).await, 200);

    while issuer.hits() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn keys_are_fetched_at_start_before_any_token_comes() {
    let issuer = Issuer::start().await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    assert!(!issuer.verifier.ready());

    issuer.verifier.start(&tasks, stop.clone());

    while !issuer.verifier.ready() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(issuer.verifier.verify_now(&issuer.token()).is_some());
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    assert!(
        issuer
            .metrics
            .render()
            .contains(r#"hookyard_upstream_requests_total{outcome="ok",upstream="jwks"} 1"#)
    );
}
