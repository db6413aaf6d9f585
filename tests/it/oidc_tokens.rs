//! Which tokens are believed: rows T1 to T9 and T17 to T19 as far as they need no door.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::response::IntoResponse as _;
use hookyard::clock::ManualClock;
use hookyard::config::PushAuthMode;
use hookyard::ingress::oidc::Flaw;
use hookyard::ingress::{OidcVerifier, TokenError, TokenVerifier as _, bearer};
use hookyard::telemetry::Metrics;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::oidc_issuer::{ACCOUNT, AUDIENCE, Answer, ISSUER, Issuer, b64, config, header};
use crate::oidc_issuer::{jwk, key, modulus_and_exponent, sign};

fn authorization(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn t1_only_a_single_bearer_token_in_authorization_counts() {
    let refused: &[&[&str]] = &[
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Basic YTpi"],
        &["a.b.c"],
        &["Bearer a b"],
        &["Bearer a.b.c, Bearer a.b.c"],
        &["Bearer a.b.c", "Bearer a.b.c"],
        &["Bearer\ta.b.c"],
    ];
    for values in refused {
        let error = bearer(&authorization(values)).unwrap_err();
        assert_eq!(error.status(), 401, "{values:?}");
    }
    let mut elsewhere = HeaderMap::new();
    for name in ["cookie", "x-forwarded-authorization", "proxy-authorization"] {
        elsewhere.insert(name, HeaderValue::from_static("Bearer a.b.c"));
    }
    assert_eq!(
        bearer(&elsewhere),
        Err(TokenError::Invalid(Flaw::Missing)),
        "a token elsewhere is no token"
    );
}

#[test]
fn t8_the_scheme_is_read_in_any_case() {
    for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c"] {
        assert_eq!(bearer(&authorization(&[value])), Ok("a.b.c"));
    }
}

#[test]
fn t9_a_token_longer_than_8_kib_is_refused_unread() {
    let longest = format!("Bearer {}", "a".repeat(8 * 1024));
    let longer = format!("Bearer {}", "a".repeat(8 * 1024 + 1));

    assert!(bearer(&authorization(&[&longest])).is_ok());
    assert!(bearer(&authorization(&[&longer])).is_err());
}

#[tokio::test]
async fn t9_a_header_nested_5000_deep_is_refused_quickly() {
    let issuer = Issuer::start().await;
    let deep = format!(
        r#"{{"alg":"RS256","kid":"k0","x":{}1{}}}"#,
        "[".repeat(2900),
        "]".repeat(2900)
    );
    let token = sign(&deep, &issuer.claims().to_string(), key(0));
    assert!(token.len() < 9 * 1024);

    let status = issuer.status(&token).await;

    assert!(
        [200, 401].contains(&status),
        "judged, not crashed: {status}"
    );
}

#[tokio::test]
async fn t1_what_has_no_three_parts_is_refused() {
    let issuer = Issuer::start().await;
    let good = issuer.token();
    let parts: Vec<&str> = good.split('.').collect();

    for token in [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        &format!("{}.{}.", parts[0], parts[1]),
        &format!("{}..{}", parts[0], parts[2]),
        &format!(".{}.{}", parts[1], parts[2]),
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}="),
        &format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
    ] {
        assert_eq!(issuer.status(token).await, 401, "{token}");
    }
    assert_eq!(issuer.status(&good).await, 200);
}

#[tokio::test]
async fn t2_no_other_algorithm_than_rs256_is_believed() {
    let issuer = Issuer::start().await;
    let claims = issuer.claims().to_string();
    let algorithms = [
        "none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS384", "RS512", "PS256",
        "ES256", "EdDSA", "rs256", "",
    ];
    for algorithm in algorithms {
        let header = json!({"alg": algorithm, "kid": "k0", "typ": "JWT"}).to_string();
        let signed = sign(&header, &claims, key(0));
        assert_eq!(issuer.status(&signed).await, 401, "{algorithm}");
        let (message, _) = signed.rsplit_once('.').unwrap();
        assert_eq!(issuer.status(&format!("{message}.")).await, 401);
        assert_eq!(issuer.status(&format!("{message}.AA")).await, 401);
    }
    for header in [
        json!({"kid": "k0"}),
        json!({"alg": null, "kid": "k0"}),
        json!({"alg": ["RS256"], "kid": "k0"}),
    ] {
        let token = sign(&header.to_string(), &claims, key(0));
        assert_eq!(issuer.status(&token).await, 401, "{header}");
    }
}

