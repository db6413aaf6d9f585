//! Which tokens are believed: rows T1 to T9 and T17 to T19 as far as they need no door.

use hookyard::config::PushAuthMode;
use hookyard::ingress::oidc::Flaw;
use hookyard::ingress::{OidcVerifier, TokenError, TokenVerifier as _, bearer};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
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
    assert_eq!(issuer.status(&token).await, 401);
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

proptest::proptest! {
    #[test]
    fn any_text_as_a_token_is_judged_without_a_panic(
        header in ".{0,40}", payload in ".{0,80}", third in "[a-zA-Z0-9_.-]{0,40}",
    ) {
        let clock = hookyard::clock::ManualClock::start();
        let metrics = hookyard::telemetry::Metrics::new().unwrap();
        let config = config("http://127.0.0.1:1/", PushAuthMode::Verify);
        let verifier = OidcVerifier::new(&config, clock, metrics);
        let members = format!(r#"{{"alg":"RS256","kid":"k0",{header}}}"#);
        for token in [
            format!("{}.{}.{third}", b64(&header), b64(&payload)),
            format!("{}.{}.{third}", b64(members), b64(&payload)),
            format!("{header}.{payload}.{third}"),
        ] {
            let verdict = verifier.verify_now(&token);
            proptest::prop_assert!(verdict.is_some_and(|verdict| verdict.is_err()));
        }
    }
}
