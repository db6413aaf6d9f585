#!/usr/bin/env bash
# Runs the service on this machine the way it runs in production, but for what it talks to.
#
#   scripts/deploy-local.sh [--build] [--once] [--no-docker]
#
#   --build      build the service again (it is built anyway if there is none)
#   --once       send the sample, look what becomes of it, and end: 0 if all was as it has to be
#   --no-docker  run the binary, even if there is an engine
#
# The service is the production build (without the sandbox), in its image when there is a container
# engine. Google's Pub/Sub emulator holds topics and push subscriptions with the names and settings
# that Terraform gives them. The emulator sends no token, so it pushes to the sandbox's proxy, which
# signs and passes on. The sandbox also plays the token issuer, Chargebee and Hasura.
#
# Environment: PUBSUB_EMULATOR_HOST (an emulator that runs already), NAME (hookyard), TRIGGERS
# (contract-events), GOOGLE_CLOUD_PROJECT (hookyard-local), PORT (8080), SANDBOX_PORT (8090),
# SAMPLE (examples/events/contract_activated.json), SERVICE_BIN (a binary to use instead of building).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=no once=no docker=yes
for argument in "$@"; do
  case $argument in
  --build | true) build=yes ;;
  --once) once=yes ;;
  --no-docker) docker=no ;;
  *)
    sed -n '2,20s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
  esac
done

NAME=${NAME:-hookyard}
TRIGGERS=${TRIGGERS:-contract-events}
project=${GOOGLE_CLOUD_PROJECT:-hookyard-local}
sample=${SAMPLE:-examples/events/contract_activated.json}
target=${CARGO_TARGET_DIR:-target}
if [[ $docker == yes ]] && ! { command -v docker >/dev/null && docker info >/dev/null 2>&1; }; then docker=no; fi

pids=() container='' emulator_container=''
work=$(mktemp -d "${TMPDIR:-/tmp}/hookyard-local.XXXXXX")
# shellcheck disable=SC2329  # called by the trap
clean_up() {
  local pid
  if [[ -n $container ]]; then docker stop --time 10 "$container" >/dev/null 2>&1 || true; fi
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [[ -n $emulator_container ]]; then docker stop "$emulator_container" >/dev/null 2>&1 || true; fi
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

listens() { (: <"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }
free_port() {
  local candidate
  while :; do
    candidate=$((20000 + RANDOM % 12000))
    if ! listens "127.0.0.1:$candidate"; then break; fi
  done
  printf '%s' "$candidate"
}
if [[ $once == yes ]]; then
  # Nobody will look for it at the usual place.
  port=${PORT:-$(free_port)} sandbox_port=${SANDBOX_PORT:-$(free_port)}
  while [[ $sandbox_port == "$port" ]]; do sandbox_port=$(free_port); done
else
  port=${PORT:-8080} sandbox_port=${SANDBOX_PORT:-8090}
fi

say() { printf '%s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  for log in "$work"/*.log; do
    if [[ -s $log ]]; then
      printf -- '--- the end of %s\n' "${log##*/}" >&2
      tail -n 20 "$log" >&2
    fi
  done
  exit 1
}
wait_for() { # wait_for SECONDS WHAT COMMAND…
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < deadline)) || fail "$what"
    sleep 0.2
  done
}
for tool in curl jq; do
  command -v "$tool" >/dev/null || fail "$tool is not installed"
done
if listens "127.0.0.1:$port"; then fail "port $port is taken; set PORT"; fi
if listens "127.0.0.1:$sandbox_port"; then fail "port $sandbox_port is taken; set SANDBOX_PORT"; fi

# --- build --------------------------------------------------------------------------------------

command -v cargo >/dev/null || fail 'cargo is not installed: https://rustup.rs (the stand-ins are built with it)'
say 'stand-ins: building'
cargo build --quiet --locked --example stand_ins
if [[ -n ${SERVICE_BIN:-} ]]; then
  docker=no
elif [[ $docker == yes ]]; then
  if [[ $build == yes ]] || ! docker image inspect "$NAME:local" >/dev/null 2>&1; then
    say 'service: building the image'
    docker build --quiet --build-arg "REVISION=local" --tag "$NAME:local" . >/dev/null
  fi
else
  SERVICE_BIN=$target/release/hookyard
  if [[ $build == yes || ! -x $SERVICE_BIN ]]; then
    say 'service: building for production (some minutes the first time)'
    cargo build --quiet --release --locked --no-default-features --bin hookyard
  fi
fi

# --- the emulator -------------------------------------------------------------------------------

find_emulator() {
  local root
  for root in /usr/lib/google-cloud-sdk /usr/share/google-cloud-sdk /opt/google-cloud-sdk "$HOME/google-cloud-sdk" \
    "$(command -v gcloud >/dev/null && timeout 30 gcloud info --format='value(installation.sdk_root)' 2>/dev/null)"; do
    if [[ -x $root/platform/pubsub-emulator/bin/cloud-pubsub-emulator ]]; then
      printf '%s' "$root/platform/pubsub-emulator/bin/cloud-pubsub-emulator"
      return
    fi
  done
  return 1
}

if [[ -z ${PUBSUB_EMULATOR_HOST:-} ]]; then
  PUBSUB_EMULATOR_HOST=127.0.0.1:$(free_port)
  if program=$(find_emulator) && command -v java >/dev/null; then
    "$program" --host=127.0.0.1 --port="${PUBSUB_EMULATOR_HOST##*:}" --iam_port="$(free_port)" >"$work/emulator.log" 2>&1 &
    pids+=("$!")
  elif [[ $docker == yes ]]; then
    emulator_container=$(docker run --rm --detach --network=host gcr.io/google.com/cloudsdktool/google-cloud-cli:emulators \
      gcloud beta emulators pubsub start --host-port="$PUBSUB_EMULATOR_HOST")
  else
    fail 'no Pub/Sub emulator: gcloud components install pubsub-emulator (or apt install google-cloud-cli-pubsub-emulator) and a Java runtime, or set PUBSUB_EMULATOR_HOST'
  fi
fi
emulator=http://$PUBSUB_EMULATOR_HOST/v1/projects/$project
# It listens before it answers.
# shellcheck disable=SC2329  # called by wait_for
emulator_answers() { curl --silent --fail --max-time 2 --output /dev/null "$emulator/topics"; }
wait_for 60 "no Pub/Sub emulator answers at $PUBSUB_EMULATOR_HOST" emulator_answers
say "emulator: $PUBSUB_EMULATOR_HOST"

call() { # call METHOD PATH BODY
  curl --silent --show-error --max-time 30 --request "$1" --header 'Content-Type: application/json' \
    --data-binary @- "$emulator/$2" <<<"$3"
}
create() { # create PATH BODY: what is there already is left as it is
  local answer
  answer=$(call PUT "$1" "$2")
  case $(jq --raw-output '.error.code // 0' <<<"$answer") in
  0 | 409) ;;
  *) fail "the emulator refused $1: $(jq --raw-output .error.message <<<"$answer")" ;;
  esac
}

