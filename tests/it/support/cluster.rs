//! A PostgreSQL of a test's own, to be stopped and started again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Port, TestDatabase};

/// Where distributions keep the server's programs, out of PATH.
const PLACES: &[&str] = &[
    "/usr/lib/postgresql",
    "/opt/homebrew/opt/postgresql",
    "/usr/local/pgsql",
];

/// A cluster on a port of its own, gone with its folder when dropped.
pub(crate) struct Cluster {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: Port,
}

impl Cluster {
    /// Makes and starts one; `None` when there is no PostgreSQL on this machine and the test is to
    /// be skipped.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let why = "no PostgreSQL server programs: run scripts/test.sh";
            assert!(
                super::database::variable("CI").as_deref() != Some("true"),
                "{why}"
            );
            eprintln!("skipped: {why}");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let cluster = Self {
            programs,
            folder,
            port: Port::hold(),
        };
        if is_root() {
            let mut owner = Command::new("chown");
            owner.arg(user()).arg(cluster.folder.path());
            assert!(owner.status().unwrap().success());
        }
        let data = cluster.data();
        let made = cluster.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "--auth=trust", "-N"],
        );
        assert!(made, "initdb failed");
        cluster.up();
        Some(cluster)
    }

    /// Makes a database in it.
    pub(crate) async fn database(&self) -> TestDatabase {
        let url = format!(
            "postgres://postgres@127.0.0.1:{}/postgres",
            self.port.number
        );
        TestDatabase::postgres_at(&url).await
    }

    /// Stops it as a power cut does.
    pub(crate) fn down(&self) {
        assert!(self.run("pg_ctl", &["stop", "-m", "immediate", "-D", &self.data()]));
    }

    /// Starts it.
    pub(crate) fn up(&self) {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -p {} -c unix_socket_directories={}",
            self.port.number,
            self.folder.path().display()
        );
        let log = self.folder.path().join("log").display().to_string();
        let data = self.data();
        let arguments = [
            "start", "-w", "-t", "120", "-D", &data, "-l", &log, "-o", &options,
        ];
        assert!(self.run("pg_ctl", &arguments), "PostgreSQL did not start");
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let program = self.programs.join(program);
        let mut command = match is_root() {
            // PostgreSQL refuses to run as root.
            true => {
                let mut command = Command::new("setpriv");
                let user = user();
                command.arg(format!("--reuid={user}"));
                command.arg(format!("--regid={}", group()));
                command.arg("--clear-groups").arg(program);
                command
            }
            false => Command::new(program),
        };
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-D", &self.data()]);
    }
}

fn programs() -> Option<PathBuf> {
    let here = |folder: &Path| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file();
    let mut found: Vec<PathBuf> = Vec::new();
    for place in PLACES {
        found.push(Path::new(place).join("bin"));
        let versions = std::fs::read_dir(place).into_iter().flatten().flatten();
        found.extend(versions.map(|version| version.path().join("bin")));
    }
    found.sort();
    found.into_iter().rev().find(|folder| here(folder))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn is_root() -> bool {
    said("id", &["-u"]) == "0"
}

fn user() -> &'static str {
    match said("id", &["-u", "postgres"]).is_empty() {
        true => "nobody",
        false => "postgres",
    }
}

fn group() -> String {
    said("id", &["-g", user()])
}
