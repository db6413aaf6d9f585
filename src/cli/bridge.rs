//! `hookyard bridge`: from Hasura's webhooks to a topic.

use std::process::ExitCode;

use crate::bridge::Bridge;
use crate::config::BridgeRoleConfig;
use crate::error::BoxError;
use crate::telemetry;

/// Serves until SIGTERM.
///
/// # Errors
/// What is wrong with the configuration, or that the address cannot be listened on.
pub(super) async fn bridge() -> Result<ExitCode, BoxError> {
    let config = BridgeRoleConfig::from_env()?;
    let _logs = telemetry::init(&config.log, config.bus.project.as_deref())?;
    Bridge::builder(config).build().await?.serve().await?;
    Ok(ExitCode::SUCCESS)
}
