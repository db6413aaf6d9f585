#!/usr/bin/env bash
# Plans the change and keeps the plan; apply.sh carries out this plan and no other.
#   STATE_BUCKET    bucket of Terraform's state
#   TFVARS          file with the settings (default: terraform.tfvars), relative to terraform/
#   IMAGE_DIGEST    default: what push-image.sh pushed
#   STABLE          revision that keeps the traffic (default: what find-stable.sh found)
#   ALLOW_DESTROY   yes: a plan may delete topics, subscriptions, the service or the database
# By hand: STATE_BUCKET=… scripts/cloudbuild/plan.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_tools terraform
need STATE_BUCKET
IMAGE_DIGEST=${IMAGE_DIGEST:-$(kept digest)}
need IMAGE_DIGEST
if [[ -z ${STABLE:-} && ! -f $RELEASE_DIR/stable ]]; then
  fail 'not known which revision keeps the traffic: run scripts/cloudbuild/find-stable.sh, or set STABLE'
fi
STABLE=${STABLE:-$(kept stable)}
mkdir -p "$RELEASE_DIR"

export TF_IN_AUTOMATION=1 TF_INPUT=0
cd "$ROOT/terraform"
terraform init -reconfigure -backend-config="bucket=$STATE_BUCKET" >&2
arguments=(-var-file="${TFVARS:-terraform.tfvars}" -var="image=$IMAGE_DIGEST")
if [[ -n $STABLE ]]; then arguments+=(-var="stable_revision=$STABLE"); fi
terraform plan -lock-timeout=300s "${arguments[@]}" -out="$RELEASE_DIR/plan.tfplan" >&2

# Messages nobody has worked off yet go with their subscription: never by the way.
lost=$(terraform show -no-color "$RELEASE_DIR/plan.tfplan" |
  grep -E '# (google_pubsub_(topic|subscription)|google_cloud_run_v2_service|google_sql_[a-z_]+)\.[^ ]+ (will be destroyed|must be replaced)' || true)
if [[ -n $lost && ${ALLOW_DESTROY:-} != yes ]]; then
  say "$lost"
  rm "$RELEASE_DIR/plan.tfplan"
  fail 'the plan deletes what may hold data; read it, and set ALLOW_DESTROY=yes if that is meant'
fi
