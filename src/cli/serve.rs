//! `hookyard serve`: the service itself.

use std::process::ExitCode;

use crate::app::App;
use crate::config::Config;
use crate::error::BoxError;
use crate::telemetry;

/// Serves until SIGTERM.
///
/// # Errors
/// What is wrong with the configuration, or that the address cannot be listened on.
pub(super) async fn serve() -> Result<ExitCode, BoxError> {
    let config = Config::from_env()?;
    let _logs = telemetry::init(&config.log, config.bus.project.as_deref())?;
    let app = App::builder()
        .config(config)
        .handlers(crate::handlers::register)
        .build()
        .await?;
    app.serve().await?;
    Ok(ExitCode::SUCCESS)
}
