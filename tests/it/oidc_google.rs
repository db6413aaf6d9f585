//! What Google really sends: tokens again and again (T17), a real one (T18), one without its
//! signature (trap 1), and what is answered to all others (T19).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::response::IntoResponse as _;
use hookyard::clock::ManualClock;
use hookyard::config::PushAuthMode;
use hookyard::ingress::oidc::Flaw;
use hookyard::ingress::{OidcVerifier, TokenError, TokenVerifier as _};
use hookyard::telemetry::Metrics;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::oidc_issuer::{ACCOUNT, Answer, Issuer, config, key};

#[tokio::test]
async fn t17_a_known_token_is_accepted_again_until_it_expires() {
    let issuer = Issuer::start().await;
    let token = issuer.token();

    assert_eq!(
        issuer.judge(&token).await.unwrap().service_account(),
        ACCOUNT
    );
    assert_eq!(issuer.verifier.remembered(), 1);
    assert_eq!(issuer.status(&token).await, 200);
    issuer.advance(3660);
    assert_eq!(issuer.status(&token).await, 200, "within the leeway");
    issuer.advance(1);
    assert_eq!(issuer.status(&token).await, 401);
    assert_eq!(issuer.verifier.remembered(), 0);
}

#[tokio::test]
async fn t17_forged_tokens_are_never_remembered() {
    let issuer = Issuer::start().await;
    for _ in 0..50 {
        assert_eq!(issuer.status(&issuer.token_of("k0", key(1))).await, 401);
    }
    assert_eq!(issuer.verifier.remembered(), 0);
}

/// The token Google prints in its own description of push authentication, and the key it was
/// signed with (<https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions>).
const GOOGLES_TOKEN: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjdkNjgwZDhjNzBkNDRlOTQ3MTMzY2JkNDk5ZWJjMWE2MWMzZDVh",
    "YmMiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJodHRwczovL2V4YW1wbGUuY29tIiwiYXpwIjoiMTEzNzc0M",
    "jY0NDYzMDM4MzIxOTY0IiwiZW1haWwiOiJnYWUtZ2NwQGFwcHNwb3QuZ3NlcnZpY2VhY2NvdW50LmNvb",
    "SIsImVtYWlsX3ZlcmlmaWVkIjp0cnVlLCJleHAiOjE1NTAxODU5MzUsImlhdCI6MTU1MDE4MjMzNSwia",
    "XNzIjoiaHR0cHM6Ly9hY2NvdW50cy5nb29nbGUuY29tIiwic3ViIjoiMTEzNzc0MjY0NDYzMDM4MzIxO",
    "TY0In0.QVjyqpmadTyDZmlX2u3jWd1kJ68YkdwsRZDo-QxSPbxjug4ucLBwAs2QePrcgZ6hhkvdc4UHY",
    "4YF3fz9g7XHULNVIzX5xh02qXEH8dK6PgGndIWcZQzjSYfgO-q-R2oo2hNM5HBBsQN4ARtGK_acG-NGG",
    "WM3CQfahbEjZPAJe_B8M7HfIu_G5jOLZCw2EUcGo8BvEwGcLWB2WqEgRM0-xt5-UPzoa3-FpSPG7DHk7",
    "z9zRUeq6eB__ldb-2o4RciJmjVwHgnYqn3VvlX9oVKEgXpNFhKuYA-mWh5o7BCwhujSMmFoBOh6mbIXF",
    "cyf5UiVqKjpqEbqPGo_AvKvIQ9VTQ",
);
const GOOGLES_KEY: &str = concat!(
    "2K7epoJWl_B68lRUi1txaa0kEuIK4WHiHpi1yC4kPyu48d046yLlrwuvbQMbog2YTOZdVoG1D4zlWKHu",
    "VY00O80U1ocFmBl3fKVrUMakvHru0C0mAcEUQo7ItyEX7rpOVYtxlrVk6G8PY4EK61EB-Xe35P0zb2AM",
    "Zn7Tvm9-tLcccqYlrYBO4SWOwd5uBSqc_WcNJXgnQ-9sYEZ0JUMhKZelEMrpX72hslmduiz-LMsXCnbS",
    "7jDGcUuSjHXVLM9tb1SQynx5Xz9xyGeN4rQLnFIKvgwpiqnvLpbMo6grhJwrz67d1X6MwpKtAcqZ2V2v",
    "4rQsjbblNH7GzF8ZsfOaqw",
);

