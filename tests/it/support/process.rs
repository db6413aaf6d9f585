//! The real binary in a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookyard::error::BoxError;
use hookyard::sandbox::{Did, Fault, Hold, Sandbox, loopback_client};
use http::StatusCode;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::Answer;

/// `hookyard serve` beside a sandbox.
pub(crate) struct Process {
    pub(crate) sandbox: Arc<Sandbox>,
    child: Mutex<Child>,
    pid: u32,
    address: SocketAddr,
    client: reqwest::Client,
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
        // Bound and let go again: the process needs to be told a port, and the kernel does not
        // give this one to anybody else for a while.
        let address = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let child = Command::new(env!("CARGO_BIN_EXE_hookyard"))
            .arg("serve")
            .env_clear()
            .envs(sandbox.variables())
            .env("PORT", address.port().to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        let client = loopback_client(Duration::from_secs(30)).unwrap();
        let process = Self {
            sandbox,
            child: Mutex::new(child),
            pid,
            address,
            client,
        };
        process.wait_until_ready().await;
        process
    }

    async fn wait_until_ready(&self) {
        for _ in 0..4000 {
            let ready = self
                .client
                .get(format!("http://{}/ready", self.address))
                .send()
                .await;
            if ready.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the process did not become ready");
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
        for _ in 0..4000 {
            if tokio::net::TcpStream::connect(self.address).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the process still takes connections");
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut child = self.child.lock().await;
        tokio::time::timeout(Duration::from_secs(30), child.wait())
            .await
            .unwrap()
            .unwrap()
    }

    /// Returns how many requests changed something upstream.
    pub(crate) fn effects(&self) -> usize {
        self.sandbox.journal().count(Did::Effect)
    }
}
