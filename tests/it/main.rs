//! The integration tests: one binary, one module per subject.

mod decode_fixtures;
mod decode_hasura;
mod decode_hostile;
mod decode_push;
mod decode_round_trip;
