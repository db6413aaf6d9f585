//! The real binary in a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookyard::error::BoxError;
use hookyard::sandbox::{Did, Fault, Hold, Sandbox, loopback_client};
use http::StatusCode;
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::{Answer, PATIENCE, eventually};

/// `hookyard serve` beside a sandbox.
pub(crate) struct Process {
    pub(crate) sandbox: Arc<Sandbox>,
    child: Mutex<Child>,
    pid: u32,
    address: SocketAddr,
    client: reqwest::Client,
    _log: NamedTempFile,
}

/// Waits until a service that was told to take any port says in its log which one it has.
pub(crate) async fn listening(log: &NamedTempFile, child: &mut Child) -> SocketAddr {
    let mut address = None;
    let text = || std::fs::read_to_string(log.path()).unwrap();
    let what = || format!("the process does not listen: {}", text());
    eventually(what, async || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended at its start: {}", text());
        let said = text();
        let line = said.lines().find(|line| line.contains("listening\""));
        let line: Option<Value> = line.and_then(|line| serde_json::from_str(line).ok());
        address = line.map(|line| line["address"].as_str().unwrap().parse().unwrap());
        address.is_some()
    })
    .await;
    address.unwrap()
}

impl Process {
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::builder().auto_seed().start().await.unwrap();
        Self::beside(Arc::new(sandbox), variables).await
    }

    /// Starts a new process beside the same sandbox.
    pub(crate) async fn restart(self, variables: &[(&str, &str)]) -> Self {
        Self::beside(self.sandbox, variables).await
    }

    async fn beside(sandbox: Arc<Sandbox>, variables: &[(&str, &str)]) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookyard"))
            .arg("serve")
            .env_clear()
            .envs(sandbox.variables())
            .env("PORT", "0")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.reopen().unwrap())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        let address = listening(&log, &mut child).await;
        let client = loopback_client(PATIENCE).unwrap();
        let process = Self {
            sandbox,
            child: Mutex::new(child),
            pid,
            address,
            client,
            _log: log,
        };
        process.wait_until_ready().await;
        process
    }

    async fn wait_until_ready(&self) {
        let url = format!("http://{}/ready", self.address);
        let what = || "the process did not become ready".to_owned();
        eventually(what, async || {
            let ready = self.client.get(&url).send().await;
            ready.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
    }

    /// Pushes an event; fails when the connection is refused or cut.
    pub(crate) async fn push(&self, event: &str) -> Result<Answer, BoxError> {
        let data = STANDARD.encode(event);
        let body = format!(r#"{{"message":{{"data":"{data}","messageId":"m"}}}}"#);
        let request = self.client.post(format!("http://{}/push", self.address));
        let request = request.bearer_auth(self.sandbox.token()).body(body);
        Answer::read(request.send().await?).await
    }

    /// Keeps every request to Chargebee waiting.
    pub(crate) fn hold_chargebee(&self) -> Hold {
        let hold = Hold::default();
        self.sandbox
            .chargebee()
            .faults()
            .always(Fault::Held(hold.clone()));
        hold
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        let status = std::process::Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until no new connection is taken.
    pub(crate) async fn wait_until_closed(&self) {
        let what = || "the process still takes connections".to_owned();
        eventually(what, async || {
            tokio::net::TcpStream::connect(self.address).await.is_err()
        })
        .await;
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut child = self.child.lock().await;
        tokio::time::timeout(PATIENCE, child.wait())
            .await
            .unwrap()
            .unwrap()
    }

    /// Returns how many requests changed something upstream.
    pub(crate) fn effects(&self) -> usize {
        self.sandbox.journal().count(Did::Effect)
    }
}
