#!/usr/bin/env bash
# Makes (or gives a new password to) the service's database user, and puts DATABASE_URL into Secret
# Manager. The password is made here and is on no command line, in no file and in no state.
#
#   PROJECT_ID=… REGION=… scripts/set-database-user.sh
#
# NAME (default hookyard) is the name of instance, database and user, as in Terraform.
. "$(dirname "${BASH_SOURCE[0]}")/cloudbuild/lib.sh"

need PROJECT_ID REGION
need_tools gcloud curl
NAME=${NAME:-hookyard}
api=${SQLADMIN_URL:-https://sqladmin.googleapis.com}/v1/projects/$PROJECT_ID/instances/$NAME/users
password=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')
token=$(gcloud auth print-access-token)

# call METHOD URL < BODY: the status; body and token are not on the command line.
call() {
  curl --silent --show-error --output /dev/null --write-out '%{http_code}' --request "$1" \
    --header @<(printf 'Authorization: Bearer %s\n' "$token") --header 'Content-Type: application/json' \
    --data-binary @- "$2"
}
body=$(printf '{"name":"%s","password":"%s"}' "$NAME" "$password")
status=$(call POST "$api" <<<"$body")
if [[ $status == 409 ]]; then status=$(call PUT "$api?name=$NAME" <<<"$body"); fi
[[ $status == 200 ]] || fail "Cloud SQL answered $status"

printf 'postgres://%s:%s@localhost/%s?host=/cloudsql/%s' "$NAME" "$password" "$NAME" "$PROJECT_ID:$REGION:$NAME" |
  PROJECT_ID=$PROJECT_ID NAME=$NAME "$ROOT/scripts/set-secret.sh" database-url
say 'restart the service now: sessions of the old password go on, new ones fail (docs/RUNBOOK.md#rotating-a-secret)'
