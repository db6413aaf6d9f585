#!/bin/sh
# Measures the service beside two baselines, as ratios in one run; see docs/PERFORMANCE.md.
#
# Needs two cores: the servers are pinned to core 0, the load and the stand-ins to core 1.
# ROUNDS (3) and SCALE (1.0) trade time for calm.
set -eu
cd "$(dirname "$0")/.."

command -v taskset >/dev/null || { echo "bench.sh needs taskset (util-linux)" >&2; exit 1; }
cargo build --release --no-default-features --bin hookyard --example kit
target=${CARGO_TARGET_DIR:-target}/release
exec taskset -c 1 "$target/examples/kit" run "$target/hookyard"
