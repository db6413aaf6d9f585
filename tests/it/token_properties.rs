//! Properties of the bearer header and of the token in it: whatever comes, nothing unsigned is
//! accepted and nothing panics.

use std::time::{Duration, SystemTime};

use hookyard::clock::ManualClock;
use hookyard::config::{Config, PushAuthConfig, PushAuthMode};
use hookyard::ingress::{OidcVerifier, TokenVerifier as _, bearer};
use hookyard::telemetry::Metrics;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::decode_round_trip::{any_json, base64};

const NOW: u64 = 1_800_000_000;

fn config(mode: PushAuthMode) -> PushAuthConfig {
    let config = Config::from_lookup(&|name| {
        let value = match name {
            "PUSH_AUDIENCE" => "https://hookyard.example/push",
            "PUSH_SERVICE_ACCOUNT" => "pusher@project.iam.gserviceaccount.com",
            "HASURA_GRAPHQL_URL" => "http://localhost/v1/graphql",
            "CHARGEBEE_URL" => "http://localhost",
            "HASURA_ADMIN_SECRET" | "CHARGEBEE_API_KEY" => "secret",
            "EVENT_BUS_TYPE" => "memory",
            _ => return None,
        };
        Some(value.to_owned())
    });
    let mut config = config.unwrap().push_auth;
    config.mode = mode;
    config
}

fn verifier(mode: PushAuthMode) -> OidcVerifier {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    OidcVerifier::new(&config(mode), ManualClock::at(now), Metrics::new().unwrap())
}

fn accepted(verifier: &OidcVerifier, value: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return false;
    };
    headers.insert(AUTHORIZATION, value);
    let token = bearer(&headers);
    token.is_ok_and(|token| matches!(verifier.verify_now(token), Some(Ok(_))))
}

fn good_header() -> Value {
    json!({"alg": "RS256", "kid": "k", "typ": "JWT"})
}

fn good_claims() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": "https://hookyard.example/push",
        "email": "pusher@project.iam.gserviceaccount.com", "email_verified": true,
        "iat": NOW, "exp": NOW + 3_600, "sub": "1",
    })
}

/// Puts any value in the place of one member, or adds one.
fn with_odd_member(object: Value, names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    (prop::sample::select(names), any_json()).prop_map(move |(name, value)| {
        let mut object = object.clone();
        object[name] = value;
        object
    })
}

fn token(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes(), true, false);
    format!("Bearer {}.{}.{signature}", part(header), part(claims))
}

#[test]
fn the_good_parts_are_good() {
    let value = token(
        &good_header(),
        &good_claims(),
        "SIGNATURE_REMOVED_BY_GOOGLE",
    );
    assert!(accepted(
        &verifier(PushAuthMode::Platform),
        value.as_bytes()
    ));
    assert!(!accepted(&verifier(PushAuthMode::Verify), value.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_header_value_is_refused(
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(?i:bearer) {0,2}[!-~]{0,60}".prop_map(String::into_bytes),
            "Bearer [A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,4}".prop_map(String::into_bytes),
        ],
    ) {
        prop_assert!(!accepted(&verifier(PushAuthMode::Verify), &value));
        prop_assert!(!accepted(&verifier(PushAuthMode::Platform), &value));
    }

    #[test]
    fn any_claims_without_a_signature_are_refused(
        header in with_odd_member(good_header(), &["alg", "kid", "typ", "jwk", "jku", "x5u", "x5c", "crit", "b64"]),
        claims in prop_oneof![Just(good_claims()), any_json()],
        signature in "[A-Za-z0-9_-]{0,400}",
    ) {
        let value = token(&header, &claims, &signature);
        prop_assert!(!accepted(&verifier(PushAuthMode::Verify), value.as_bytes()));
        prop_assert!(!accepted(&verifier(PushAuthMode::Platform), value.as_bytes()));
    }

    #[test]
    fn claims_that_are_odd_are_refused_by_the_platform_mode_too(
        claims in with_odd_member(good_claims(), &["iss", "aud", "email", "email_verified", "exp"]),
    ) {
        // Any number could be a good `exp`.
        prop_assume!(!claims["exp"].is_number() || claims["exp"] == NOW + 3_600);
        prop_assume!(claims != good_claims());
        let value = token(&good_header(), &claims, "SIGNATURE_REMOVED_BY_GOOGLE");
        prop_assert!(!accepted(&verifier(PushAuthMode::Platform), value.as_bytes()));
    }
}
