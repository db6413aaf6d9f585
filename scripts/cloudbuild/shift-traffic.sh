#!/usr/bin/env bash
# Gives the traffic to a revision, in steps, and looks after each whether it errs; if it does, the
# revision before gets all traffic back.
#   PROJECT_ID, REGION, NAME   the service
#   REVISION           default: the newest
#   STABLE             who gets it back (default: what find-stable.sh found)
#   SHIFT_STEPS        percents (default "100"; a careful one: "10 50 100")
#   WATCH_SECONDS      how long to look after each step (default 60)
#   WATCH_MAX_ERRORS   error lines of the new revision that are put up with (default 5)
# By hand: PROJECT_ID=… REGION=… NAME=hookyard SHIFT_STEPS="10 50 100" scripts/cloudbuild/shift-traffic.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need PROJECT_ID REGION NAME
need_tools gcloud
REVISION=${REVISION:-$(kept latest_revision)}
REVISION=${REVISION:-$(service 'value(status.latestCreatedRevisionName)')}
STABLE=${STABLE:-$(kept stable)}
watch=${WATCH_SECONDS:-60}

errors_since() {
  gcloud logging read "resource.type=\"cloud_run_revision\" resource.labels.service_name=\"$NAME\"
    resource.labels.revision_name=\"$REVISION\" severity>=ERROR timestamp>=\"$1\"" \
    --project="$PROJECT_ID" --limit=1000 --format='value(insertId)' | grep -c . || true
}

for percent in ${SHIFT_STEPS:-100}; do
  [[ $percent =~ ^[0-9]+$ && $percent -ge 1 && $percent -le 100 ]] || fail 'SHIFT_STEPS: percents from 1 to 100'
  split=$REVISION=$percent
  if ((percent < 100)) && [[ -n $STABLE && $STABLE != "$REVISION" ]]; then
    split+=,$STABLE=$((100 - percent))
  fi
  started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  gcloud run services update-traffic "$NAME" --project="$PROJECT_ID" --region="$REGION" \
    --to-revisions="$split" --quiet >/dev/null
  say "$REVISION has $percent % of the traffic; watching for $watch s"
  sleep "$watch"
  errors=$(errors_since "$started")
  if ((errors > ${WATCH_MAX_ERRORS:-5})); then
    say "$REVISION wrote $errors error lines"
    TO=$STABLE "$ROOT/scripts/cloudbuild/rollback.sh"
    fail 'rolled back'
  fi
done
say "$REVISION has all traffic, $errors error lines"
