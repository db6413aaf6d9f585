//! What everything that serves has in common: it listens until it is told to stop.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
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

/// SIGTERM and Ctrl-C: none is missed from the moment this is made.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen for signals.
    ///
    /// # Errors
    /// When signals cannot be waited for.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the first signal; a second one ends the process at once.
    pub(crate) async fn until_told_to_stop(mut self, config: &ServerConfig) {
        self.next().await;
        let grace_ms = config.shutdown_grace.as_millis() as u64;
        tracing::info!(grace_ms, "shutting down");
        TaskTracker::new().spawn(async move {
            self.next().await;
            std::process::exit(130);
        });
    }
}
