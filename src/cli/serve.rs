//! `hookyard serve`: the service itself.

use std::process::ExitCode;

use crate::app::App;
use crate::error::BoxError;

/// Serves until SIGTERM.
///
/// # Errors
/// What is wrong with the configuration, or that the address cannot be listened on.
pub(super) async fn serve() -> Result<ExitCode, BoxError> {
    App::builder().handlers(super::register).run().await?;
    Ok(ExitCode::SUCCESS)
}
