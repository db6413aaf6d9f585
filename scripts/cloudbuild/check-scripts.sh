#!/usr/bin/env bash
# Runs the deployment scripts against stand-ins for gcloud, terraform, docker and curl, and looks at
# what they would have done. Needs no cloud and changes nothing outside of a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d "${TMPDIR:-/tmp}/check-scripts.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin"
export PROJECT_ID=acme-events REGION=europe-west1 NAME=hookyard COMMIT_SHA=0123456789abcdef0123456789abcdef01234567
export RELEASE_DIR=$work/release CALLS=$work/calls WATCH_SECONDS=0 SMOKE_PAUSE=0
export STUB_LOG=$work/log

# The stand-ins write down how they were called, and answer as the case says by environment.
cat >"$work/bin/gcloud" <<'STUB'
#!/usr/bin/env bash
printf 'gcloud %s\n' "${*//$'\n'/ }" >>"$CALLS"
case "$*" in
*'services list'*) [[ ${STUB_LIST:-ok} == ok ]] || exit 1; printf '%s\n' "${STUB_SERVICE-hookyard}" ;;
*'services describe'*traffic.percent*) printf '%s\n' ',hookyard-00007-new' '90,hookyard-00006-old' '10,hookyard-00005-older' ;;
*'services describe'*latestCreated*) echo hookyard-00007-new ;;
*'services describe'*ingress*) echo "${STUB_INGRESS:-internal}" ;;
*'services describe'*url*) echo https://hookyard-abc.a.run.app ;;
*'revisions list'*) printf '%s\n' hookyard-00007-new hookyard-00006-old hookyard-00005-older ;;
*'topics publish'*) printf '%s' "$*" | grep -o 'smoke-[0-9a-f-]\{36\}' | head -1 >"$STUB_LOG" ;;
*'logging read'*'event.id'*)
  # Only the id that was published has a line.
  if [[ $* == *"$(cat "$STUB_LOG")"* ]]; then printf '%s\n' "${STUB_OUTCOME-skipped}"; fi ;;
