//! `hookyard check` on the database.

use std::process::Stdio;

use hookyard::sandbox::Sandbox;
use serde_json::Value;
use tokio::process::Command;

use crate::support::{TestDatabase, both_databases, execute};

both_databases!(what_is_wrong_with_the_database_is_told_with_what_mends_it);

/// Returns the row about the database.
async fn row(sandbox: &Sandbox, url: &str, migrate: &str) -> Value {
    let ran = Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .args(["check", "--json"])
        .env_clear()
        .envs(sandbox.variables())
        .env("DATABASE_URL", url)
        .env("MIGRATE_ON_START", migrate)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let rows = report["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == "database");
    row.unwrap().clone()
}

async fn what_is_wrong_with_the_database_is_told_with_what_mends_it(database: TestDatabase) {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let url = database.url();

    if database.is_postgres() {
        let absent = format!("{url}_absent");
        let told = row(&sandbox, &absent, "true").await;
        assert_eq!(told["state"], "failed", "{told}");
        assert!(told["found"].as_str().unwrap().contains("no_such_database"));
        assert!(!told.to_string().contains("_absent"), "{told}");
        let told = row(&sandbox, url, "false").await;
        assert_eq!(told["state"], "failed", "{told}");
        assert_eq!(told["command"], "hookyard migrate");
    }
    let told = row(&sandbox, url, "true").await;
    assert_eq!(told["state"], "ok", "{told}");
    let file = url.strip_prefix("sqlite://");
    assert!(file.is_none_or(|file| !std::path::Path::new(file).exists()));

    let store = database.store().await;
    let told = row(&sandbox, url, "false").await;
    assert_eq!(told["state"], "ok", "{told}");
    if database.is_postgres() {
        let read_only = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET \
            default_transaction_read_only = on', current_database()); END $$";
        execute(&store, read_only).await;
        let told = row(&sandbox, url, "true").await;
        assert_eq!(told["state"], "failed", "{told}");
        assert!(told["found"].as_str().unwrap().contains("read_only"));
    }
}