#[tokio::test]
async fn t18_a_token_really_signed_by_google_is_accepted_in_its_hour_only() {
    let googles = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "e": "AQAB",
        "kid": "7d680d8c70d44e947133cbd499ebc1a61c3d5abc", "n": GOOGLES_KEY});
    let issuer = Issuer::answering(Answer::keys(&[googles])).await;
    let cases = [
        (
            1_550_182_335,
            "https://example.com",
            "gae-gcp@appspot.gserviceaccount.com",
            200,
        ),
        (
            1_550_185_900,
            "https://example.com",
            "gae-gcp@appspot.gserviceaccount.com",
            200,
        ),
        (
            1_550_186_000,
            "https://example.com",
            "gae-gcp@appspot.gserviceaccount.com",
            401,
        ),
        (
            1_550_182_000,
            "https://example.com",
            "gae-gcp@appspot.gserviceaccount.com",
            401,
        ),
        (
            1_550_182_400,
            "https://example.org",
            "gae-gcp@appspot.gserviceaccount.com",
            401,
        ),
        (1_550_182_400, "https://example.com", ACCOUNT, 403),
    ];
    for (at, audience, account, expected) in cases {
        let mut config = config(&issuer.url, PushAuthMode::Verify);
        config.audiences = vec![audience.to_owned()];
        config.service_accounts = vec![account.to_owned()];
        let clock = ManualClock::at(UNIX_EPOCH + Duration::from_secs(at));
        let verifier = OidcVerifier::new(&config, clock, Metrics::new().unwrap());
        let status = match verifier.verify(GOOGLES_TOKEN).await {
            Ok(_) => 200,
            Err(error) => error.status().as_u16(),
        };
        assert_eq!(status, expected, "at {at} for {audience}");
    }
    let strangers = Issuer::start().await;
    let mut config = config(&strangers.url, PushAuthMode::Verify);
    config.audiences = vec!["https://example.com".to_owned()];
    let clock = ManualClock::at(UNIX_EPOCH + Duration::from_secs(1_550_182_400));
    let verifier = OidcVerifier::new(&config, clock, Metrics::new().unwrap());
    let refused = verifier.verify(GOOGLES_TOKEN).await.unwrap_err();
    assert_eq!(refused, TokenError::Invalid(Flaw::UnknownKey));
}

#[tokio::test]
async fn t19_every_bad_token_gets_the_same_answer() {
    let issuer = Issuer::start().await;
    let forged = issuer.token_of("k0", key(1));
    let expired = issuer.token_with(|claims| claims["exp"] = json!(issuer.now() - 100));
    let mut answers = Vec::new();
    for token in [
        "",
        "a.b.c",
        &forged,
        &expired,
        &issuer.token_of("k7", key(0)),
    ] {
        let response = issuer.judge(token).await.unwrap_err().into_response();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        answers.push((head.status, head.headers, body));
    }

    assert_eq!(answers[0].0, 401);
    assert_eq!(answers[0].1["www-authenticate"], "Bearer");
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[tokio::test]
async fn trap_1_verify_mode_refuses_the_literal_that_stands_for_a_removed_signature() {
    let issuer = Issuer::start().await;
    let token = issuer.token();
    let (message, _) = token.rsplit_once('.').unwrap();
    let stripped = format!("{message}.SIGNATURE_REMOVED_BY_GOOGLE");

    assert_eq!(
        issuer.judge(&stripped).await,
        Err(TokenError::Invalid(Flaw::SignatureRemoved))
    );
}

#[tokio::test]
async fn trap_1_platform_mode_accepts_only_the_literal_and_still_checks_the_claims() {
    let issuer = Issuer::start().await;
    let verifier = Arc::new(OidcVerifier::new(
        &config("http://127.0.0.1:1/", PushAuthMode::Platform),
        issuer.clock.clone(),
        issuer.metrics.clone(),
    ));
    let strip = |token: &str, third: &str| {
        let (message, _) = token.rsplit_once('.').unwrap();
        format!("{message}.{third}")
    };
    let judge = |token: &str| {
        let verdict = verifier.verify_now(token).unwrap();
        verdict.map_or_else(|error| error.status().as_u16(), |_| 200)
    };
    let literal = "SIGNATURE_REMOVED_BY_GOOGLE";
    let good = issuer.token();

    assert!(verifier.ready());
    assert_eq!(judge(&strip(&good, literal)), 200);
    assert_eq!(judge(&good), 401, "a signature nobody checks");
    for third in [
        "",
        "x",
        "signature_removed_by_google",
        "SIGNATURE_REMOVED_BY_GOOGLE2",
    ] {
        assert_eq!(judge(&strip(&good, third)), 401, "{third}");
    }
    let cases = [
        ("aud", json!("https://other.example"), 401),
        ("exp", json!(issuer.now() - 61), 401),
        ("iss", json!("https://evil.example"), 401),
        ("email_verified", json!(false), 401),
        ("email", json!("other@project.iam.gserviceaccount.com"), 403),
    ];
    for (claim, value, expected) in cases {
        let token = issuer.token_with(|claims| claims[claim] = value);
        assert_eq!(judge(&strip(&token, literal)), expected, "{claim}");
    }
}

#[tokio::test]
async fn nothing_of_a_token_is_in_errors_or_identities() {
    let issuer = Issuer::start().await;
    let identity = issuer.judge(&issuer.token()).await.unwrap();
    let error = issuer
        .judge(&issuer.token_of("k0", key(1)))
        .await
        .unwrap_err();

    let shown = format!("{identity:?} {error} {error:?} {}", error.reason());

    assert!(!shown.contains('@') && !shown.contains("eyJ"), "{shown}");
}
