//! Measures the service beside other programs on one machine; see `scripts/bench.sh`.
//!
//! `kit run SERVICE` measures the stateless half beside two baselines, `kit durable SERVICE TRIVIAL` the
//! durable half beside graphile-worker, `kit profile SERVICE REQUESTS` gives a profiler something
//! to look at; the other words are the processes they start.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring tool: it measures real time, prints, and stops at what it cannot do"
)]

mod bare;
mod durable;
mod load;
mod plain;
mod process;
mod requests;
mod run;
mod tokens;
mod upstreams;

use std::env;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", service] => run::run(service),
        ["profile", service, requests] => run::profile(service, requests.parse().unwrap()),
        ["durable", service, trivial] => durable::run(service, trivial),
        ["bare"] => on_tokio(bare::serve()),
        ["plain"] => on_tokio(plain::serve()),
        ["upstreams", modulus] => upstreams::serve(modulus),
        _ => println!(
            "usage: kit run SERVICE | durable SERVICE TRIVIAL | profile SERVICE REQUESTS \
             | bare | plain | upstreams MODULUS"
        ),
    }
}

fn on_tokio(server: impl Future<Output = ()>) {
    // As `#[tokio::main]` would: one worker for each core the process may use.
    let runtime = tokio::runtime::Builder::new_multi_thread();
    { runtime }.enable_all().build().unwrap().block_on(server);
}

/// The address that the servers are told to listen on.
async fn listen() -> tokio::net::TcpListener {
    let port = env::var("PORT").unwrap();
    tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .unwrap()
}
