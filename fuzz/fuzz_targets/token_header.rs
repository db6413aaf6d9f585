//! The `Authorization` header and the token in it, up to the point where a signature would be
//! checked. Nothing that comes in here may be accepted.
//!
//! The first byte chooses the mode; up to the first newline comes the token's header, up to the
//! second its claims, the rest is its signature. Without newlines the input is the header's value.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use hookyard::clock::ManualClock;
use hookyard::config::{Config, PushAuthMode};
use hookyard::ingress::{OidcVerifier, TokenVerifier, bearer};
use hookyard::telemetry::Metrics;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

static VERIFIERS: LazyLock<[OidcVerifier; 2]> = LazyLock::new(|| {
    [PushAuthMode::Verify, PushAuthMode::Platform].map(|mode| {
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
        let mut config = config.expect("it is complete").push_auth;
        config.mode = mode;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let metrics = Metrics::new().expect("they are all named once");
        OidcVerifier::new(&config, ManualClock::at(now), metrics)
    })
});

fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    let verifier = &VERIFIERS[usize::from(mode % 2)];
    let mut parts = rest.splitn(3, |&b| b == b'\n');
    let value = match (parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(claims), Some(signature)) => {
            let signature = if mode % 4 == 1 { b"SIGNATURE_REMOVED_BY_GOOGLE" } else { signature };
            let mut value = format!("Bearer {}.{}.", base64url(header), base64url(claims)).into_bytes();
            value.extend_from_slice(signature);
            value
        }
        _ => rest.to_vec(),
    };
    let Ok(value) = HeaderValue::from_bytes(&value) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value);
    let Ok(token) = bearer(&headers) else {
        return;
    };
    // In `platform` mode the right claims under the literal are accepted: that is what it is for.
    if let Some(Ok(_)) = verifier.verify_now(token) {
        assert!(mode % 2 == 1 && token.ends_with(".SIGNATURE_REMOVED_BY_GOOGLE"));
    }
});

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, &b| (bits << 8) | u32::from(b));
        let bits = bits << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}
