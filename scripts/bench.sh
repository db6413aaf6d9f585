#!/usr/bin/env bash
# Measures the service beside other programs, as ratios in one run; see docs/PERFORMANCE.md.
#
#   scripts/bench.sh [stateless | durable]
#
# stateless: beside a bare endpoint and a plain program; the servers on core 0, the load on core 1.
# durable: beside graphile-worker (Node.js, installed into benches/graphile) on one private
# PostgreSQL cluster; everybody shares the cores. Both, when nothing is said.
# ROUNDS (3) and SCALE (1.0) trade time for calm; HISTORY (1000000, 0 for none) is how many rows of
# old work the last part of durable has in its tables; CASES (drain,push,relay) picks some.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/postgres.sh

fail() { echo "bench.sh: $*" >&2 && exit 1; }
part=${1:-all}
case $part in stateless | durable | all) ;; *) fail "unknown: $part" ;; esac

if [ "$part" != durable ]; then
    command -v taskset >/dev/null || fail 'needs taskset (util-linux)'
fi
if [ "$part" != stateless ]; then
    for tool in node npm; do
        command -v "$tool" >/dev/null || fail "durable needs $tool"
    done
    find_postgres >/dev/null || fail 'durable needs PostgreSQL'
    (cd benches/graphile && npm ci --no-audit --no-fund --ignore-scripts --silent)
fi

cargo build --release --no-default-features --bin hookyard --example kit --example trivial
target=${CARGO_TARGET_DIR:-target}/release
kit=$target/examples/kit

if [ "$part" != durable ]; then
    taskset -c 1 "$kit" run "$target/hookyard"
fi
if [ "$part" != stateless ]; then
    trap stop_postgres EXIT
    trap 'exit 130' INT TERM
    # As it comes, commits on disk, but for more connections and memory.
    start_postgres "$target/bench-postgres.log" -c max_connections=200 -c shared_buffers=512MB \
        -c max_wal_size=4GB || fail "no PostgreSQL, see $target/bench-postgres.log"
    BENCH_POSTGRES_URL=$postgres_url "$kit" durable "$target/hookyard" "$target/examples/trivial"
fi
