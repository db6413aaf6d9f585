//! A service of the library with a handler that does nothing, as graphile-worker's task in
//! `benches/graphile`, and one that does nothing under a claim.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measuring tool: it stops at what it cannot do"
)]

use std::env;
use std::net::UdpSocket;

use hookyard::app::App;
use hookyard::error::Result;
use hookyard::pipeline::{Completion, Context, Effects, Handler, Json};
use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
struct Payload {
    /// When the row was inserted; then it is told over UDP that it has been handled.
    #[serde(default)]
    at: Option<i64>,
}

struct Trivial {
    socket: UdpSocket,
    sink: String,
}

impl Handler for Trivial {
    const NAME: &'static str = "trivial";
    const EVENTS: &'static [&'static str] = &["bench.trivial"];
    const ABOUT: &'static str = "does nothing";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<Payload>;

    async fn handle(&self, _cx: &Context, Json(payload): Self::Payload) -> Result<Completion> {
        if let Some(at) = payload.at {
            let sent = self.socket.send_to(at.to_string().as_bytes(), &self.sink);
            sent.unwrap();
        }
        Ok(Completion::Done)
    }
}

/// Skips as the reference service does, but is claimed before it runs: its effects could be anywhere.
struct Claimed;

impl Handler for Claimed {
    const NAME: &'static str = "claimed";
    const EVENTS: &'static [&'static str] = &["contracts.insert"];
    const ABOUT: &'static str = "does nothing, under a claim";
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, _cx: &Context, _: Self::Payload) -> Result<Completion> {
        Ok(Completion::Skipped("nothing to do"))
    }
}

/// As in the reference service.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let trivial = Trivial {
        socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
        sink: env::var("BENCH_SINK").unwrap(),
    };
    let app = App::builder().handler(trivial).handler(Claimed);
    app.run().await.unwrap();
}
