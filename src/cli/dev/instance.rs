//! One of several services of `--chaos`: everything real, but its broker is the sandbox's, and
//! its waits are short.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::clients::http::Policy;
use crate::config::Config;
use crate::egress::RelayOptions;
use crate::error::BoxError;
use crate::sandbox::RemoteBroker;

/// Returns the waits of clients among neighbours that fail all the time.
pub(super) fn impatient() -> Policy {
    Policy::default()
        .with_waits(Duration::from_millis(20), Duration::from_millis(200))
        .with_try_timeout(Duration::from_millis(700))
        .with_breaker(10, Duration::from_millis(100), Duration::from_millis(500))
}

/// Serves until SIGTERM.
pub(super) async fn run(sandbox: &str) -> Result<ExitCode, BoxError> {
    let config = Config::from_env()?;
    App::builder()
        .config(config)
        .handlers(crate::handlers::register)
        .client_policy(impatient())
        .relay(RelayOptions {
            count_every: Duration::from_secs(1),
            ..RelayOptions::default()
        })
        .publisher(Arc::new(RemoteBroker::new(sandbox)?))
        .run()
        .await?;
    Ok(ExitCode::SUCCESS)
}
