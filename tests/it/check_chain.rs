//! `hookyard check` over the whole chain: a good one has nothing to mend.

use serde_json::Value;

use crate::check_case::Bench;
use crate::check_world::{URI, World};

#[tokio::test]
async fn a_good_chain_has_nothing_to_mend() {
    let Some(bench) = Bench::start().await else {
        return;
    };

    let (ran, _) = bench.run(true, |_| {}).await;

    assert_eq!(ran.findings(), Vec::<Value>::new());
    assert_eq!(ran.report()["ok"], true);
    assert_eq!(ran.code, Some(0));
    let text = ran.stdout;
    for looked_at in [
        "invoker check",
        "ack deadline",
        "Hasura operations",
        "retry policy",
    ] {
        assert!(text.contains(looked_at), "{looked_at}: {text}");
    }
}

#[tokio::test]
async fn a_good_chain_in_platform_mode_warns_of_the_mode_only() {
    let Some(bench) = Bench::start().await else {
        return;
    };

    let (ran, _) = bench.run(true, World::platform).await;

    let findings = ran.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["check"], "push tokens");
}

#[tokio::test]
async fn subscriptions_are_found_by_where_they_push() {
    let Some(bench) = Bench::start().await else {
        return;
    };

    let (ran, _) = bench
        .run(true, |w| {
            w.variables.remove("PUSH_SUBSCRIPTION");
            // The smoke test's goes to a revision and is none of ours.
            let mut smoke = w.push().clone();
            let tagged = URI.replace("https://", "https://candidate---");
            smoke["pushConfig"]["pushEndpoint"] = format!("{tagged}/push").into();
            smoke["ackDeadlineSeconds"] = 10.into();
            w.subscriptions.insert("hookyard-smoke", smoke);
        })
        .await;

    assert_eq!(ran.findings(), Vec::<Value>::new());
    assert!(
        ran.stdout
            .contains("\"subject\": \"contract-events-hookyard\"")
    );
}
