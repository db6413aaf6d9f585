#!/usr/bin/env bash
# Keeps the name of the revision that has the traffic now: it is to keep it until the new one is
# tested, and to get it back when the test fails. Nothing before the first deployment.
#   PROJECT_ID, REGION, NAME   the service
# By hand: PROJECT_ID=… REGION=… NAME=hookyard scripts/cloudbuild/find-stable.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need PROJECT_ID REGION NAME
need_tools gcloud
if service_exists; then
  stable=$(serving_revision)
  [[ -n $stable ]] || fail 'the service exists, but no revision has traffic; see docs/RUNBOOK.md#rollback'
  say "serving: $stable"
else
  stable=''
  say 'first deployment: the new revision gets the traffic at once'
fi
keep stable "$stable"
