//! Hasura over the wire: rows U8 to U11, S9, and the trap of HTTP 200 for every error.

use graphql_client::GraphQLQuery;
use hookyard::error::{Class, Error};
use serde_json::{Value, json};

use crate::clients_support::{ADMIN_SECRET, Logs, Peer, Run, ok, status};

/// A team's own operation, on the service's scalars.
#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "graphql/schema.graphql",
    query_path = "graphql/contract_by_id.graphql",
    custom_scalars_module = "hookyard::clients::hasura::scalars",
    skip_serializing_none
)]
struct ContractById;

fn found() -> String {
    json!({"data": {"contracts_by_pk":
        {"id": "c-1", "status": "active", "chargebee_subscription_id": null}}})
    .to_string()
}

fn linked() -> String {
    json!({"data": {"update_contracts_by_pk": {"id": "c-1"}}}).to_string()
}

fn errors(extensions: &Value) -> String {
    json!({"errors": [{"message": "canary_message", "extensions": extensions}]}).to_string()
}

fn code(word: &str) -> String {
    errors(&json!({"path": "$.canary", "code": word}))
}

#[tokio::test]
async fn operations_are_sent_with_variables_secret_and_trace() {
    let peer = Peer::start([ok(found()), ok(linked())]).await;
    let run = Run::new();
    let hasura = run.hasura(&peer);
    let calls = hasura.on_behalf_of(&run.call);

    let contract = calls.contract("c-1").await.unwrap().unwrap();
    calls.link_subscription("c-1", "sub_1").await.unwrap();

    assert_eq!(contract.id, "c-1");
    assert_eq!(contract.status.as_deref(), Some("active"));
    assert_eq!(contract.chargebee_subscription_id, None);
    let asked = peer.asked();
    assert_eq!(asked.len(), 2);
    for asked in &asked {
        assert_eq!(
            (asked.method.as_str(), asked.path.as_str()),
            ("POST", "/v1/graphql")
        );
        assert_eq!(asked.header("x-hasura-admin-secret"), Some(ADMIN_SECRET));
        assert_eq!(asked.header("content-type"), Some("application/json"));
        let trace = asked.header("traceparent").unwrap();
        assert!(
            trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
            "{trace}"
        );
        assert!(!trace.contains("00f067aa0ba902b7"), "{trace}");
    }
    let sent = asked[1].json();
    assert_eq!(sent["operationName"], "LinkSubscription");
    assert_eq!(
        sent["variables"],
        json!({"id": "c-1", "subscription_id": "sub_1"})
    );
}

