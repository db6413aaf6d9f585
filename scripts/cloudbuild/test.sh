#!/usr/bin/env bash
# Tests, lints and the checks of image, Terraform and deployment scripts.
# By hand: scripts/cloudbuild/test.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
if [[ -x scripts/test.sh ]]; then
  scripts/test.sh
else
  cargo fmt --check
  cargo clippy --locked --all-targets -- --deny warnings
  cargo test --locked
fi
scripts/check-deployment.sh
