//! The stand-ins alone, for a service that runs in a process (or a container) of its own:
//! `scripts/deploy-local.sh` starts it beside the production build.
//!
//! `stand_ins SANDBOX_ADDRESS SERVICE_ADDRESS FILE` listens on the first address, passes pushes on
//! to the second with a signed token, and writes the service's environment variables into the file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::{fs, io::Write as _};

use hookyard::error::BoxError;
use hookyard::sandbox::Sandbox;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(sandbox), Some(service), Some(file)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: stand_ins SANDBOX_ADDRESS SERVICE_ADDRESS FILE".into());
    };
    let service: SocketAddr = service.parse()?;
    let listener = TcpListener::bind(sandbox).await?;
    let sandbox = Sandbox::builder()
        .listener(listener)
        .auto_seed()
        .start()
        .await?;
    sandbox.pass_on_to(service);

    let mut text = String::new();
    for (name, value) in sandbox.variables() {
        writeln!(text, "{name}={value}")?;
    }
    // For the owner's eyes: there are secrets in it, if only of the stand-ins.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let half = format!("{file}.half");
    options.open(&half)?.write_all(text.as_bytes())?;
    fs::rename(half, file)?;

    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
