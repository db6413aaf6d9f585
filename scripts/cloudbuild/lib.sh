# shellcheck shell=bash
# Shared by the deployment scripts; sourced, not run.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What one step leaves for the next; Cloud Build keeps the checkout between steps.
RELEASE_DIR=${RELEASE_DIR:-$ROOT/.release}

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $*"
  exit 1
}

# need NAME…: the named variables are set; else the script ends and names all that are not.
need() {
  local variable missing=()
  for variable in "$@"; do
    [[ -n ${!variable:-} ]] || missing+=("$variable")
  done
  ((${#missing[@]} == 0)) || fail "not set: ${missing[*]} (what they mean stands at the head of $0)"
}

# need_tools NAME…: the named programs are installed.
need_tools() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
  done
}

# keep NAME VALUE: for later steps.
keep() {
  mkdir -p "$RELEASE_DIR"
  printf '%s\n' "$2" >"$RELEASE_DIR/$1"
}

# kept NAME: what an earlier step kept, or nothing.
kept() {
  if [[ -f $RELEASE_DIR/$1 ]]; then cat "$RELEASE_DIR/$1"; fi
}

# service FORMAT [FLAGS…]: describes the service.
service() {
  need NAME PROJECT_ID REGION
  gcloud run services describe "$NAME" --project="$PROJECT_ID" --region="$REGION" --format="$1" "${@:2}"
}

# Whether the service exists. Anything but "no such service" is an error: taking a missing right
# for a first deployment would give an untested revision all traffic.
service_exists() {
  need NAME PROJECT_ID REGION
  local found
  found=$(gcloud run services list --project="$PROJECT_ID" --region="$REGION" \
    --filter="metadata.name=$NAME" --format='value(metadata.name)') || fail 'cannot list the services'
  [[ -n $found ]]
}

# The revision with most of the traffic.
serving_revision() {
  service 'csv[no-heading](status.traffic.percent,status.traffic.revisionName)' --flatten='status.traffic[]' |
    sort --field-separator=, --key=1,1nr | awk -F, '$1 > 0 {print $2; exit}'
}
