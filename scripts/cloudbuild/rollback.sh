#!/usr/bin/env bash
# Gives all traffic to an earlier revision. Nothing is lost by it: Pub/Sub delivers again what the
# other one did not acknowledge.
#   PROJECT_ID, REGION, NAME   the service
#   TO                         revision (default: what find-stable.sh found, else the one before the
#                              one that has the traffic)
# By hand: PROJECT_ID=… REGION=… NAME=hookyard scripts/cloudbuild/rollback.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need PROJECT_ID REGION NAME
need_tools gcloud
TO=${TO:-$(kept stable)}
if [[ -z $TO ]]; then
  serving=$(serving_revision)
  TO=$(gcloud run revisions list --service="$NAME" --project="$PROJECT_ID" --region="$REGION" \
    --sort-by='~metadata.creationTimestamp' --format='value(metadata.name)' |
    awk -v serving="$serving" 'found {print; exit} $1 == serving {found = 1}')
fi
[[ -n $TO ]] || fail 'there is no earlier revision'
gcloud run services update-traffic "$NAME" --project="$PROJECT_ID" --region="$REGION" \
  --to-revisions="$TO=100" --quiet >/dev/null
say "all traffic goes to $TO"
