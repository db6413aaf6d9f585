//! What everything that serves has in common: it listens until it is told to stop.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, EdgeOptions};
use crate::config::ServerConfig;
use crate::error::BoxError;

/// Listens where the configuration says.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn bind(config: &ServerConfig) -> Result<TcpListener, BoxError> {
    let listen = config.listen;
    let bound = TcpListener::bind(listen).await;
    bound.map_err(|error| {
        format!("cannot listen on {listen}: {error}; set PORT to a free port").into()
    })
}

/// Serves in the background until `stop`; returns where, and what to wait for then.
///
/// # Errors
/// When the listener's own address cannot be read.
pub(crate) fn start(
    listener: TcpListener,
    router: &Router,
    config: &ServerConfig,
    stop: &CancellationToken,
) -> Result<(SocketAddr, TaskTracker), BoxError> {
    let address = listener.local_addr()?;
    let options = EdgeOptions::from(config);
    let server = TaskTracker::new();
    server.spawn(api::serve(listener, router.clone(), options, stop.clone()));
    server.close();
    Ok((address, server))
}

/// Waits for the first SIGTERM or Ctrl-C; a second one ends the process at once.
///
/// # Errors
/// When signals cannot be waited for.
pub(crate) async fn until_told_to_stop(config: &ServerConfig) -> std::io::Result<()> {
    stop_signal().await?;
    let grace_ms = config.shutdown_grace.as_millis() as u64;
    tracing::info!(grace_ms, "shutting down");
    let impatient = TaskTracker::new();
    impatient.spawn(async {
        if stop_signal().await.is_ok() {
            std::process::exit(130);
        }
    });
    Ok(())
}

/// Waits for a SIGTERM or Ctrl-C.
async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
