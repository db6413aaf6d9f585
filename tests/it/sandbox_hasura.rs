//! The sandbox's Hasura: HTTP 200 whatever happens, rows that stay, the service's own operations.

use hookyard::sandbox::{Did, Sandbox, loopback_client};
use serde_json::{Value, json};

use crate::support::PATIENCE;

const BY_ID: &str = include_str!("../../graphql/contract_by_id.graphql");
const LINK: &str = include_str!("../../graphql/link_subscription.graphql");

async fn ask(sandbox: &Sandbox, secret: &str, query: &str, variables: Value) -> Value {
    let client = loopback_client(PATIENCE).unwrap();
    let url = &sandbox.variables()["HASURA_GRAPHQL_URL"];
    let body = json!({"query": query, "variables": variables});
    let request = client
        .post(url)
        .header("x-hasura-admin-secret", secret)
        .body(body.to_string());
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn start() -> (Sandbox, String) {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let secret = sandbox.variables()["HASURA_ADMIN_SECRET"].clone();
    (sandbox, secret)
}

#[tokio::test]
async fn a_written_column_is_read_back() {
    let (sandbox, secret) = start().await;
    sandbox.hasura().seed_contract("c1", "active");
    let variables = json!({"id": "c1", "subscription_id": "sub_1"});

    let linked = ask(&sandbox, &secret, LINK, variables.clone()).await;
    let again = ask(&sandbox, &secret, LINK, variables).await;
    let read = ask(&sandbox, &secret, BY_ID, json!({"id": "c1"})).await;

    assert_eq!(
        linked,
        json!({"data": {"update_contracts_by_pk": {"id": "c1"}}})
    );
    assert_eq!(linked, again);
    assert_eq!(
        read["data"]["contracts_by_pk"]["chargebee_subscription_id"],
        "sub_1"
    );
    let journal = sandbox.journal();
    assert_eq!(
        (journal.count(Did::Effect), journal.count(Did::Nothing)),
        (1, 1)
    );
}

#[tokio::test]
async fn a_row_that_is_not_there_is_null_and_not_an_error() {
    let (sandbox, secret) = start().await;

    let read = ask(&sandbox, &secret, BY_ID, json!({"id": "c1"})).await;
    let variables = json!({"id": "c1", "subscription_id": "sub_1"});
    let written = ask(&sandbox, &secret, LINK, variables).await;

    assert_eq!(read, json!({"data": {"contracts_by_pk": null}}));
    assert_eq!(written, json!({"data": {"update_contracts_by_pk": null}}));
}

#[tokio::test]
async fn refusals_are_errors_in_an_answer_with_status_200() {
    let (sandbox, secret) = start().await;

    for (secret, query, code) in [
        ("wrong", "{ __typename }", "access-denied"),
        (&*secret, "{ invoices { id } }", "validation-failed"),
        (
            &*secret,
            "{ contracts_by_pk(id: 1) { colour } }",
            "validation-failed",
        ),
        (&*secret, "query {", "validation-failed"),
    ] {
        let answer = ask(&sandbox, secret, query, Value::Null).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{query}");
        assert!(answer.get("data").is_none());
    }
    let hello = ask(&sandbox, &secret, "{ __typename }", Value::Null).await;
    assert_eq!(hello, json!({"data": {"__typename": "query_root"}}));
}
