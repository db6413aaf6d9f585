//! The database: whether it answers, may be used, and has the tables this program needs.

use super::report::Finding;
use crate::cli::output;
use crate::clock::SharedClock;
use crate::config::{Config, StoreConfig};
use crate::error::Error;
use crate::store::{Store, lacks_its_file};

const CHECK: &str = "database";

/// Asks the database; nothing when the service is to work without one.
pub(super) async fn look(config: &Config, clock: &SharedClock) -> Option<Finding> {
    let config = config.store.as_ref()?;
    if lacks_its_file(config) {
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
