//! The sandbox's Chargebee: idempotency keys, error shapes, faults that hit at the worst moment.

use std::time::Duration;

use hookyard::clock::ManualClock;
use hookyard::sandbox::{Did, Fault, Sandbox, loopback_client};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::PATIENCE;

/// Half an hour, for which Chargebee remembers a key.
const WINDOW: Duration = Duration::from_secs(30 * 60);

struct Site {
    sandbox: Sandbox,
    client: reqwest::Client,
}

impl Site {
    async fn start() -> Self {
        Self::over(Sandbox::builder().start().await.unwrap())
    }

    fn over(sandbox: Sandbox) -> Self {
        sandbox.chargebee().seed_subscription("sub_1");
        let client = loopback_client(PATIENCE).unwrap();
        Self { sandbox, client }
    }

    fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        let config = self.sandbox.config().unwrap();
        let url = format!("{}/api/v2/{path}", self.sandbox.url());
        let key = config.chargebee.api_key.expose_secret();
        self.client.request(method, url).basic_auth(key, Some(""))
    }

    async fn try_post(
        &self,
        path: &str,
        key: &str,
        form: &str,
    ) -> reqwest::Result<reqwest::Response> {
        self.request(http::Method::POST, path)
            .header(
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            )
            .header("chargebee-idempotency-key", key)
            .body(form.to_owned())
            .send()
            .await
    }

    async fn post(&self, path: &str, key: &str, form: &str) -> (u16, bool, Value) {
        let answer = self.try_post(path, key, form).await.unwrap();
        let replayed = answer
            .headers()
            .contains_key("chargebee-idempotency-replayed");
        let status = answer.status().as_u16();
        (
            status,
            replayed,
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap(),
        )
    }

    fn effects(&self) -> usize {
        self.sandbox.journal().count(Did::Effect)
    }
}

const UPDATE: &str = "subscriptions/sub_1/update_for_items";

#[tokio::test]
async fn a_write_under_a_known_key_is_answered_from_memory() {
    let site = Site::start().await;

    let first = site.post(UPDATE, "k1", "cf_contract_id=c1").await;
    let second = site.post(UPDATE, "k1", "cf_contract_id=c1").await;

    assert_eq!(
        (first.0, first.1, second.0, second.1),
        (200, false, 200, true)
    );
    assert_eq!(first.2, second.2);
    assert_eq!(site.effects(), 1);
}

#[tokio::test]
async fn a_key_used_for_something_else_is_refused() {
    let site = Site::start().await;
    site.post(UPDATE, "k1", "cf_contract_id=c1").await;

    let (status, _, body) = site.post(UPDATE, "k1", "cf_contract_id=c2").await;

    assert_eq!(
        (status, &body["api_error_code"]),
        (422, &"unable_to_process_request".into())
    );
    assert_eq!(site.effects(), 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_half_an_hour() {
    let clock = ManualClock::start();
    let site = Site::over(
        Sandbox::builder()
            .clock(clock.clone())
            .start()
            .await
            .unwrap(),
    );
    site.post(UPDATE, "k1", "cf_contract_id=c1").await;

    clock.advance(WINDOW);
    let (_, replayed, _) = site.post(UPDATE, "k1", "cf_contract_id=c1").await;

    assert!(!replayed);
}

#[tokio::test]
async fn an_answer_that_got_lost_leaves_its_effect_and_is_replayed() {
    for fault in [Fault::ResetAfter, Fault::CutShort] {
        let site = Site::start().await;
        site.sandbox.chargebee().faults().next(fault);

        let lost = match site.try_post(UPDATE, "k1", "cf_contract_id=c1").await {
            Ok(answer) => answer.bytes().await.is_err(),
            Err(_) => true,
        };
        let (status, replayed, _) = site.post(UPDATE, "k1", "cf_contract_id=c1").await;

        assert!(lost);
        assert_eq!((status, replayed, site.effects()), (200, true, 1));
    }
}

#[tokio::test]
async fn a_request_that_got_lost_leaves_nothing() {
    let site = Site::start().await;
    site.sandbox.chargebee().faults().next(Fault::ResetBefore);

    assert!(
        site.try_post(UPDATE, "k1", "cf_contract_id=c1")
            .await
            .is_err()
    );

    assert_eq!(site.effects(), 0);
    assert_eq!(site.sandbox.journal().count(Did::Lost), 1);
    assert_eq!(site.post(UPDATE, "k1", "cf_contract_id=c1").await.0, 200);
}

#[tokio::test]
async fn errors_have_the_shape_and_the_words_of_chargebee() {
    let site = Site::start().await;
    site.post("customers", "k1", "id=cus_1").await;
    site.post(
        "subscriptions/sub_1/cancel_for_items",
        "k2",
        "end_of_term=true",
    )
    .await;

    for (path, form, status, code) in [
        (
            "subscriptions/nope/update_for_items",
            "cf_contract_id=c1",
            404,
            "resource_not_found",
        ),
        (
            "subscriptions/sub_1/cancel_for_items",
            "end_of_term=true",
            409,
            "invalid_state_for_request",
        ),
        ("customers", "id=cus_1", 400, "duplicate_entry"),
        (
            "customers",
            "id=cus_2&email=nowhere",
            400,
            "param_wrong_value",
        ),
        (UPDATE, "nonsense=1", 400, "invalid_request"),
    ] {
        let key = format!("key of {path} {form}");
        let (got, _, body) = site.post(path, &key, form).await;
        assert_eq!(
            (got, body["api_error_code"].as_str()),
            (status, Some(code)),
            "{path} {form}"
        );
        assert!(body["message"].is_string() && body["type"].is_string());
    }
}

#[tokio::test]
async fn a_wrong_key_opens_nothing() {
    let site = Site::start().await;

    let url = format!("{}/api/v2/subscriptions?limit=1", site.sandbox.url());
    let answer = site
        .client
        .get(url)
        .basic_auth("other", Some(""))
        .send()
        .await
        .unwrap();

    assert_eq!(answer.status(), 401);
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["api_error_code"], "api_authentication_failed");
}

#[tokio::test]
async fn a_json_body_is_not_taken() {
    let site = Site::start().await;

    let request = site
        .request(http::Method::POST, UPDATE)
        .header("content-type", "application/json");
    let answer = request
        .body("{\"cf_contract_id\":\"c1\"}")
        .send()
        .await
        .unwrap();

    assert_eq!(answer.status(), 400);
    assert_eq!(site.effects(), 0);
}