#[tokio::test]
async fn t2_the_public_key_is_no_shared_secret() {
    use aws_lc_rs::hmac;
    let issuer = Issuer::start().await;
    let (n, e) = modulus_and_exponent(key(0));
    let public = jwk("k0", key(0)).to_string();
    let encoded = b64(&n);
    let secrets: [&[u8]; 4] = [&n, &e, encoded.as_bytes(), public.as_bytes()];
    for algorithm in ["HS256", "RS256"] {
        let header = json!({"alg": algorithm, "kid": "k0"}).to_string();
        let message = format!("{}.{}", b64(header), b64(issuer.claims().to_string()));
        for secret in secrets {
            let tag = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, secret),
                message.as_bytes(),
            );
            let token = format!("{message}.{}", b64(tag));
            assert_eq!(issuer.status(&token).await, 401);
        }
    }
}

#[tokio::test]
async fn t3_another_key_or_a_hostile_key_id_is_refused() {
    let issuer = Issuer::answering(Answer::keys(&[jwk("k0", key(0)), jwk("k1", key(1))])).await;
    let claims = issuer.claims().to_string();

    assert_eq!(issuer.status(&issuer.token_of("k0", key(2))).await, 401);
    assert_eq!(issuer.status(&issuer.token_of("k1", key(0))).await, 401);
    for header in [
        json!({"alg": "RS256"}),
        json!({"alg": "RS256", "kid": null}),
        json!({"alg": "RS256", "kid": ""}),
        json!({"alg": "RS256", "kid": {"k0": 1}}),
        json!({"alg": "RS256", "kid": ["k0"]}),
        json!({"alg": "RS256", "kid": "k".repeat(300)}),
        json!({"alg": "RS256", "kid": "k0\r\nx: y"}),
        json!({"alg": "RS256", "kid": "../../k0"}),
        json!({"alg": "RS256", "kid": "K0"}),
    ] {
        let token = sign(&header.to_string(), &claims, key(0));
        assert_eq!(issuer.status(&token).await, 401, "{header}");
    }
    let twice = r#"{"alg":"RS256","kid":"k1","kid":"k0"}"#;
    assert_eq!(issuer.status(&sign(twice, &claims, key(0))).await, 401);
}

#[tokio::test]
async fn t3_a_changed_token_no_longer_fits_its_signature() {
    let issuer = Issuer::start().await;
    let good = issuer.token();
    assert_eq!(issuer.status(&good).await, 200);
    let parts: Vec<&str> = good.split('.').collect();
    let other = issuer.token_with(|claims| claims["sub"] = json!("1"));
    let payload = other.split('.').nth(1).unwrap();

    let swapped = format!("{}.{payload}.{}", parts[0], parts[2]);

    assert_eq!(
        issuer.judge(&swapped).await,
        Err(TokenError::Invalid(Flaw::Signature))
    );
}

#[tokio::test]
async fn t4_a_header_that_brings_its_own_key_or_rules_is_refused() {
    let canary = Issuer::start().await;
    let issuer = Issuer::start().await;
    let claims = issuer.claims().to_string();
    for (member, value) in [
        ("jwk", jwk("k0", key(2))),
        ("jku", json!(canary.url)),
        ("x5u", json!(canary.url)),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", Value::Null),
        ("b64", json!(false)),
        ("b64", json!(true)),
    ] {
        let mut header = json!({"alg": "RS256", "kid": "k0", "typ": "JWT"});
        header[member] = value;
        for signer in [key(0), key(2)] {
            let token = sign(&header.to_string(), &claims, signer);
            assert_eq!(issuer.status(&token).await, 401, "{member}");
        }
    }
    assert_eq!(canary.hits(), 0);
}

