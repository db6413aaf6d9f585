#!/usr/bin/env bash
# Carries out the plan of plan.sh: the new revision is there afterwards, without traffic (but for
# the first one).
# By hand: scripts/cloudbuild/apply.sh, after plan.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_tools terraform
[[ -f $RELEASE_DIR/plan.tfplan ]] || fail 'no plan: run scripts/cloudbuild/plan.sh first'
export TF_IN_AUTOMATION=1 TF_INPUT=0
cd "$ROOT/terraform"
terraform apply -lock-timeout=300s "$RELEASE_DIR/plan.tfplan" >&2
rm "$RELEASE_DIR/plan.tfplan" # stale from now on
for output in latest_revision candidate_uri service_uri smoke_topic push_audience push_service_account; do
  keep "$output" "$(terraform output -raw "$output")"
done
say "made: $(kept latest_revision)"
