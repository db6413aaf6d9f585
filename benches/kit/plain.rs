//! The second baseline: the shortest honest program for the job, without any protection.
//!
//! It verifies every token, decodes, and makes the same upstream calls as `activate_contract`
//! with its `try_join`; no dedupe, no retry, no limits, no metrics, no logs.

use std::collections::HashMap;
use std::env;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Value, json};

struct Plain {
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
    account: String,
    http: reqwest::Client,
    chargebee: String,
    hasura: String,
}

#[derive(Deserialize)]
struct Claims {
    email: String,
    email_verified: bool,
}

#[derive(Deserialize)]
struct Push {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    data: String,
}

#[derive(Deserialize)]
struct HasuraEvent {
    event: Change,
}

#[derive(Deserialize)]
struct Change {
    data: Rows,
}

#[derive(Deserialize)]
struct Rows {
    old: Option<Contract>,
    new: Option<Contract>,
}

#[derive(Deserialize)]
struct Contract {
    id: String,
    subscription_id: String,
    status: String,
}

pub(crate) async fn serve() {
    let var = |name| env::var(name).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let keys = http.get(var("OIDC_JWKS_URL")).send().await.unwrap();
    let keys: JwkSet = serde_json::from_slice(&keys.bytes().await.unwrap()).unwrap();
    let keys = keys.keys.iter().map(|key| {
        let id = key.common.key_id.clone().unwrap();
        (id, DecodingKey::from_jwk(key).unwrap())
    });
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&["https://accounts.google.com", "accounts.google.com"]);
    validation.set_audience(&[var("PUSH_AUDIENCE")]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    let plain = Plain {
        keys: keys.collect(),
        validation,
        account: var("PUSH_SERVICE_ACCOUNT"),
        http,
        chargebee: var("CHARGEBEE_URL"),
        hasura: var("HASURA_GRAPHQL_URL"),
    };
    let app = Router::new()
        .route("/push", post(push))
        .with_state(Arc::new(plain));
    axum::serve(crate::listen().await, app).await.unwrap();
}

async fn push(State(plain): State<Arc<Plain>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if plain.verify(&headers).is_none() {
        return StatusCode::UNAUTHORIZED;
    }
    let Some(event) = read(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let rows = event.event.data;
    let before = rows.old.map(|old| old.status);
    match rows.new {
        Some(new) if new.status == "active" && before.as_deref() != Some("active") => {
            match plain.activate(&new).await {
                Some(()) => StatusCode::OK,
                None => StatusCode::SERVICE_UNAVAILABLE,
            }
        }
        _ => StatusCode::OK,
    }
}

fn read(body: &[u8]) -> Option<HasuraEvent> {
    let push: Push = serde_json::from_slice(body).ok()?;
    let data = BASE64_STANDARD.decode(push.message.data).ok()?;
    serde_json::from_slice(&data).ok()
}

impl Plain {
    fn verify(&self, headers: &HeaderMap) -> Option<()> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let token = value.strip_prefix("Bearer ")?;
        let key = self.keys.get(&decode_header(token).ok()?.kid?)?;
        let claims = decode::<Claims>(token, key, &self.validation).ok()?.claims;
        (claims.email == self.account && claims.email_verified).then_some(())
    }

    async fn activate(&self, contract: &Contract) -> Option<()> {
        let subscription = &contract.subscription_id;
        let path = format!("{}/api/v2/subscriptions/{subscription}", self.chargebee);
        let find = json!({
            "operationName": "ContractById",
            "query": include_str!("../../graphql/contract_by_id.graphql"),
            "variables": {"id": contract.id},
        });
        let write = json!({
            "operationName": "LinkSubscription",
            "query": include_str!("../../graphql/link_subscription.graphql"),
            "variables": {"id": contract.id, "subscription_id": subscription},
        });
        let (row, found) = tokio::join!(self.graphql(&find), self.chargebee(&path, None));
        row?;
        found?;
        let form = format!("cf_contract_id={}", contract.id);
        self.chargebee(&format!("{path}/update_for_items"), Some(form))
            .await?;
        self.graphql(&write).await.map(drop)
    }

    async fn chargebee(&self, url: &str, form: Option<String>) -> Option<Value> {
        let request = match form {
            None => self.http.get(url),
            Some(form) => self
                .http
                .post(url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form),
        };
        let answer = request.basic_auth("key", Some("")).send().await.ok()?;
        let answer = answer.error_for_status().ok()?.bytes().await.ok()?;
        serde_json::from_slice(&answer).ok()
    }

    async fn graphql(&self, query: &Value) -> Option<Value> {
        let request = self
            .http
            .post(&self.hasura)
            .header("content-type", "application/json")
            .header("x-hasura-admin-secret", "secret")
            .body(query.to_string());
        let answer = request.send().await.ok()?.bytes().await.ok()?;
        let mut answer: Value = serde_json::from_slice(&answer).ok()?;
        Some(answer["data"].take()).filter(|data| !data.is_null())
    }
}
