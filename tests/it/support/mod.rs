//! What tests run: the real service on a socket, with the sandbox's stand-ins beside it.

mod answer;
mod app;
mod events;
mod probe;
mod process;

pub(crate) use answer::Answer;
pub(crate) use app::{Builder, TestApp};
pub(crate) use events::{contract_event, customer_event, event, probe_event};
pub(crate) use probe::{Behaviour, OtherProbe, Probe};
pub(crate) use process::Process;
