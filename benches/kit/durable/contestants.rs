//! Who is measured: our worker and graphile-worker, given the same rows.

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::database::Database;
use super::meter::Spent;
use crate::process::Server;

/// Rows to be worked off.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    count: u32,
    keys: Option<u32>,
}

impl Rows {
    /// Rows that may be worked off in any order.
    pub(crate) fn free(count: u32) -> Self {
        Self { count, keys: None }
    }

    /// Rows of which those of one key have to stay in order.
    pub(crate) fn keyed(count: u32, keys: u32) -> Self {
        let keys = Some(keys);
        Self { count, keys }
    }
}

/// Our service.
pub(crate) struct Ours {
    server: Server,
}

const EVENTS_DONE: &str = "SELECT NOT EXISTS (SELECT FROM events WHERE processed IS NOT TRUE)";
const OUTBOX_DONE: &str = "SELECT NOT EXISTS (SELECT FROM outbox WHERE state = 0)";

impl Ours {
    pub(crate) fn new(server: Server) -> Self {
        Self { server }
    }

    pub(crate) fn drain(&self, database: &Database, rows: Rows) -> Spent {
        let key = match rows.keys {
            Some(keys) => format!("CAST(md5('a' || n % {keys}) AS UUID)"),
            None => "NULL".to_owned(),
        };
        let insert = format!(
            "INSERT INTO events (event_type, aggregate_id, payload) \
             SELECT 'bench.trivial', {key}, jsonb_build_object('id', n) \
             FROM generate_series(1, {}) AS n",
            rows.count
        );
        let spent = database.drain(&insert, EVENTS_DONE, self.server.id());
        let failed = "SELECT COUNT(*) FROM events WHERE status <> 'done'";
        assert_eq!(database.number(failed), 0, "events were not handled");
        spent
    }

    pub(crate) fn insert_one(&self, database: &Database, at: i64) {
        database.execute(&format!(
            "INSERT INTO events (event_type, aggregate_id, payload) \
             VALUES ('bench.trivial', gen_random_uuid(), '{{\"at\": {at}}}')"
        ));
    }

    pub(crate) fn relay(&self, database: &Database, rows: Rows) -> Spent {
        let key = match rows.keys {
            Some(keys) => format!("'k' || n % {keys}"),
            None => "NULL".to_owned(),
        };
        // Rows of a key are in one lane, as the service would put them.
        let lane = rows
            .keys
            .map_or("n".to_owned(), |keys| format!("n % {keys}"));
        let run = rand::random::<u64>();
        let insert = format!(
            "INSERT INTO outbox (lane, message_id, topic, ordering_key, event_type, cause_id, \
             handler, data, attributes, created_at) \
             SELECT {lane} % 64, '{run}-' || n, 'hookyard-events', {key}, 'contract.activated', \
             '{run}-' || n, 'bench', '{{\"contract_id\": \"c\"}}', \
             '[[\"ce-type\", \"contract.activated\"]]', 0 \
             FROM generate_series(1, {}) AS n; NOTIFY hookyard_outbox",
            rows.count
        );
        database.drain(&insert, OUTBOX_DONE, self.server.id())
    }
}

/// graphile-worker, see `benches/graphile`.
pub(crate) struct Graphile {
    child: Child,
}

const JOBS_DONE: &str = "SELECT NOT EXISTS (SELECT FROM graphile_worker._private_jobs)";

impl Graphile {
    pub(crate) fn start(database: &Database, sink: &Sink) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/graphile");
        let mut child = Command::new("node")
            .arg("worker.mjs")
            .current_dir(folder)
            .env("NODE_ENV", "production")
            .env("DATABASE_URL", &database.url)
            .env("BENCH_SINK", &sink.address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "graphile-worker did not start");
        Self { child }
    }

    pub(crate) fn drain(&self, database: &Database, rows: Rows) -> Spent {
        let queue = match rows.keys {
            Some(keys) => format!(", queue_name => 'q' || n % {keys}"),
            None => String::new(),
        };
        let insert = format!(
            "SELECT COUNT(graphile_worker.add_job('trivial', json_build_object('id', n){queue})) \
             FROM generate_series(1, {}) AS n",
            rows.count
        );
        database.drain(&insert, JOBS_DONE, self.child.id())
    }

    pub(crate) fn insert_one(&self, database: &Database, at: i64) {
        let payload = format!("json_build_object('at', {at})");
        database.execute(&format!(
            "SELECT graphile_worker.add_job('trivial', {payload})"
        ));
    }
}

impl Drop for Graphile {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        drop(Command::new("kill").args(["-TERM", &pid]).status());
        drop(self.child.wait());
    }
}

/// Where handlers tell that they have handled a row.
pub(crate) struct Sink {
    socket: UdpSocket,
    pub(crate) address: String,
}

/// How long rows waited, in milliseconds, sorted.
pub(crate) struct Latencies(Vec<f64>);

impl Sink {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        Self { socket, address }
    }

    /// Inserts one row after the other into an idle system and waits for each to be handled.
    pub(crate) fn latencies(&self, insert: impl Fn(i64)) -> Latencies {
        let mut all = Vec::new();
        for turn in 0..220 {
            let at = now();
            insert(at);
            let mut buffer = [0; 32];
            let size = self.socket.recv(&mut buffer).unwrap();
            let told: i64 = str::from_utf8(&buffer[..size]).unwrap().parse().unwrap();
            assert_eq!(told, at);
            if turn >= 20 {
                all.push((now() - at) as f64 / 1_000.0);
            }
            // Not in step with anybody's timer.
            thread::sleep(Duration::from_millis(rand::random_range(10..40)));
        }
        all.sort_by(f64::total_cmp);
        Latencies(all)
    }
}

impl Latencies {
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        self.0[(self.0.len() as f64 * share) as usize]
    }
}

/// Microseconds since 1970.
fn now() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(passed.as_micros()).unwrap()
}