*'logging read'*timestamp*) for ((i = 0; i < ${STUB_ERRORS:-0}; i++)); do echo "line-$i"; done ;;
*print-identity-token*) echo aaaa.bbbb.cccc ;;
*print-access-token*) echo access ;;
*'images scan'*) echo projects/acme-events/locations/europe/scans/1 ;;
*list-vulnerabilities*) printf '%s\n' ${STUB_SEVERITIES-LOW MEDIUM} ;;
*'versions add'*) cat >"$STUB_LOG" ;;
esac
STUB
cat >"$work/bin/curl" <<'STUB'
#!/usr/bin/env bash
printf 'curl %s\n' "$*" >>"$CALLS"
header=$(for argument in "$@"; do if [[ $argument == @/dev/fd/* ]]; then cat "${argument#@}"; fi; done)
cat >>"$STUB_LOG.body"
case $header in
'Authorization: Bearer aaaa.bbbb.cccc') printf '%s' "${STUB_GOOD:-200}" ;;
'Authorization: Bearer access') printf '%s' "${STUB_SQL:-200}" ;;
'') printf '%s' "${STUB_BARE:-401}" ;;
*) printf '%s' "${STUB_FORGED:-401}" ;;
esac
STUB
cat >"$work/bin/terraform" <<'STUB'
#!/usr/bin/env bash
printf 'terraform %s\n' "$*" >>"$CALLS"
case $1 in
plan) for argument in "$@"; do if [[ $argument == -out=* ]]; then echo plan >"${argument#-out=}"; fi; done ;;
show) printf '%s\n' "${STUB_PLAN:-  # google_cloud_run_v2_service.this will be updated in-place}" ;;
output) echo "value-of-$3" ;;
esac
STUB
cat >"$work/bin/docker" <<'STUB'
#!/usr/bin/env bash
printf 'docker %s\n' "$*" >>"$CALLS"
case "$*" in
'image inspect'*) printf '%s@sha256:%064d\n' "other/image" 1 "${STUB_REPOSITORY:-europe-west1-docker.pkg.dev/acme-events/hookyard/hookyard}" 2 ;;
esac
STUB
chmod +x "$work"/bin/*
PATH=$work/bin:$PATH

failures=0 cases=0
# it SENTENCE: starts a case.
it() {
  sentence=$1
  cases=$((cases + 1))
  rm -rf "$RELEASE_DIR" "$STUB_LOG" "$STUB_LOG.body"
  mkdir -p "$RELEASE_DIR"
  : >"$CALLS"
}
wrong() {
  printf 'FAIL %s: %s\n' "$sentence" "$*"
  sed 's/^/     /' "$CALLS" "$work/output"
  failures=$((failures + 1))
}
passes() { "$@" >"$work/output" 2>&1 </dev/null || wrong "$* failed"; }
fails() { if "$@" >"$work/output" 2>&1 </dev/null; then wrong "$* did not fail"; fi; }
called() { grep -qF -- "$1" "$CALLS" || wrong "was not called: $1"; }
not_called() { if grep -qF -- "$1" "$CALLS"; then wrong "was called: $1"; fi; }
said() { grep -qF -- "$1" "$work/output" || wrong "did not say: $1"; }
kept_is() { [[ $(cat "$RELEASE_DIR/$1" 2>/dev/null) == "$2" ]] || wrong "kept $1 is not $2"; }
s=scripts/cloudbuild

it 'the stable revision is the one with most traffic'
passes $s/find-stable.sh
kept_is stable hookyard-00006-old

it 'a first deployment has no stable revision'
STUB_SERVICE='' passes $s/find-stable.sh
kept_is stable ''

it 'a list that fails is not taken for a first deployment'
STUB_LIST=denied fails $s/find-stable.sh

it 'the image is tagged with the commit and built with a cache'
passes $s/build-image.sh
called "--build-arg REVISION=$COMMIT_SHA"
called 'mode=max'
kept_is image "europe-west1-docker.pkg.dev/acme-events/hookyard/hookyard:$COMMIT_SHA"

it 'the digest is that of our repository'
echo "europe-west1-docker.pkg.dev/acme-events/hookyard/hookyard:$COMMIT_SHA" >"$RELEASE_DIR/image"
passes $s/push-image.sh
kept_is digest "$(printf 'europe-west1-docker.pkg.dev/acme-events/hookyard/hookyard@sha256:%064d' 2)"

it 'an image that was never pushed has no digest'
echo 'elsewhere/image:tag' >"$RELEASE_DIR/image"
fails $s/push-image.sh

it 'a scan without grave findings passes'
IMAGE=i passes $s/scan-image.sh
called '--location=europe'

it 'a critical finding ends the deployment'
IMAGE=i STUB_SEVERITIES='LOW CRITICAL' fails $s/scan-image.sh

it 'MINIMAL is not CRITICAL'
IMAGE=i STUB_SEVERITIES='MINIMAL' passes $s/scan-image.sh

it 'the plan names digest and stable revision'
echo image@sha256:1 >"$RELEASE_DIR/digest"
echo hookyard-00006-old >"$RELEASE_DIR/stable"
STATE_BUCKET=b TFVARS=prod.tfvars passes $s/plan.sh
called '-var=image=image@sha256:1'
called '-var=stable_revision=hookyard-00006-old'
called '-backend-config=bucket=b'

it 'a plan is not made without knowing who keeps the traffic'
STATE_BUCKET=b IMAGE_DIGEST=image@sha256:1 fails $s/plan.sh
not_called 'terraform plan'

it 'a plan that deletes a subscription is not kept'
echo image@sha256:1 >"$RELEASE_DIR/digest"
echo '' >"$RELEASE_DIR/stable"
STUB_PLAN='  # google_pubsub_subscription.push["contract-events"] will be destroyed' STATE_BUCKET=b fails $s/plan.sh
fails $s/apply.sh
not_called 'terraform apply'

it 'but it is when that is meant'
echo image@sha256:1 >"$RELEASE_DIR/digest"
echo '' >"$RELEASE_DIR/stable"
STUB_PLAN='  # google_pubsub_topic.trigger["a"] must be replaced' ALLOW_DESTROY=yes STATE_BUCKET=b passes $s/plan.sh
not_called 'stable_revision'

it 'the saved plan is applied, once'
echo plan >"$RELEASE_DIR/plan.tfplan"
passes $s/apply.sh
called "terraform apply -lock-timeout=300s $RELEASE_DIR/plan.tfplan"
kept_is latest_revision value-of-latest_revision
fails $s/apply.sh

release() {
  echo hookyard-00007-new >"$RELEASE_DIR/latest_revision"
  echo hookyard-00006-old >"$RELEASE_DIR/stable"
}

it 'a revision that passes its smoke test gets the traffic'
release
passes $s/release.sh
called 'pubsub topics publish hookyard-smoke'
called 'resource.labels.revision_name="hookyard-00007-new"'
called '--to-revisions=hookyard-00007-new=100'

it 'a revision that fails it does not'
release
STUB_OUTCOME=retry fails $s/release.sh
not_called '--to-revisions=hookyard-00007-new'
called '--to-revisions=hookyard-00006-old=100'

it 'nor does one that says nothing'
release
STUB_OUTCOME='' SMOKE_SECONDS=1 fails $s/release.sh
not_called '--to-revisions=hookyard-00007-new'

it 'an event nobody takes is not a pass'
release
STUB_OUTCOME=unrouted fails $s/smoke.sh
said SMOKE_EVENT

it 'traffic is shifted in steps'
release
SHIFT_STEPS='10 100' passes $s/shift-traffic.sh
called '--to-revisions=hookyard-00007-new=10,hookyard-00006-old=90'
called '--to-revisions=hookyard-00007-new=100'

it 'a revision that errs under traffic loses it'
release
STUB_ERRORS=6 SHIFT_STEPS='10 100' fails $s/shift-traffic.sh
not_called '--to-revisions=hookyard-00007-new=100'
called '--to-revisions=hookyard-00006-old=100'

it 'a few errors are put up with'
release
STUB_ERRORS=5 passes $s/shift-traffic.sh

it 'a service that can be reached is pushed to directly'
release
STUB_INGRESS=all passes $s/smoke.sh
called 'https://candidate---hookyard-abc.a.run.app/push'
called '--impersonate-service-account=hookyard-push@acme-events.iam.gserviceaccount.com'
not_called 'aaaa.bbbb'

it 'an open door fails the smoke test'
release
SMOKE_VIA=http STUB_BARE=200 fails $s/smoke.sh
said 'the door is open'

it 'so does a door that opens to a forged token'
release
SMOKE_VIA=http STUB_FORGED=200 fails $s/smoke.sh
said 'the door is open'

it 'a rollback by hand finds the revision before'
passes $s/rollback.sh
called '--to-revisions=hookyard-00005-older=100'

it 'a secret goes in by the pipe, without its newline'
printf 'hunter2\n' | scripts/set-secret.sh chargebee-api-key >"$work/output" 2>&1 || wrong 'failed'
[[ $(od -c "$STUB_LOG" | head -1) == "$(printf hunter2 | od -c | head -1)" ]] || wrong 'the value was changed'
not_called hunter2

it 'an empty secret is refused'
fails scripts/set-secret.sh admin-token
not_called 'versions add'

it 'an unknown secret is refused'
fails scripts/set-secret.sh --generate stripe-key

it 'a generated secret is long enough'
passes scripts/set-secret.sh --generate admin-token
[[ $(wc -c <"$STUB_LOG") -ge 43 ]] || wrong 'it is short'

it 'the password of the database is on no command line'
passes scripts/set-database-user.sh
called 'versions add hookyard-database-url'
password=$(sed -E 's#.*hookyard:([^@]+)@.*#\1#' "$STUB_LOG")
not_called "$password"
grep -qF "$password" "$STUB_LOG.body" || wrong 'it was not sent'

printf '%d cases, %d failures\n' "$cases" "$failures"
((failures == 0))
