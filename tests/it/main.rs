//! The integration tests: one binary against the real router, over sockets.

mod decode_fixtures;
mod decode_hasura;
mod decode_hostile;
mod decode_push;
mod decode_round_trip;
mod decode_rows;
mod logs_lines;
mod tidy;
