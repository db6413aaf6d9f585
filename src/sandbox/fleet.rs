//! Services in processes of their own beside a sandbox: to be killed, stopped and started again.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::http::loopback_client;
use super::{Line, Sandbox};
use crate::error::BoxError;

/// How often a process is looked at that something is expected of.
const GLANCE: Duration = Duration::from_millis(5);

/// So many looks, half a minute or more.
const PATIENCE: u32 = 6000;

/// How services are started: program, variables, and a folder for what they log.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
    folder: PathBuf,
    started: AtomicU32,
    keep: AtomicBool,
    line: Line,
}

/// One of the services. It is killed when dropped.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
    client: reqwest::Client,
}

impl Fleet {
    /// Prepares services of `program` (this package's binary) that publish to the sandbox's
    /// broker and have their waits shortened.
    ///
    /// # Errors
    /// When there is no port or no folder for temporary files.
    pub async fn new(program: &Path, sandbox: &Sandbox) -> Result<Self, BoxError> {
        let folder = std::env::temp_dir().join(format!("hookyard-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder)?;
        let variables = sandbox.variables().iter();
        Ok(Self {
            program: program.to_owned(),
            arguments: vec!["dev".to_owned(), "--instance".to_owned(), sandbox.url()],
            variables: variables
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            folder,
            started: AtomicU32::new(0),
            keep: AtomicBool::new(false),
            line: Line::start(Vec::new()).await?,
        })
    }

    /// Sets a variable of all services started from now on.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Starts a service, with variables of its own, and waits until it listens, which is before
    /// it is ready.
    ///
    /// # Errors
    /// When the program cannot be run, or ends instead.
    pub async fn launch(&self, variables: &[(&str, &str)]) -> Result<Instance, BoxError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        self.spawn(command, variables).await
    }

    /// Starts a service by a line of shell whose `"$0" "$@"` is the service, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub async fn start_by(&self, shell: &str) -> Result<Instance, BoxError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(shell).arg(&self.program);
        command.args(&self.arguments);
        let mut instance = self.spawn(command, &[]).await?;
        instance.wait_until_ready().await?;
        Ok(instance)
    }

    async fn spawn(
        &self,
        mut command: Command,
        variables: &[(&str, &str)],
    ) -> Result<Instance, BoxError> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number}.log"));
        let log = File::create(&path)?;
        let mut child = command
            .env_clear()
            .envs(&self.variables)
            .env("PORT", "0")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        for _ in 0..PATIENCE {
            if let Some(address) = listening(&path) {
                return Ok(Instance {
                    pid: child.id().unwrap_or_default(),
                    child,
                    address,
                    client: loopback_client(Duration::from_secs(30))?,
                });
            }
            if let Some(status) = child.try_wait()? {
                return Err(format!("the service ended at its start with {status}").into());
            }
            tokio::time::sleep(GLANCE).await;
        }
        Err("the service does not listen".into())
    }

    /// Starts a service and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead, or takes more than 30 s.
    pub async fn start(&self, variables: &[(&str, &str)]) -> Result<Instance, BoxError> {
        let mut instance = self.launch(variables).await?;
        instance.wait_until_ready().await?;
        Ok(instance)
    }

    /// Returns the line in front of the services: one address that leads to any of them.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Leaves the logs where they are when this is dropped; returns their folder.
    pub fn keep_logs(&self) -> &Path {
        self.keep.store(true, Ordering::Relaxed);
        &self.folder
    }

    /// Returns everything the services have logged, one text for each that was started.
    pub fn logs(&self) -> Vec<String> {
        let numbers = 0..self.started.load(Ordering::Relaxed);
        let read = |number| std::fs::read(self.folder.join(format!("{number}.log")));
        numbers
            .map(|number| String::from_utf8_lossy(&read(number).unwrap_or_default()).into_owned())
            .collect()
    }
}

/// Finds in a service's log where it listens.
fn listening(log: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text
        .lines()
        .find(|line| line.contains(r#""message":"listening""#))?;
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line["address"].as_str()?.parse().ok()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Relaxed) {
            std::fs::remove_dir_all(&self.folder).ok();
        }
    }
}

impl Instance {
    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends instead, or takes more than 30 s.
    pub async fn wait_until_ready(&mut self) -> Result<(), BoxError> {
        let url = format!("http://{}/ready", self.address);
        for _ in 0..PATIENCE {
            if let Some(status) = self.ended() {
                return Err(format!("the service ended at its start with {status}").into());
            }
            let ready = self
                .client
                .get(&url)
                .timeout(Duration::from_secs(2))
                .send()
                .await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(GLANCE).await;
        }
        Err("the service did not become ready".into())
    }

    /// Posts a body to its push endpoint.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn push(&self, token: &str, body: String) -> Result<reqwest::Response, BoxError> {
        let request = self.client.post(format!("http://{}/push", self.address));
        Ok(request.bearer_auth(token).body(body).send().await?)
    }

    /// Gets one of its routes.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, token: &str, path: &str) -> Result<String, BoxError> {
        let request = self.client.get(format!("http://{}{path}", self.address));
        Ok(request.bearer_auth(token).send().await?.text().await?)
    }

    /// Returns how it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it does not within 30 s.
    pub async fn wait(&mut self) -> Result<ExitStatus, BoxError> {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        Ok(ended.map_err(|_| "the service does not end")??)
    }

    /// Kills it as nothing can prevent, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.ok();
    }

    /// Sends a signal such as `TERM`, `STOP` or `CONT`.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn signal(&self, name: &str) -> Result<(), BoxError> {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).arg(self.pid.to_string());
        match kill.stderr(Stdio::null()).status().await?.success() {
            true => Ok(()),
            false => Err("the service has ended".into()),
        }
    }

    /// Limits the size of the files it may write: `unlimited`, or bytes.
    ///
    /// # Errors
    /// When the machine has no `prlimit`, or the service has ended.
    pub async fn limit_files(&self, size: &str) -> Result<(), BoxError> {
        let mut limit = Command::new("prlimit");
        limit.arg(format!("--pid={}", self.pid));
        limit.arg(format!("--fsize={size}:unlimited"));
        match limit.status().await?.success() {
            true => Ok(()),
            false => Err("the limit could not be set".into()),
        }
    }
}
