#!/usr/bin/env bash
# Tests, lints and the checks of image, Terraform and deployment scripts.
# By hand: scripts/cloudbuild/test.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
scripts/test.sh