# The same as terraform/pubsub.tf and dead_letters.tf make, but for the push endpoint and a short
# minimum backoff: nobody wants to wait here.
topic() { printf 'projects/%s/topics/%s' "$project" "$1"; }
for name in $TRIGGERS "$NAME-events" "$NAME-dead-letters"; do create "topics/$name" '{}'; done
for trigger in $TRIGGERS; do
  create "subscriptions/$trigger-$NAME" "$(jq --null-input --arg topic "$(topic "$trigger")" \
    --arg dead "$(topic "$NAME-dead-letters")" --arg endpoint "http://127.0.0.1:$sandbox_port/push" '{
      topic: $topic, ackDeadlineSeconds: 60, messageRetentionDuration: "604800s",
      pushConfig: {pushEndpoint: $endpoint},
      retryPolicy: {minimumBackoff: "1s", maximumBackoff: "600s"},
      deadLetterPolicy: {deadLetterTopic: $dead, maxDeliveryAttempts: 100}}')"
  # An emulator that was there before may know it with the port of another run.
  call POST "subscriptions/$trigger-$NAME:modifyPushConfig" \
    "{\"pushConfig\":{\"pushEndpoint\":\"http://127.0.0.1:$sandbox_port/push\"}}" >/dev/null
done
create "subscriptions/$NAME-dead-letters" "{\"topic\":\"$(topic "$NAME-dead-letters")\",\"ackDeadlineSeconds\":600}"
create "subscriptions/$NAME-events-local" "{\"topic\":\"$(topic "$NAME-events")\"}"

# --- the service and its stand-ins --------------------------------------------------------------

