#!/usr/bin/env bash
# Sends dead letters back to the topic they came from, with their original bytes and attributes.
# A letter is acknowledged only after its copy was published; one that fails again comes back as a
# new dead letter.
#
#   PROJECT_ID=… scripts/redrive.sh --list [--limit N]
#   PROJECT_ID=… scripts/redrive.sh --topic contract-events [--limit N] [--only CODE] [--yes]
#
# --only CODE   letters with this hookyard-error-code; Pub/Sub's own have `max-delivery-attempts`
# A letter in parts (`hookyard-part`) is left: join its parts first, docs/RUNBOOK.md.
# NAME (default hookyard) is the prefix, as in Terraform. Against the emulator set
# CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB=http://localhost:8085/.
. "$(dirname "${BASH_SOURCE[0]}")/cloudbuild/lib.sh"

need PROJECT_ID
need_tools gcloud jq curl
NAME=${NAME:-hookyard}
topic='' limit=100 only='' list=no yes=no
while (($# > 0)); do
  case $1 in
  --topic) topic=${2:?} && shift ;;
  --limit) limit=${2:?} && shift ;;
  --only) only=${2:?} && shift ;;
  --list) list=yes ;;
  --yes) yes=yes ;;
  *) fail "unknown: $1" ;;
  esac
  shift
done
[[ $list == yes || -n $topic ]] || fail '--topic: where the events came from (or --list)'
subscription=$NAME-dead-letters

# Payloads stay in variables: they are row data and have no business on a disk.
letters=$(gcloud pubsub subscriptions pull "$subscription" --project="$PROJECT_ID" --limit="$limit" --format=json |
  jq --compact-output --arg only "$only" '.[] | . + {code:
      (.message.attributes["hookyard-error-code"]
       // (if .message.attributes.CloudPubSubDeadLetterSourceSubscription then "max-delivery-attempts" else "unknown" end))}
    | select($only == "" or .code == $only)
    # gcloud writes base64 in its URL-safe alphabet.
    | .message.data |= ((. // "") | gsub("-"; "+") | gsub("_"; "/"))')
if [[ -z $letters ]]; then
  say 'no dead letters (one that was pulled a short while ago shows up again after 10 minutes)'
  exit 0
fi
printf '%s\n' "$letters" | jq --raw-output '[
    .message.attributes["hookyard-last-time"] // .message.publishTime, .code,
    .message.attributes["hookyard-event-type"] // "-", .message.attributes["hookyard-event-id"] // .message.messageId,
    .message.attributes["hookyard-reason"] // "given up by Pub/Sub"] | @tsv'
if [[ $list == yes ]]; then
  # They were only looked at: given back at once.
  gcloud pubsub subscriptions modify-message-ack-deadline "$subscription" --project="$PROJECT_ID" \
    --ack-deadline=0 --ack-ids="$(printf '%s\n' "$letters" | jq --slurp --raw-output 'map(.ackId) | join(",")')" >/dev/null 2>&1
  exit 0
fi
if [[ $yes != yes ]]; then
  read -rp "send these to $topic? [y/N] " answer
  [[ $answer == y ]] || fail 'nothing was sent'
fi

# gcloud takes a message as an argument: as text, and of at most 128 kB. The bytes stay as they are
# when they go from one answer into the next request.
endpoint=${CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB:-https://pubsub.googleapis.com/}
header=''
if [[ $endpoint == https:* ]]; then header="Authorization: Bearer $(gcloud auth print-access-token)"; fi
if [[ $topic != projects/* ]]; then topic=projects/$PROJECT_ID/topics/$topic; fi
publish() {
  curl --silent --show-error --fail --max-time 60 --output /dev/null --header @<(printf '%s\n' "$header") \
    --header 'Content-Type: application/json' --data-binary @- "${endpoint%/}/v1/$topic:publish"
}

sent=0 left=0
while IFS= read -r letter; do
  id=$(printf '%s' "$letter" | jq --raw-output .message.messageId)
  if printf '%s' "$letter" | jq --exit-status '.message.attributes["hookyard-part"]' >/dev/null; then
    say "left: $id is one part of a letter"
    left=$((left + 1))
    continue
  fi
  if printf '%s' "$letter" | jq '{messages: [.message
      | {data, attributes: ((.attributes // {}) | with_entries(select(.key | startswith("CloudPubSubDeadLetter") | not)))}
        + (if .orderingKey then {orderingKey} else {} end)]}' | publish &&
    gcloud pubsub subscriptions ack "$subscription" --project="$PROJECT_ID" \
      --ack-ids="$(printf '%s' "$letter" | jq --raw-output .ackId)" >/dev/null 2>&1; then
    sent=$((sent + 1))
  else
    say "left: $id was not published, or not acknowledged"
    left=$((left + 1))
  fi
done < <(printf '%s\n' "$letters")
say "$sent sent to $topic, $left left"
((left == 0))