#[tokio::test]
async fn t5_audience_issuer_and_account_must_match_exactly() {
    let issuer = Issuer::start().await;
    let cases = [
        ("aud", json!("https://hookyard.example/pus"), 401),
        ("aud", json!("https://hookyard.example/push/"), 401),
        ("aud", json!("https://hookyard.example/push2"), 401),
        ("aud", json!("HTTPS://hookyard.example/push"), 401),
        ("aud", json!(""), 401),
        ("aud", json!([AUDIENCE]), 401),
        ("aud", json!([AUDIENCE, "other"]), 401),
        ("aud", json!(7), 401),
        ("aud", Value::Null, 401),
        ("iss", json!("https://accounts.google.com/"), 401),
        ("iss", json!("http://accounts.google.com"), 401),
        (
            "iss",
            json!("https://accounts.google.com.evil.example"),
            401,
        ),
        ("iss", json!("https://evil.example"), 401),
        ("iss", json!([ISSUER]), 401),
        ("iss", json!(1), 401),
        ("iss", Value::Null, 401),
        ("email", json!("other@project.iam.gserviceaccount.com"), 403),
        ("email", json!("someone@gmail.com"), 403),
        ("email", json!(format!("{ACCOUNT}.evil.example")), 403),
        ("email", json!(format!("x{ACCOUNT}")), 403),
        ("email", json!(ACCOUNT.replace('p', "р")), 403),
        ("email", json!(ACCOUNT.to_uppercase()), 403),
        ("email", json!(""), 403),
        ("email", json!([ACCOUNT]), 401),
        ("email", Value::Null, 401),
        ("email_verified", json!(false), 401),
        ("email_verified", json!("false"), 401),
        ("email_verified", json!("true"), 401),
        ("email_verified", json!(1), 401),
        ("email_verified", Value::Null, 401),
    ];
    for (claim, value, expected) in cases {
        let token = issuer.token_with(|claims| claims[claim] = value.clone());
        assert_eq!(issuer.status(&token).await, expected, "{claim}: {value}");
    }
    for claim in ["aud", "iss", "email", "email_verified", "exp"] {
        let token = issuer.token_with(|claims| {
            claims.as_object_mut().unwrap().remove(claim);
        });
        assert_eq!(issuer.status(&token).await, 401, "no {claim}");
    }
}

#[tokio::test]
async fn t5_a_claim_given_twice_is_refused() {
    let issuer = Issuer::start().await;
    let claims = issuer.claims().to_string();
    let twice = claims.replacen('{', &format!(r#"{{"aud":"{AUDIENCE}","#), 1);

    assert_eq!(
        issuer.status(&sign(&header("k0"), &twice, key(0))).await,
        401
    );
}

#[tokio::test]
async fn t5_another_identity_is_told_so_only_with_a_good_signature() {
    let issuer = Issuer::start().await;
    let mut claims = issuer.claims();
    claims["email"] = json!("other@project.iam.gserviceaccount.com");

    let forged = sign(&header("k0"), &claims.to_string(), key(1));
    let genuine = sign(&header("k0"), &claims.to_string(), key(0));

    assert_eq!(issuer.status(&forged).await, 401);
    assert_eq!(issuer.judge(&genuine).await, Err(TokenError::WrongIdentity));
    assert_eq!(issuer.verifier.remembered(), 0);
}

#[tokio::test]
async fn t7_times_out_of_bounds_or_of_odd_types_are_refused() {
    let issuer = Issuer::start().await;
    let now = issuer.now();
    let cases = [
        ("exp", json!(now - 61)),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!((now + 3600).to_string())),
        ("exp", json!([now + 3600])),
        ("exp", json!(true)),
        ("exp", Value::Null),
        ("exp", json!(now + 25 * 3600)),
        ("exp", json!(9_999_999_999_u64)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(1e300)),
        ("nbf", json!(now + 61)),
        ("nbf", json!("soon")),
        ("iat", json!(now + 61)),
        ("iat", json!(now - 24 * 3600)),
        ("iat", json!("now")),
    ];
    for (claim, value) in cases {
        let token = issuer.token_with(|claims| claims[claim] = value.clone());
        assert_eq!(issuer.status(&token).await, 401, "{claim}: {value}");
    }
    let overflow = issuer
        .claims()
        .to_string()
        .replace(&format!(r#""exp":{}"#, now + 3600), r#""exp":1e400"#);
    assert_eq!(
        issuer.status(&sign(&header("k0"), &overflow, key(0))).await,
        401
    );
}

#[tokio::test]
async fn t8_what_google_may_send_is_accepted() {
    let issuer = Issuer::answering(Answer::keys(&[jwk("k1", key(1)), jwk("k0", key(0))])).await;
    let now = issuer.now();
    let changes: [&dyn Fn(&mut Value); 8] = [
        &|_| {},
        &|claims| claims["exp"] = json!(now - 59),
        &|claims| claims["iat"] = json!(now + 59),
        &|claims| {
            claims["iat"] = json!(now - 3599);
            claims["exp"] = json!(now + 1);
        },
        &|claims| claims["iss"] = json!("accounts.google.com"),
        &|claims| claims["something_new"] = json!({"deep": [1, 2, 3]}),
        &|claims| claims["nbf"] = json!(now),
        &|claims| {
            claims.as_object_mut().unwrap().remove("iat");
            claims.as_object_mut().unwrap().remove("azp");
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let token = issuer.token_with(change);
        assert_eq!(issuer.judge(&token).await.err(), None, "case {index}");
    }
    assert_eq!(issuer.status(&issuer.token_of("k1", key(1))).await, 200);
}

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