"$target/debug/examples/stand_ins" "127.0.0.1:$sandbox_port" "127.0.0.1:$port" "$work/env" >"$work/stand-ins.log" 2>&1 &
pids+=("$!")
wait_for 60 'the stand-ins did not start' test -s "$work/env"
cat >>"$work/env" <<ENV
PORT=$port
EVENT_BUS_TYPE=pubsub
PUBSUB_EMULATOR_HOST=$PUBSUB_EMULATOR_HOST
GOOGLE_CLOUD_PROJECT=$project
EVENTS_TOPIC=$NAME-events
DEAD_LETTER_TOPIC=$NAME-dead-letters
ACK_DEADLINE_MS=60000
HANDLER_TIMEOUT_MS=50000
MAX_IN_FLIGHT=80
SHUTDOWN_GRACE_MS=9000
PUSH_AUTH_MODE=verify
LOG_FORMAT=json
LOG_LEVEL=${LOG_LEVEL:-info}
K_REVISION=local
ENV
# The last word on a name counts, as for a container.
awk -F= '{name = $1; sub(/^[^=]*=/, ""); value[name] = $0} END {for (name in value) print name "=" value[name]}' "$work/env" >"$work/env.all"
rm "$work/env"

if [[ $docker == yes ]]; then
  container=$(docker run --detach --network=host --read-only --cap-drop=ALL --security-opt=no-new-privileges \
    --env-file="$work/env.all" "$NAME:local")
  docker logs --follow "$container" >"$work/service.log" 2>&1 &
  pids+=("$!")
  say "service: image $NAME:local"
else
  mapfile -t environment <"$work/env.all"
  # Nothing of this shell's own environment, as in production.
  env --ignore-environment "${environment[@]}" "$SERVICE_BIN" serve >"$work/service.log" 2>&1 &
  pids+=("$!")
  say "service: $SERVICE_BIN"
fi
rm "$work/env.all"
# shellcheck disable=SC2329  # called by wait_for
ready() { [[ $(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$port/ready") == 200 ]]; }
wait_for 60 'the service is not ready' ready

# --- a sample -----------------------------------------------------------------------------------

trigger=${TRIGGERS%% *}
id=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen)
# As text, so that the event stays as it is: only its id is new.
old_id=$(jq --raw-output .id "$sample")
event=$(sed "s/$old_id/$id/" "$sample")
publish() {
  call POST "topics/$trigger:publish" "{\"messages\":[{\"data\":\"$(printf '%s' "$event" | base64 | tr -d '\n')\"}]}" >/dev/null
}
line_of() { grep -F "\"event.id\":\"$id\"" "$work/service.log" | grep -F "\"outcome\":\"$1\""; }
# shellcheck disable=SC2329  # called by wait_for
said() { line_of "$1" >/dev/null; }

status=$(curl --silent --output /dev/null --write-out '%{http_code}' --request POST --data '{}' "http://127.0.0.1:$port/push")
[[ $status == 401 ]] || fail "a push without a token was answered $status instead of 401"
say 'a push without a token is refused'
publish
say "published $sample to $trigger"
wait_for 60 'the service did not process the sample' said 'done'
say "processed: $(line_of 'done' | jq --raw-output '"\(.["event.type"]) by \(.["handler.name"]) in \(.duration_ms) ms"')"

pulled=''
# shellcheck disable=SC2329  # called by wait_for
downstream() {
  pulled=$(call POST "subscriptions/$NAME-events-local:pull" '{"maxMessages":10,"returnImmediately":true}' |
    jq --compact-output --arg id "$id" '.receivedMessages[]? | select(.message.attributes | tojson | contains($id))')
  [[ -n $pulled ]]
}
wait_for 60 'no downstream event was published' downstream
call POST "subscriptions/$NAME-events-local:acknowledge" "$(jq --slurp '{ackIds: map(.ackId)}' <<<"$pulled")" >/dev/null
say "published on $NAME-events: $(jq --raw-output '.message.attributes | tojson' <<<"$pulled" | head -1)"
publish
wait_for 60 'the duplicate was not recognised' said duplicate
say 'the same event once more: a duplicate, nothing happened'

if [[ $once == yes ]]; then
  say 'all as it has to be'
  exit 0
fi
cat <<TEXT

The service runs at http://127.0.0.1:$port, its stand-ins at http://127.0.0.1:$sandbox_port. Ctrl-C ends both.

  its log                     tail -f $work/service.log
  publish another event       curl -X POST $emulator/topics/$trigger:publish -d "{\"messages\":[{\"data\":\"\$(base64 < $sample | tr -d '\\n')\"}]}"
  push directly, signed       curl -i -X POST http://127.0.0.1:$sandbox_port/push -d @envelope.json
  what the stand-ins saw      curl http://127.0.0.1:$sandbox_port/journal
  metrics                     curl -H 'Authorization: Bearer dev' http://127.0.0.1:$port/metrics
TEXT
wait "${pids[-1]}"
