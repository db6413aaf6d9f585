//! The integration tests: one binary against the real router, over sockets.

#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot set up is a failed test"
)]

mod bridge_door;
mod bridge_end_to_end;
mod bridge_kit;
mod bridge_messages;
mod bridge_process;
mod brokers_conformance;
mod check_case;
mod check_chain;
mod check_hasura;
mod check_schema;
mod check_service;
mod check_subscription;
mod check_world;
mod clients_chargebee;
mod clients_faults;
mod clients_hasura;
mod clients_support;
mod community_handlers;
mod config_values;
mod decode_fixtures;
mod decode_hasura;
mod decode_hostile;
mod decode_push;
mod decode_round_trip;
mod decode_rows;
mod door;
mod drain;
mod duplicates;
mod durable_inbox;
mod edge_http;
mod edge_requests;
mod edge_server;
mod emulator;
mod events_store;
mod hasura_metadata_apply;
mod hasura_metadata_diff;
mod hasura_schema;
mod hasura_stand_in;
mod journeys;
mod library;
mod logs_canaries;
mod logs_lines;
mod loops;
mod oidc_google;
mod oidc_issuer;
mod oidc_keys;
mod oidc_tokens;
mod otlp_collector;
mod otlp_export;
mod otlp_traces;
mod outbox_kit;
mod outbox_properties;
mod outbox_relay;
mod process;
mod pubsub_end_to_end;
mod pubsub_publisher;
mod sandbox_chargebee;
mod sandbox_dev;
mod sandbox_hasura;
mod sandbox_issuer;
mod sandbox_pusher;
mod store_start;
mod support;
mod tidy;
mod token_properties;
mod worker;
mod worker_app;
