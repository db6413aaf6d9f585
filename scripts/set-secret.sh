#!/usr/bin/env bash
# Puts a new version of a secret into Secret Manager. The value is typed, piped or made here; it is
# on no command line, in no file and in no Terraform state.
#
#   PROJECT_ID=… scripts/set-secret.sh hasura-admin-secret            asks for it
#   PROJECT_ID=… scripts/set-secret.sh chargebee-api-key < key.txt    reads it
#   PROJECT_ID=… scripts/set-secret.sh --generate admin-token         makes 256 random bits
#
# NAME (default hookyard) is the prefix, as in Terraform. The running service sees a new version
# when an instance starts: docs/RUNBOOK.md#rotating-a-secret.
. "$(dirname "${BASH_SOURCE[0]}")/cloudbuild/lib.sh"

generate=no
if [[ ${1:-} == --generate ]]; then
  generate=yes
  shift
fi
secret=${1:-}
case $secret in
hasura-admin-secret | chargebee-api-key | admin-token | admin-read-token | bridge-secret | database-url) ;;
*) fail 'which? hasura-admin-secret, chargebee-api-key, admin-token, admin-read-token, bridge-secret or database-url' ;;
esac
need PROJECT_ID
need_tools gcloud
NAME=${NAME:-hookyard}

if [[ $generate == yes ]]; then
  value=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')
elif [[ -t 0 ]]; then
  read -rsp "value of $NAME-$secret (is not shown): " value
  printf '\n' >&2
else
  value=$(cat) # drops the newline at the end, which would become part of a password
fi
[[ -n $value ]] || fail 'the value is empty'
[[ $value != *[[:space:]]* ]] || fail 'the value has blanks or newlines in it; none of these secrets has'
printf '%s' "$value" | gcloud secrets versions add "$NAME-$secret" --project="$PROJECT_ID" --data-file=- --format='value(name)' >/dev/null
say "$NAME-$secret has a new version"
