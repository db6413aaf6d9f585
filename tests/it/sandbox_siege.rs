//! `dev --chaos --database`: the verdict is sound, on both databases; seeds that once failed.

use std::process::Stdio;

use crate::support::{TestDatabase, both_databases};

both_databases!(
    two_services_killed_six_times_lose_nothing,
    seed_1_retried_by_ourselves_did_not_settle_because_of_deadlocks,
);

async fn siege(database: &TestDatabase, events: &str, instances: &str, kills: &str, seed: &str) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .args(["dev", "--chaos", "--database", database.url()])
        .args(["--events", events, "--instances", instances])
        .args(["--kills", kills, "--seed", seed])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert_eq!(text.matches("holds ").count(), 8, "{text}");
}

async fn two_services_killed_six_times_lose_nothing(database: TestDatabase) {
    siege(&database, "300", "2", "6", "2").await;
}

async fn seed_1_retried_by_ourselves_did_not_settle_because_of_deadlocks(database: TestDatabase) {
    siege(&database, "900", "3", "15", "1").await;
}
