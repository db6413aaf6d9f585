//! One of several services of `--chaos`: everything real, but its broker is the sandbox's, and
//! its waits are short.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::clients::chargebee::Chargebee;
use crate::clients::hasura::Hasura;
use crate::clients::http::Policy;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::BoxError;
use crate::pipeline::Services;
use crate::sandbox::RemoteBroker;
use crate::telemetry::Metrics;

/// Returns the waits of clients among neighbours that fail all the time.
pub(super) fn impatient() -> Policy {
    Policy::default()
        .with_waits(Duration::from_millis(20), Duration::from_millis(200))
        .with_try_timeout(Duration::from_millis(700))
        .with_breaker(10, Duration::from_millis(100), Duration::from_millis(500))
}

/// Makes clients with those waits.
pub(super) fn services(config: &Config) -> Result<Services, BoxError> {
    let (metrics, clock) = (Metrics::new()?, SystemClock::shared());
    Ok(Services {
        chargebee: Chargebee::with_policy(
            &config.chargebee,
            metrics.clone(),
            clock.clone(),
            impatient(),
        )?,
        hasura: Hasura::with_policy(&config.hasura, metrics, clock, impatient())?,
    })
}

/// Serves until SIGTERM.
pub(super) async fn run(sandbox: &str) -> Result<ExitCode, BoxError> {
    let config = Config::from_env()?;
    let services = services(&config)?;
    App::builder()
        .config(config)
        .handlers(crate::handlers::register)
        .services(services)
        .publisher(Arc::new(RemoteBroker::new(sandbox)?))
        .run()
        .await?;
    Ok(ExitCode::SUCCESS)
}