#[tokio::test]
async fn a_contract_that_is_not_there_is_none() {
    let peer = Peer::start([ok(r#"{"data":{"contracts_by_pk":null}}"#)]).await;
    let run = Run::new();
    let hasura = run.hasura(&peer);

    let calls = hasura.on_behalf_of(&run.call);

    assert_eq!(calls.contract("c-1").await.unwrap(), None);
    assert_eq!(peer.tries(), 1);
}

#[tokio::test]
async fn u10_an_update_that_found_no_row_is_no_success() {
    let peer = Peer::start([ok(r#"{"data":{"update_contracts_by_pk":null}}"#)]).await;
    let run = Run::new();
    let hasura = run.hasura(&peer);

    let calls = hasura.on_behalf_of(&run.call);
    let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();

    assert!(
        matches!(
            error,
            Error::NotFound {
                what: "contract",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.class(), Class::Permanent);
    assert_eq!(peer.tries(), 1);
}

#[tokio::test]
async fn u8_refused_credentials_with_http_200_open_the_breaker() {
    for word in [
        "access-denied",
        "invalid-jwt",
        "jwt-invalid-claims",
        "jwt-missing-role-claims",
        "invalid-headers",
        "validation-failed",
        "not-found",
    ] {
        let (logs, _guard) = Logs::capture();
        let peer = Peer::start([ok(code(word))]).await;
        let run = Run::new();
        let hasura = run.hasura(&peer);
        let calls = hasura.on_behalf_of(&run.call);

        for tries in 1..=5 {
            let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();
            assert!(matches!(error, Error::Credentials { .. }), "{error}");
            assert_eq!(error.code().as_str(), word);
            assert_eq!(error.class(), Class::Transient);
            assert_eq!(peer.tries(), tries);
        }
        let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();

        assert!(matches!(error, Error::BreakerOpen { .. }), "{error}");
        assert_eq!(peer.tries(), 5);
        assert_eq!(run.counted("hasura", "credentials"), 5);
        assert_eq!(logs.lines_with(&["ERROR", "alert=\"upstream_auth\""]), 5);
    }
}

#[tokio::test]
async fn trap_10_our_own_bad_credentials_never_count_against_the_event() {
    for (http, body) in [
        (200, code("access-denied")),
        (401, code("access-denied")),
        (401, String::new()),
        (403, "<html>".to_owned()),
        // A wrong URL is ours to mend as well.
        (404, "<html>".to_owned()),
        (
            404,
            r#"{"path":"$","error":"resource does not exist","code":"not-found"}"#.to_owned(),
        ),
    ] {
        let peer = Peer::start([status(http, body)]).await;
        let run = Run::new();
        let hasura = run.hasura(&peer);

        let calls = hasura.on_behalf_of(&run.call);
        let error = calls.contract("c-1").await.unwrap_err();

        assert!(matches!(error, Error::Credentials { .. }), "{error}");
        assert_eq!(error.class(), Class::Transient);
        assert_eq!(peer.tries(), 1);
    }
}

#[tokio::test]
async fn u9_a_listed_code_is_permanent() {
    for word in [
        "constraint-violation",
        "permission-error",
        "data-exception",
        "constraint-error",
        "parse-failed",
        "bad-request",
        "invalid-params",
        "not-exists",
        "not-supported",
        "permission-denied",
    ] {
        for http in [200, 400] {
            let peer = Peer::start([status(http, code(word))]).await;
            let run = Run::new();
            let hasura = run.hasura(&peer);

            let calls = hasura.on_behalf_of(&run.call);
            let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();

            assert!(matches!(error, Error::Rejected { .. }), "{error}");
            assert_eq!(error.code().as_str(), word);
            assert_eq!(peer.tries(), 1);
        }
    }
}

#[tokio::test]
async fn u9_a_code_that_passes_or_is_unknown_is_tried_again() {
    for (body, word) in [
        (code("postgres-error"), "postgres-error"),
        (
            code("postgres-max-connections-error"),
            "postgres-max-connections-error",
        ),
        (code("unexpected"), "unexpected"),
        (code("timeout"), "timeout"),
        (code("concurrent-update"), "concurrent-update"),
        (code("busy"), "busy"),
        (code("a-word-of-next-year"), "a-word-of-next-year"),
        (code("CANARY@example.com"), "other"),
        (errors(&Value::Null), "no_code"),
        (errors(&json!({})), "no_code"),
        (errors(&json!("canary")), "no_code"),
        (errors(&json!({"code": 7})), "no_code"),
        (r#"{"errors":[{"message":"canary"}]}"#.to_owned(), "no_code"),
        (r#"{"errors":["canary"]}"#.to_owned(), "no_code"),
        (r#"{"errors":{"message":"canary"}}"#.to_owned(), "no_code"),
    ] {
        let peer = Peer::start([ok(body)]).await;
        let run = Run::new();
        let hasura = run.hasura(&peer);

        let calls = hasura.on_behalf_of(&run.call);
        let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();

        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert_eq!(error.code().as_str(), word);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        peer.assert_same_request(4);
    }
}

#[tokio::test]
async fn u9_data_beside_errors_is_no_success() {
    let both = |word: &str| {
        json!({"data": {"update_contracts_by_pk": {"id": "c-1"}},
            "errors": [{"extensions": {"code": word}}]})
        .to_string()
    };
    for (body, class, tries) in [
        (both("constraint-violation"), Class::Permanent, 1),
        (both("unexpected"), Class::Transient, 4),
    ] {
        let peer = Peer::start([ok(body)]).await;
        let run = Run::new();
        let hasura = run.hasura(&peer);

        let calls = hasura.on_behalf_of(&run.call);
        let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();

        assert_eq!(error.class(), class);
        peer.assert_same_request(tries);
    }
}

#[tokio::test]
async fn u9_of_several_errors_the_worst_counts() {
    let body = |words: [&str; 2]| {
        let errors = words.map(|word| json!({"extensions": {"code": word}}));
        json!({"errors": errors}).to_string()
    };
    for (words, worst) in [
        (["unexpected", "data-exception"], "data-exception"),
        (["data-exception", "unexpected"], "data-exception"),
        (["access-denied", "data-exception"], "access-denied"),
    ] {
        let peer = Peer::start([ok(body(words))]).await;
        let run = Run::new();
        let hasura = run.hasura(&peer);

        let calls = hasura.on_behalf_of(&run.call);
        let error = calls.contract("c-1").await.unwrap_err();

        assert_eq!(error.code().as_str(), worst);
    }
}

#[tokio::test]
async fn trap_6_the_old_error_shape_is_no_success() {
    for (body, class, tries) in [
        (
            r#"{"path":"$","error":"x","code":"parse-failed"}"#,
            Class::Permanent,
            1,
        ),
        (
            r#"{"path":"$","error":"x","code":"postgres-error"}"#,
            Class::Transient,
            4,
        ),
        (r#"{"path":"$","error":"x"}"#, Class::Transient, 4),
        (
            r#"{"path":"$","error":"x","code":null}"#,
            Class::Transient,
            4,
        ),
    ] {
        let peer = Peer::start([ok(body)]).await;
        let run = Run::new();
        let hasura = run.hasura(&peer);

        let calls = hasura.on_behalf_of(&run.call);
        let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();

        assert_eq!(error.class(), class, "{body}");
        peer.assert_same_request(tries);
    }
}

#[tokio::test]
async fn trap_6_neither_data_nor_errors_is_asked_for_once_more() {
    for body in [
        "{}",
        r#"{"data":null}"#,
        r#"{"data":null,"errors":[]}"#,
        r#"{"data":{}}"#,
        r#"{"data":{"update_contracts_by_pk":7}}"#,
        r#"{"data":[]}"#,
        "[]",
        "null",
        "",
        "<html>login</html>",
    ] {
        let peer = Peer::start([ok(body)]).await;
        let run = Run::new();
        let hasura = run.hasura(&peer);
        let calls = hasura.on_behalf_of(&run.call);

        let error = calls.link_subscription("c-1", "sub_1").await.unwrap_err();

        let unreadable = matches!(error, Error::Unreadable { .. });
        // serde takes a missing member for `null`: then it is a row that was not found.
        let not_found = body == r#"{"data":{}}"# && matches!(error, Error::NotFound { .. });
        assert!(unreadable || not_found, "{body}: {error}");
        assert_eq!(error.class(), Class::Permanent);
        if unreadable {
            peer.assert_same_request(2);
        }
    }
}

#[tokio::test]
async fn u11_a_page_instead_of_an_answer_may_pass() {
    let peer = Peer::start([ok("<html>"), ok(linked())]).await;
    let run = Run::new();
    let hasura = run.hasura(&peer);

    let calls = hasura.on_behalf_of(&run.call);

    assert!(calls.link_subscription("c-1", "sub_1").await.is_ok());
    peer.assert_same_request(2);
}

#[tokio::test]
async fn s9_values_travel_as_variables_only() {
    let peer = Peer::start([ok(found()), ok(linked())]).await;
    let run = Run::new();
    let hasura = run.hasura(&peer);
    let calls = hasura.on_behalf_of(&run.call);
    let id = "x\") { id } } mutation { delete_contracts(where: {}) { affected_rows } } #";
    let subscription = "\"}}, _set: {status: \"active\"}\\";

    calls.contract(id).await.unwrap();
    calls.link_subscription(id, subscription).await.unwrap();

    let [read, write] = [peer.asked()[0].json(), peer.asked()[1].json()];
    assert_eq!(
        read["query"],
        include_str!("../../graphql/contract_by_id.graphql")
    );
    assert_eq!(
        write["query"],
        include_str!("../../graphql/link_subscription.graphql")
    );
    assert_eq!(read["variables"], json!({ "id": id }));
    assert_eq!(
        write["variables"],
        json!({"id": id, "subscription_id": subscription})
    );
}

#[tokio::test]
async fn a_team_runs_its_own_operation_and_decides_whether_it_is_repeated() {
    let peer = Peer::start([status(503, ""), ok(found())]).await;
    let run = Run::new();
    let hasura = run.hasura(&peer);
    let calls = hasura.on_behalf_of(&run.call);
    let variables = || contract_by_id::Variables {
        id: "c-1".to_owned(),
    };

    let data = calls.run::<ContractById>(variables()).await.unwrap();
    assert!(data.contracts_by_pk.is_some());
    peer.assert_same_request(2);

    peer.answer([status(503, ""), ok(found())]);
    assert!(calls.run_once::<ContractById>(variables()).await.is_err());
    assert_eq!(peer.tries(), 3);
}

#[tokio::test]
async fn a_check_asks_once_and_sees_a_wrong_secret() {
    let peer = Peer::start([
        ok(r#"{"data":{"__typename":"query_root"}}"#),
        ok(code("access-denied")),
        status(503, ""),
    ])
    .await;
    let run = Run::new();
    let hasura = run.hasura(&peer);

    assert!(hasura.check().await.is_ok());
    assert!(hasura.check().await.unwrap_err().needs_operator());
    assert!(hasura.check().await.is_err());
    assert_eq!(peer.tries(), 3);
    assert_eq!(
        peer.asked()[0].json()["query"],
        "query Check { __typename }"
    );
}

#[tokio::test]
async fn the_secret_reaches_no_log_and_no_error() {
    let (logs, _guard) = Logs::capture();
    let run = Run::new();
    let mut errors = String::new();
    for reply in [
        ok(code("access-denied")),
        ok(code("data-exception")),
        ok(r#"{"data":{"contracts_by_pk":"canary_value"}}"#),
        status(503, "canary_body"),
    ] {
        let peer = Peer::start([reply]).await;
        let hasura = run.hasura(&peer);
        let calls = hasura.on_behalf_of(&run.call);
        let error = calls.contract("canary_id").await.unwrap_err();
        errors.push_str(&format!("{error} {error:?} {hasura:?}\n"));
    }

    let all = logs.text() + &errors;
    for canary in ["canary", ADMIN_SECRET] {
        assert!(!all.contains(canary), "{canary} in {all}");
    }
}
