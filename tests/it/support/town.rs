//! Several services in processes of their own on one database, with the sandbox beside them.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookyard::sandbox::{Did, Fleet, Instance, Line, Sandbox};
use hookyard::store::{Pool, Store};
use url::Url;

use super::TestDatabase;
use super::app::Went;

/// What processes are to outlive takes one second here.
pub(crate) const LEASE: Duration = Duration::from_millis(1000);

/// How long anything may take that has to come, even on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A sandbox, a database, and the means to start services between them.
pub(crate) struct Town {
    pub(crate) sandbox: Sandbox,
    pub(crate) fleet: Fleet,
    pub(crate) database: TestDatabase,
}

impl Town {
    /// Prepares a town without services.
    pub(crate) async fn on(database: TestDatabase) -> Self {
        let sandbox = Sandbox::builder().auto_seed().start().await.unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_hookyard"));
        let fleet = Fleet::new(program, &sandbox).await.unwrap();
        let fleet = fleet
            .variable("DATABASE_URL", database.url())
            .variable("LEASE_MS", LEASE.as_millis().to_string())
            .variable("POLL_INTERVAL_MS", "100")
            .variable("LOG_LEVEL", "info");
        Self {
            sandbox,
            fleet,
            database,
        }
    }

    /// Sets a variable of all services.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.fleet = self.fleet.variable(name, value);
        self
    }

    /// Starts a service and waits until it is ready.
    pub(crate) async fn start(&self) -> Instance {
        self.start_with(&[]).await
    }

    /// Starts a service with variables of its own and waits until it is ready.
    pub(crate) async fn start_with(&self, variables: &[(&str, &str)]) -> Instance {
        match self.fleet.start(variables).await {
            Ok(instance) => instance,
            Err(error) => panic!("{error}\n{}", self.fleet.logs().join("\n")),
        }
    }

    /// Starts a service that is told of a write over its limit instead of being killed for it.
    pub(crate) async fn start_that_may_hit_limits(&self) -> Instance {
        let shell = "trap '' XFSZ; exec \"$0\" \"$@\"";
        self.fleet.start_by(shell).await.unwrap()
    }

    /// Starts a service that dies at a point, such as `after_claim:1`.
    pub(crate) async fn start_to_fail_at(&self, point: &str) -> Instance {
        self.start_with(&[("HOOKYARD_FAIL_AT", point)]).await
    }

    /// Pushes an event; `None` when there is no answer.
    pub(crate) async fn push(&self, to: &Instance, event: &str) -> Option<u16> {
        let data = STANDARD.encode(event);
        let message = rand::random::<u32>();
        let body = format!(r#"{{"message":{{"data":"{data}","messageId":"{message}"}}}}"#);
        let answer = to.push(&self.sandbox.token(), body).await.ok()?;
        Some(answer.status().as_u16())
    }

    /// Pushes an event until it is acknowledged, and returns the statuses before.
    pub(crate) async fn push_until_taken(&self, to: &Instance, event: &str) -> Vec<Option<u16>> {
        let mut before = Vec::new();
        let taken = async {
            loop {
                match self.push(to, event).await {
                    Some(200) => return,
                    other => before.push(other),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, taken).await.is_ok();
        assert!(
            in_time,
            "not taken: {before:?}\n{}",
            self.fleet.logs().join("\n---\n")
        );
        before
    }

    /// Returns how often the two upstreams were changed: at Chargebee and at Hasura.
    pub(crate) fn effects(&self) -> (usize, usize) {
        let journal = self.sandbox.journal();
        let of = |upstream| {
            let entries = journal.of(upstream);
            let writes = entries.iter();
            writes.filter(|entry| entry.did == Did::Effect).count()
        };
        (of("chargebee"), of("hasura"))
    }

    /// Returns what was published downstream, oldest first.
    pub(crate) fn published(&self) -> Vec<Went> {
        let broker = self.sandbox.broker().broker();
        let all = broker.published("hookyard-events").into_iter();
        all.map(Went::from).collect()
    }

    /// Returns the ids of what was published downstream, each once.
    pub(crate) fn published_ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.published().into_iter().map(|went| went.id).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Waits until so many different events are published, and fails when there are more.
    pub(crate) async fn wait_for_published(&self, count: usize) {
        let what = || format!("{} published of {count}", self.published_ids().len());
        eventually(what, || async { self.published_ids().len() >= count }).await;
        assert_eq!(self.published_ids().len(), count);
    }

    /// Waits until nothing is left to publish.
    pub(crate) async fn wait_until_relayed(&self) {
        let store = self.store().await;
        let what = || "the outbox is not empty".to_owned();
        eventually(what, || async {
            count(&store, "SELECT COUNT(*) FROM outbox WHERE state = 0").await == 0
        })
        .await;
    }

    /// Connects to the database beside the services.
    pub(crate) async fn store(&self) -> Store {
        self.database.store().await
    }

    /// Reads one number.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        count(&self.store().await, sql).await
    }
}

impl TestDatabase {
    /// Puts a line in front of PostgreSQL; returns it and what `DATABASE_URL` is then.
    pub(crate) async fn line(&self) -> (Line, String) {
        let mut url = Url::parse(self.url()).unwrap();
        let server = url.socket_addrs(|| Some(5432)).unwrap();
        let line = Line::start(vec![server[0]]).await.unwrap();
        url.set_ip_host(line.address().ip()).unwrap();
        url.set_port(Some(line.address().port())).unwrap();
        (line, url.into())
    }
}

/// Reads one number.
pub(crate) async fn count(store: &Store, sql: &'static str) -> i64 {
    match store.pool() {
        Pool::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_one(read).await.unwrap(),
        Pool::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
    }
}

/// Waits for what has to come.
pub(crate) async fn eventually(what: impl Fn() -> String, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    assert!(in_time, "{}", what());
}
