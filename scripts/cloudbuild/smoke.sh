#!/usr/bin/env bash
# Sends one event to the newest revision, which need not have any traffic, and looks what becomes
# of it.
#   PROJECT_ID, REGION, NAME   the service
#   SMOKE_VIA      pubsub: publish to the smoke topic, Pub/Sub pushes with its own token, and the
#                  event's log line says how it ended. Works with internal ingress.
#                  http: push directly, with a token in the name of the push account, and without.
#                  Needs a service that can be reached from here.  Default: by the service's ingress
#   SMOKE_EVENT    event to send (default: scripts/cloudbuild/smoke-event.json); EVENT_ID and NOW in
#                  it are filled in. One that changes nothing: the default is skipped by its handler
#   SMOKE_EXPECT   outcomes that pass (default skipped,done)
#   SMOKE_SECONDS  patience (default 180)
# By hand: PROJECT_ID=… REGION=… NAME=hookyard scripts/cloudbuild/smoke.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need PROJECT_ID REGION NAME
need_tools gcloud curl
expect=${SMOKE_EXPECT:-skipped,done}
seconds=${SMOKE_SECONDS:-180}
revision=${REVISION:-$(kept latest_revision)}
revision=${revision:-$(service 'value(status.latestCreatedRevisionName)')}
id=smoke-$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen)
event=$(sed "s/EVENT_ID/$id/; s/NOW/$(date -u +%Y-%m-%dT%H:%M:%SZ)/g" \
  "${SMOKE_EVENT:-$ROOT/scripts/cloudbuild/smoke-event.json}")
[[ $event == *"$id"* ]] || fail 'SMOKE_EVENT has no EVENT_ID in it'

via=${SMOKE_VIA:-}
if [[ -z $via ]]; then
  ingress=$(service 'value(metadata.annotations["run.googleapis.com/ingress"])')
  if [[ $ingress == all ]]; then via=http; else via=pubsub; fi
fi

# Waits for the line in which the revision says how the event ended, and prints the outcome.
outcome_in_log() {
  local outcome deadline=$((SECONDS + seconds))
  while ((SECONDS < deadline)); do
    outcome=$(gcloud logging read "resource.type=\"cloud_run_revision\"
      resource.labels.service_name=\"$NAME\" resource.labels.revision_name=\"$revision\"
      jsonPayload.\"event.id\"=\"$id\" jsonPayload.outcome:*" \
      --project="$PROJECT_ID" --freshness=1h --limit=1 --format='value(jsonPayload.outcome)')
    if [[ -n $outcome ]]; then
      printf '%s' "$outcome"
      return
    fi
    sleep "${SMOKE_PAUSE:-5}"
  done
}

what_it_says() {
  say "the last lines of $revision:"
  gcloud logging read "resource.type=\"cloud_run_revision\"
    resource.labels.service_name=\"$NAME\" resource.labels.revision_name=\"$revision\" severity>=WARNING" \
    --project="$PROJECT_ID" --freshness=1h --limit=10 \
    --format='value(timestamp,severity,jsonPayload.message,jsonPayload.reason,jsonPayload."error.code",textPayload)' >&2 || true
}

via_pubsub() {
  local topic outcome
  topic=$(kept smoke_topic)
  gcloud pubsub topics publish "${topic:-$NAME-smoke}" --project="$PROJECT_ID" --message="$event" >/dev/null
  say "published $id, waiting for $revision to say how it ended"
  outcome=$(outcome_in_log)
  case ,$expect, in
  *,"${outcome:-none}",*) say "smoke test passed: $outcome" ;;
  *)
    what_it_says
    case $outcome in
    '') fail "smoke test: $revision said nothing about $id within $seconds s" ;;
    unrouted) fail 'smoke test: no handler takes the event; point SMOKE_EVENT at one that your handlers know' ;;
    *) fail "smoke test: the event ended as $outcome" ;;
    esac
    ;;
  esac
}

# answer TOKEN: the status of a push; the token goes in by a file, never on a command line.
answer() {
  local header=''
  if [[ -n $1 ]]; then header="Authorization: Bearer $1"; fi
  printf '{"message":{"data":"%s","messageId":"%s","publishTime":"%s"},"subscription":"projects/%s/subscriptions/%s-smoke"}' \
    "$(printf '%s' "$event" | base64 | tr -d '\n')" "$id" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$PROJECT_ID" "$NAME" |
    curl --silent --show-error --output /dev/null --max-time 70 --write-out '%{http_code}' \
      --header @<(printf '%s\n' "$header") --header 'Content-Type: application/json' --data-binary @- "$uri/push" || true
}

via_http() {
  local token status account audience
  uri=${CANDIDATE_URI:-$(kept candidate_uri)}
  account=${PUSH_SERVICE_ACCOUNT:-$(kept push_service_account)}
  audience=${PUSH_AUDIENCE:-$(kept push_audience)}
  uri=${uri:-$(service 'value(status.url)' | sed 's#https://#https://candidate---#')}
  account=${account:-$NAME-push@$PROJECT_ID.iam.gserviceaccount.com}
  audience=${audience:-$NAME.$PROJECT_ID}
  token=$(gcloud auth print-identity-token --impersonate-service-account="$account" \
    --audiences="$audience" --include-email 2>/dev/null) || fail "cannot make a token in the name of $account"
  status=$(answer "$token")
  [[ $status == 200 ]] || { what_it_says; fail "smoke test: a push with a good token was answered $status"; }
  status=$(answer '')
  [[ $status == 401 || $status == 403 ]] || fail "smoke test: a push WITHOUT a token was answered $status: the door is open"
  status=$(answer "${token%.*}.$(printf '%s' "${token##*.}" | tr 'A-Za-z' 'B-ZAb-za')")
  [[ $status == 401 || $status == 403 ]] || fail "smoke test: a push with a FORGED token was answered $status: the door is open"
  say 'smoke test passed: 200 with a token, refused without and with a forged one'
}

case $via in
pubsub) via_pubsub ;;
http) via_http ;;
*) fail 'SMOKE_VIA is pubsub or http' ;;
esac
