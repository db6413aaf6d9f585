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

#[tokio::test]
async fn from_anywhere_the_service_tells_all_but_its_secrets() {
    let Some(bench) = Bench::start().await else {
        return;
    };

    let (ran, project) = bench
        .run(true, |w| {
            let kept = ["GOOGLE_OAUTH_ACCESS_TOKEN", "NO_COLOR"];
            w.variables.retain(|name, _| kept.contains(name));
            let project = format!("--project={}", w.project);
            let others = ["--service=hookyard", "--region=europe-west1"];
            w.arguments = others.map(str::to_owned).to_vec();
            w.arguments.push(project);
        })
        .await;

    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let findings = ran.findings();
    assert!(
        findings.iter().all(|row| row["state"] == "skipped"),
        "{findings:#?}"
    );
    let command = format!(
        "export HASURA_ADMIN_SECRET=\"$(gcloud secrets versions access latest \
         --secret=hookyard-hasura-admin-secret --project={project})\""
    );
    assert!(
        findings
            .iter()
            .any(|row| row["command"] == command.as_str()),
        "{findings:#?}"
    );
    assert!(ran.stdout.contains("is the service's /push"));
}

#[tokio::test]
async fn without_credentials_what_needs_them_is_skipped() {
    let Some(bench) = Bench::start().await else {
        return;
    };

    let (ran, _) = bench
        .run(true, |w| {
            w.variables.remove("GOOGLE_OAUTH_ACCESS_TOKEN");
        })
        .await;

    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let findings = ran.findings();
    assert!(
        findings.iter().all(|row| row["state"] == "skipped"),
        "{findings:#?}"
    );
    assert!(findings.iter().any(|row| row["check"] == "Cloud Run"));
}

#[tokio::test]
async fn offline_nobody_is_asked() {
    let Some(bench) = Bench::start().await else {
        return;
    };

    let (ran, _) = bench
        .run(true, |w| {
            w.arguments.push("--offline".to_owned());
            w.answers.clear();
            w.topics.clear();
            w.subscriptions.clear();
        })
        .await;

    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let findings = ran.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["found"], "--offline");
}

#[tokio::test]
async fn the_table_ends_with_the_commands() {
    let Some(bench) = Bench::start().await else {
        return;
    };

    let (ran, project) = bench
        .run(false, |w| w.push()["ackDeadlineSeconds"] = 10.into())
        .await;

    assert_eq!(ran.code, Some(1));
    let wanted = format!(
        "  ack deadline of contract-events-hookyard: HANDLER_TIMEOUT_MS is 50000 ms: Pub/Sub gives \
         up and delivers again while a handler still runs\n    $ gcloud pubsub subscriptions update \
         contract-events-hookyard --project={project} --ack-deadline=60\n"
    );
    assert!(ran.stdout.contains(&wanted), "{}", ran.stdout);
    assert!(
        ran.stdout.ends_with(" 1 failed, 0 skipped\n"),
        "{}",
        ran.stdout
    );
}
