#!/usr/bin/env bash
# Sends dead letters back to the topic they came from, with their original bytes and attributes.
# A letter is acknowledged only after its copy was published; one that fails again comes back as a
# new dead letter.
#
#   PROJECT_ID=… scripts/redrive.sh --list [--limit N]
#   PROJECT_ID=… scripts/redrive.sh --topic contract-events [--limit N] [--only CODE] [--yes]
#
# --only CODE   letters with this hookyard-error-code; Pub/Sub's own have `max-delivery-attempts`
# NAME (default hookyard) is the prefix, as in Terraform. gcloud and jq are all it needs; against the
# emulator set CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB=http://localhost:8085/.
. "$(dirname "${BASH_SOURCE[0]}")/cloudbuild/lib.sh"

need PROJECT_ID
need_tools gcloud jq
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
    --ack-deadline=0 --ack-ids="$(jq --slurp --raw-output 'map(.ackId) | join(",")' <<<"$letters")" >/dev/null
  exit 0
fi
if [[ $yes != yes ]]; then
  read -rp "send these to $topic? [y/N] " answer
  [[ $answer == y ]] || fail 'nothing was sent'
fi

sent=0 left=0
while IFS= read -r letter; do
  if jq --exit-status '.message.attributes["hookyard-part"]' <<<"$letter" >/dev/null; then
    say "left: $(jq --raw-output '.message.messageId' <<<"$letter") is a part of a letter, join the parts by hand"
    left=$((left + 1))
    continue
  fi
  # Another separator than the comma, which may be in a value: one that is in none.
  attributes=$(jq --raw-output '(.message.attributes // {}) | to_entries
    | map(select(.key | startswith("CloudPubSubDeadLetter") | not) | "\(.key)=\(.value)") | join("\u001f")' <<<"$letter")
  arguments=()
  if [[ -n $attributes ]]; then arguments+=("--attribute=^"$'\x1f'"^$attributes"); fi
  key=$(jq --raw-output '.message.orderingKey // empty' <<<"$letter")
  if [[ -n $key ]]; then arguments+=("--ordering-key=$key"); fi
  if ! jq --exit-status '.message.data | @base64d | contains("\ufffd") | not' <<<"$letter" >/dev/null; then
    say "left: $(jq --raw-output '.message.messageId' <<<"$letter") is no text, gcloud cannot publish it unchanged"
    left=$((left + 1))
    continue
  fi
  # The x keeps the newlines at the end, which $(…) would drop.
  data=$(jq --join-output '.message.data | @base64d' <<<"$letter" && printf x)
  if gcloud pubsub topics publish "$topic" --project="$PROJECT_ID" "${arguments[@]}" --message="${data%x}" >/dev/null &&
    gcloud pubsub subscriptions ack "$subscription" --project="$PROJECT_ID" \
      --ack-ids="$(jq --raw-output .ackId <<<"$letter")" >/dev/null; then
    sent=$((sent + 1))
  else
    left=$((left + 1))
  fi
done <<<"$letters"
say "$sent sent to $topic, $left left"
((left == 0))
