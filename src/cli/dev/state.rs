//! Where a running `hookyard dev` can be found: a small file in the system's temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What `hookyard send` has to know of a running `hookyard dev`. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevState {
    /// Where the service listens.
    pub(crate) service: SocketAddr,
    /// Where the sandbox listens.
    pub(crate) sandbox: SocketAddr,
    /// Its database, for the desk's commands; `None` when it is one of somebody's own.
    #[serde(default)]
    pub(crate) database: Option<String>,
}

/// Where dev keeps its databases, below the temporary folder.
pub(super) const FOLDER: &str = "hookyard-dev";

fn path() -> PathBuf {
    std::env::temp_dir().join("hookyard-dev.json")
}

impl DevState {
    /// Reads where `hookyard dev` was started last. It may have ended since.
    pub(crate) fn read() -> Option<Self> {
        let state: Self = serde_json::from_slice(&std::fs::read(path()).ok()?).ok()?;
        // Anybody may write into the temporary folder; a token is only ever sent to this machine.
        let here = state.service.ip().is_loopback() && state.sandbox.ip().is_loopback();
        here.then_some(state)
    }

    /// Returns the database of a running `hookyard dev`, if it is one that dev has made.
    pub(crate) fn own_database() -> Option<String> {
        let url = Self::read()?.database?;
        let file = Path::new(url.strip_prefix("sqlite://")?);
        // Anybody may write into the temporary folder, but not have another file opened by it.
        let ours = file.starts_with(std::env::temp_dir().join(FOLDER)) && file.is_file();
        ours.then_some(url)
    }

    /// Leaves word for `hookyard send`. Without it `send` asks for `--to` and `--token`.
    pub(crate) fn write(&self) {
        if let Ok(text) = serde_json::to_vec(self) {
            std::fs::write(path(), text).ok();
        }
    }

    /// Takes the word back, unless another `hookyard dev` has left its own.
    pub(crate) fn remove(&self) {
        if Self::read().as_ref() == Some(self) {
            std::fs::remove_file(path()).ok();
        }
    }
}
