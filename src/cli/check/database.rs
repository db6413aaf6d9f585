//! The database: whether it answers, may be used, and has the tables this program needs.

use std::path::Path;

use secrecy::ExposeSecret;

use super::report::Finding;
use crate::cli::output;
use crate::clock::SharedClock;
use crate::config::{Config, StoreConfig};
use crate::error::Error;
use crate::store::Store;

const CHECK: &str = "database";

/// Asks the database; nothing when the service is to work without one.
pub(super) async fn look(config: &Config, clock: &SharedClock) -> Option<Finding> {
    let config = config.store.as_ref()?;
    if is_to_be_made(config) {
        return Some(Finding::ok(CHECK, "its file is made at the first start"));
    }
    let store = match Store::connect(config, clock.clone()) {
        Ok(store) => store,
        Err(error) => {
            let advice = "correct DATABASE_URL";
            return Some(Finding::failed(CHECK, error.to_string(), advice));
        }
    };
    let finding = match ask(&store, config).await {
        Ok(finding) => finding,
        Err(error) => {
            let advice = output::database_advice(&error);
            Finding::failed(CHECK, error.to_string(), advice)
        }
    };
    store.close().await;
    Some(finding)
}

/// Tells whether there is no file yet: to look must not make it.
fn is_to_be_made(config: &StoreConfig) -> bool {
    let url = config.url.expose_secret();
    let Some(file) = url.strip_prefix("sqlite:") else {
        return false;
    };
    let file = file.trim_start_matches("//").split('?').next();
    file.is_some_and(|file| !file.is_empty() && !file.starts_with(':') && !Path::new(file).exists())
}

async fn ask(store: &Store, config: &StoreConfig) -> Result<Finding, Error> {
    let migrations = store.migrations().await?;
    let missing = migrations.known.iter().filter(|it| !it.applied).count();
    if missing > 0 {
        let found = format!("answers; {missing} migrations are to be made");
        return Ok(match config.migrate {
            true => Finding::ok(CHECK, format!("{found}, which the service does at start")),
            false => Finding::failed(CHECK, found, "the service is not ready without them")
                .mend("hookyard migrate"),
        });
    }
    store.check().await?;
    Ok(match migrations.newer {
        0 => Finding::ok(CHECK, "answers, takes writes, and has its tables"),
        _ => Finding::ok(CHECK, "answers; its tables are those of a newer program"),
    })
}
