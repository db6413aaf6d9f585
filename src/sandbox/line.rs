//! A bad line for any protocol on TCP: balances connections, and cuts them at bad moments.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::lock;
use crate::error::BoxError;

/// What PostgreSQL is sent at the end of a transaction.
const COMMIT: &[u8] = b"COMMIT\0";

/// After which bytes to the other side a connection is cut, so that the answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutAfter {
    /// A `COMMIT` for PostgreSQL.
    Commit,
    /// Anything.
    Anything,
}

/// A line between a client and one of several servers. It ends when dropped.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Raised to cut all connections there are.
    cut: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    servers: Vec<SocketAddr>,
    turn: usize,
    down: bool,
    /// So many chances to cut are left alone, then one is taken.
    scripted: Option<(CutAfter, u64)>,
    random: Option<(CutAfter, f64, u64)>,
    met: u64,
    cuts: u64,
    /// Connections numbered below this are silent.
    hushed: u64,
    accepted: u64,
}

impl State {
    /// Decides whether the connection is cut after `bytes`.
    fn draw(&mut self, bytes: &[u8]) -> bool {
        let commit = bytes.windows(COMMIT.len()).any(|part| part == COMMIT);
        let meets = |after| commit || after == CutAfter::Anything;
        let mut cut = false;
        if let Some((after, left)) = &mut self.scripted
            && meets(*after)
        {
            cut = *left == 0;
            *left = left.saturating_sub(1);
        }
        if cut {
            self.scripted = None;
        }
        if let Some((after, rate, seed)) = self.random
            && meets(after)
        {
            self.met += 1;
            let throw = xxh3_64_with_seed(&self.met.to_le_bytes(), seed);
            cut |= ((throw >> 11) as f64 / (1_u64 << 53) as f64) < rate;
        }
        self.cuts += u64::from(cut);
        cut
    }
}

impl Shared {
    fn is_hushed(&self, number: u64) -> bool {
        number <= lock(&self.state).hushed
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Line {
    /// Listens on a free port of 127.0.0.1 and passes each connection on to one of `servers`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(servers: Vec<SocketAddr>) -> Result<Self, BoxError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                servers,
                ..State::default()
            }),
            cut: watch::channel(0).0,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(
            listener,
            Arc::clone(&shared),
            stop.clone(),
            tasks.clone(),
        ));
        Ok(Self {
            address,
            shared,
            stop,
        })
    }

    /// Returns where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes connections on to these servers from now on.
    pub fn set_servers(&self, servers: Vec<SocketAddr>) {
        lock(&self.shared.state).servers = servers;
    }

    /// Cuts all connections there are.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts all connections and takes no new ones until [`Line::go_up`].
    pub fn go_down(&self) {
        lock(&self.shared.state).down = true;
        self.cut();
    }

    /// Lets the connections there are fall silent: they stay open, and nothing arrives any more, as
    /// when the other side's machine is gone. New ones are passed on.
    pub fn hush(&self) {
        let mut state = lock(&self.shared.state);
        state.hushed = state.accepted;
    }

    /// Takes connections again.
    pub fn go_up(&self) {
        lock(&self.shared.state).down = false;
    }

    /// Cuts one connection after these bytes were passed on, but lets `before` others through.
    pub fn cut_once(&self, after: CutAfter, before: u64) {
        lock(&self.shared.state).scripted = Some((after, before));
    }

    /// Cuts this share of connections' messages, by chances drawn from `seed`; 0 ends it.
    pub fn cut_at_random(&self, after: CutAfter, rate: f64, seed: u64) {
        lock(&self.shared.state).random = (rate > 0.0).then_some((after, rate, seed));
    }

    /// Returns how many connections were cut after a message.
    pub fn cuts(&self) -> u64 {
        lock(&self.shared.state).cuts
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((client, _)) = accepted else {
            continue;
        };
        let shared = Arc::clone(&shared);
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                () = pass(client, &shared) => {}
                _cut = cut.changed() => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Connects to the next server that takes it, and passes everything on.
async fn pass(client: TcpStream, shared: &Arc<Shared>) {
    let (number, servers) = {
        let mut state = lock(&shared.state);
        if state.down || state.servers.is_empty() {
            return;
        }
        state.turn = (state.turn + 1) % state.servers.len();
        let mut servers = state.servers.clone();
        servers.rotate_left(state.turn);
        state.accepted += 1;
        (state.accepted, servers)
    };
    for address in servers {
        if let Ok(server) = TcpStream::connect(address).await {
            client.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            let (from_client, to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            let cut = tokio::select! {
                cut = up(from_client, to_server, shared, number) => cut,
                () = down(&mut from_server, to_client, shared, number) => false,
            };
            if cut {
                // The server is let finish, but its answer reaches nobody.
                tokio::io::copy(&mut from_server, &mut tokio::io::sink())
                    .await
                    .ok();
            }
            return;
        }
    }
}

/// Returns whether the connection is to be cut.
async fn up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    shared: &Shared,
    number: u64,
) -> bool {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        if shared.is_hushed(number) {
            continue;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        let cut = lock(&shared.state).draw(bytes);
        if server.write_all(bytes).await.is_err() {
            return false;
        }
        if cut {
            server.shutdown().await.ok();
            return true;
        }
    }
    server.shutdown().await.ok();
    false
}

async fn down(
    server: &mut OwnedReadHalf,
    mut client: OwnedWriteHalf,
    shared: &Shared,
    number: u64,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        if shared.is_hushed(number) {
            continue;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        if client.write_all(bytes).await.is_err() {
            return;
        }
    }
    if shared.is_hushed(number) {
        // Not even the end is heard of.
        std::future::pending().await
    }
}
