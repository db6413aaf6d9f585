//! What tests run: the real service on a socket, with the sandbox's stand-ins beside it.

mod answer;
mod app;
mod cluster;
mod database;
mod events;
pub(crate) mod hands;
mod ports;
mod probe;
pub(crate) mod process;
pub(crate) mod rows;
mod sql;
mod town;

pub(crate) use answer::Answer;
pub(crate) use app::{Builder, DESK, TestApp, Went};
pub(crate) use cluster::Cluster;
pub(crate) use database::{TestDatabase, both_databases};
pub(crate) use events::{contract_event, customer_event, event, probe_event};
pub(crate) use ports::Port;
pub(crate) use probe::{Behaviour, OtherProbe, Probe};
pub(crate) use process::Process;
pub(crate) use sql::{execute, texts};
pub(crate) use town::{LEASE, PATIENCE, Town, count, eventually};
