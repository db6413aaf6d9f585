//! Hookyard: an event handler service for Hasura event triggers behind Google Pub/Sub push.
//!
//! # How an event travels
//!
//! A push request enters through [`ingress`], which verifies its token before it reads the body.
//! [`event`] decodes envelope and payload. [`pipeline`] routes the event to its [`handlers`],
//! claims it for each of them, runs them with a deadline, and settles what came of it: emitted
//! events leave through [`egress`] and a [broker](brokers), failures that trying again cannot
//! mend become dead letters. Only then the door answers.
//!
//! Read `ingress/push.rs`, then `pipeline/mod.rs`, then `handlers/contract.rs`.

pub mod event;

pub mod ingress;

pub mod pipeline;

pub mod handlers;

pub mod egress;

pub mod brokers;
pub mod clients;
pub mod store;

pub mod desk;

pub mod api;
pub mod app;
pub mod bridge;
pub mod cli;
#[cfg(feature = "sandbox")]
pub mod sandbox;

pub mod clock;
pub mod config;
pub mod error;
mod failpoint;
pub mod telemetry;
