//! Rows of work that was done long ago, to see whether they slow down what comes.

use super::database::Database;

/// Brings `events`, `inbox` and the published part of `outbox` up to so many rows each.
pub(crate) fn fill(database: &Database, rows: u32) {
    let there = database.number("SELECT COUNT(*) FROM inbox WHERE handler = 'long_ago'");
    let first = there + 1;
    database.execute(&format!(
        "INSERT INTO events (event_type, aggregate_id, payload, processed, status, generation, \
         processed_at, created_at) \
         SELECT 'bench.trivial', CAST(md5('a' || n % 20000) AS UUID), '{{\"id\": 1}}', TRUE, \
         'done', 1, 1767607200000000 + n, TIMESTAMPTZ '2026-01-05' + n * INTERVAL '1 ms' \
         FROM generate_series({first}, {rows}) AS n"
    ));
    database.execute(&format!(
        "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
         outcome, event_type, message_id, instance, created_at, started_at, ended_at) \
         SELECT CAST(md5('e' || n) AS UUID), 'long_ago', 0, 2, 1, 0, 1, 'done', \
         'contracts.insert', CAST(n AS TEXT), 'long-ago', 1767607200000000 + n, \
         1767607200000000 + n, 1767607200000000 + n \
         FROM generate_series({first}, {rows}) AS n"
    ));
    database.execute(&format!(
        "INSERT INTO outbox (lane, message_id, topic, ordering_key, event_type, cause_id, handler, \
         data, attributes, state, created_at, published_at) \
         SELECT n % 64, md5('o' || n), 'hookyard-events', 'k' || n % 20000, 'contract.activated', \
         md5('e' || n), 'long_ago', '{{}}', '[]', 1, 1767607200000000, 1767607200000000 + n \
         FROM generate_series({first}, {rows}) AS n"
    ));
}
