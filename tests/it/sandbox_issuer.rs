//! The sandbox's token issuer: its tokens are what a verifier expects of Google's.

use hookyard::sandbox::{AUDIENCE, Fault, SERVICE_ACCOUNT, Sandbox, loopback_client};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use crate::support::PATIENCE;

async fn get(url: &str) -> reqwest::Response {
    let client = loopback_client(PATIENCE).unwrap();
    client.get(url).send().await.unwrap()
}

async fn keys(sandbox: &Sandbox) -> JwkSet {
    let answer = get(&format!("{}/oauth2/v3/certs", sandbox.url())).await;
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

fn claims(token: &str, keys: &JwkSet) -> Option<Value> {
    let kid = decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid)?).unwrap();
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[AUDIENCE]);
    rules.set_issuer(&["https://accounts.google.com"]);
    Some(decode::<Value>(token, &key, &rules).ok()?.claims)
}

#[tokio::test]
async fn tokens_verify_against_the_published_keys() {
    let sandbox = Sandbox::builder().start().await.unwrap();

    let claims = claims(&sandbox.token(), &keys(&sandbox).await).unwrap();

    assert_eq!(claims["email"], SERVICE_ACCOUNT);
    assert_eq!(claims["email_verified"], true);
    assert_eq!(
        claims["exp"].as_u64(),
        claims["iat"].as_u64().map(|iat| iat + 3600)
    );
}

#[tokio::test]
async fn a_token_for_another_audience_can_be_asked_for_over_http() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let client = loopback_client(PATIENCE).unwrap();

    let url = format!("{}/token?audience=other&email=a%40b.example", sandbox.url());
    let token = client.post(url).send().await.unwrap().text().await.unwrap();

    let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Value>(&token).unwrap();
    assert_eq!(
        (claims["aud"].as_str(), claims["email"].as_str()),
        (Some("other"), Some("a@b.example"))
    );
}

#[tokio::test]
async fn rotation_keeps_the_old_key_until_it_is_forgotten() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let old = sandbox.token();

    sandbox.issuer().rotate().unwrap();
    assert!(claims(&old, &keys(&sandbox).await).is_some());
    assert!(claims(&sandbox.token(), &keys(&sandbox).await).is_some());

    sandbox.issuer().forget_retired_keys();
    assert!(claims(&old, &keys(&sandbox).await).is_none());
}

#[tokio::test]
async fn the_key_endpoint_counts_and_misbehaves_as_told() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let url = format!("{}/oauth2/v3/certs", sandbox.url());
    sandbox.issuer().set_max_age(Some(60));
    sandbox.issuer().faults().next(Fault::status(500));

    assert_eq!(get(&url).await.status(), 500);
    let answer = get(&url).await;

    let policy = answer.headers()["cache-control"].to_str().unwrap();
    assert!(policy.contains("max-age=60"), "{policy}");
    assert_eq!(sandbox.issuer().key_fetches(), 2);
}
