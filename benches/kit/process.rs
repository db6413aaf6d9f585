//! Starts the servers on a core of their own and reads what they cost from `/proc`.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Plan, send};
use crate::requests::Request;
use crate::tokens::{ACCOUNT, AUDIENCE};

const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";

/// The stand-ins, which share the load's core.
pub(crate) struct Upstreams {
    child: Child,
    pub(crate) port: u16,
}

impl Upstreams {
    pub(crate) fn start(modulus: &str) -> Self {
        let kit = env::current_exe().unwrap();
        let mut child = Command::new("taskset")
            .args(["-c", LOAD_CORE])
            .arg(kit)
            .args(["upstreams", modulus])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            port: line.trim().parse().unwrap(),
        }
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server under test, alone on its core.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From starting the process to its first 200.
    pub(crate) start: Duration,
}

impl Server {
    /// Starts a program; `prefix` is put before the paths of the upstreams.
    pub(crate) fn start(
        program: &str,
        argument: &str,
        upstreams: &Upstreams,
        prefix: &str,
        first: &Request,
    ) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE, program, argument]);
        Self::begin(command, upstreams, prefix, first)
    }

    /// Starts a program on whichever cores, with more variables.
    pub(crate) fn start_with(
        program: &str,
        argument: &str,
        upstreams: &Upstreams,
        first: &Request,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(program);
        command.arg(argument).envs(variables.iter().copied());
        Self::begin(command, upstreams, "", first)
    }

    fn begin(mut command: Command, upstreams: &Upstreams, prefix: &str, first: &Request) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let upstream = format!("http://127.0.0.1:{}", upstreams.port);
        let started = Instant::now();
        let mut child = command
            .env("HOST", "127.0.0.1")
            .env("PORT", address.port().to_string())
            .env("PUSH_AUDIENCE", AUDIENCE)
            .env("PUSH_SERVICE_ACCOUNT", ACCOUNT)
            .env("OIDC_JWKS_URL", format!("{upstream}/jwks"))
            .env(
                "HASURA_GRAPHQL_URL",
                format!("{upstream}{prefix}/v1/graphql"),
            )
            .env("HASURA_ADMIN_SECRET", "secret")
            .env("CHARGEBEE_URL", format!("{upstream}{prefix}"))
            .env("CHARGEBEE_API_KEY", "key")
            .env("EVENT_BUS_TYPE", "memory")
            .env("LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = || {
            TcpStream::connect(address).is_ok()
                && send(address, &[Plan::once(first)])[0].share(200) == 1.0
        };
        while !ready() {
            assert!(child.try_wait().unwrap().is_none(), "{command:?} gave up");
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "no 200 from {command:?}"
            );
            thread::sleep(Duration::from_micros(500));
        }
        Self {
            child,
            address,
            start: started.elapsed(),
        }
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the server to end and waits until it has.
    pub(crate) fn terminate(mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.unwrap().success());
        self.child.wait().unwrap();
    }

    /// Processor time used so far by all threads.
    pub(crate) fn cpu(&self) -> Duration {
        let folder = format!("/proc/{}/task", self.child.id());
        let nanos = fs::read_dir(folder).unwrap().filter_map(|task| {
            let times = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            times.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Resident memory in megabytes.
    pub(crate) fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kilobytes.parse::<f64>().unwrap() * 1_024.0 / 1_000_000.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
