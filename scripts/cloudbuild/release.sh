#!/usr/bin/env bash
# Smoke test, then traffic, or back. The new revision is deployed already and has no traffic.
#   PROJECT_ID, REGION, NAME   the service; and what smoke.sh and shift-traffic.sh take
# By hand: PROJECT_ID=… REGION=… NAME=hookyard scripts/cloudbuild/release.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need PROJECT_ID REGION NAME
here=$ROOT/scripts/cloudbuild
stable=$(kept stable)
if ! "$here/smoke.sh"; then
  if [[ -n $stable ]]; then
    # It never lost the traffic; this also takes it back from whoever got it in between.
    TO=$stable "$here/rollback.sh"
  fi
  fail "not released; the new revision stays under its tag for a look: $(kept candidate_uri)"
fi
"$here/shift-traffic.sh"
