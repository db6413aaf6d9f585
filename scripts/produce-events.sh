#!/usr/bin/env bash
# Inserts events of the community into the `events` table, as its services do; to play with.
#
#   DATABASE_URL=postgres://… scripts/produce-events.sh [COUNT] [--rate PER_SECOND] [--users N]
#                                                       [--type TYPE] [--poison PERCENT]
#   DATABASE_URL=sqlite://hookyard.db scripts/produce-events.sh 100
#
# COUNT 100 (0: until interrupted), --rate as fast as it goes, --users 25. Of all types, in the mix
# of a chatty day, unless --type names one. --poison: so many of a hundred do not fit their handler.
# Needs psql or sqlite3, and the tables (`hookyard migrate`, or a service that has been started).
set -euo pipefail
fail() { echo "produce-events: $*" >&2 && exit 1; }

count=100 rate=0 users=25 type='' poison=0
while (($# > 0)); do
  case $1 in
  --rate) rate=${2:?} && shift ;;
  --users) users=${2:?} && shift ;;
  --type) type=${2:?} && shift ;;
  --poison) poison=${2:?} && shift ;;
  -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit ;;
  *[!0-9]* | '') fail "unknown: $1" ;;
  *) count=$1 ;;
  esac
  shift
done
for number in "$rate" "$users" "$poison"; do
  [[ $number =~ ^[0-9]+$ ]] || fail "not a number: $number"
done
((users > 0)) || fail "no events without users: --users 0"
[[ -z $type || $type =~ ^[a-z_.]+$ ]] || fail 'a type is made of lower-case words'

url=${DATABASE_URL:?postgres://… or sqlite://FILE}
case $url in
postgres://* | postgresql://*)
  command -v psql >/dev/null || fail 'needs psql'
  run() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$url" >/dev/null; }
  ;;
sqlite:*)
  command -v sqlite3 >/dev/null || fail 'needs sqlite3'
  file=${url#sqlite:} && file=${file#//} && file=${file%%\?*}
  [[ -f $file ]] || fail "there is no $file; run hookyard migrate"
  run() { sqlite3 -bail -cmd '.timeout 10000' "$file"; }
  ;;
*) fail 'DATABASE_URL is neither postgres://… nor sqlite://FILE' ;;
esac

kinds=(user.message.received user.message.received user.message.received user.message.received
  user.response.recorded conversation.intent_classified user.inquiry.solution_needed
  community.request_needed user.intro_inquiry user.verified solution.research_complete
  intro.completed account_manager.processing.completed)

# Ids are numbers in a UUID's clothes: user 7 is the same user every time.
uuid() { printf '%s-0000-4000-8000-%012x' "$1" "$2"; }

row() {
  local kind=${type:-${kinds[RANDOM % ${#kinds[@]}]}}
  local user intro at payload who
  user=$(uuid 0000a5e4 $((RANDOM % users)))
  intro=$(uuid 00001274 $((RANDOM % 1000)))
  printf -v at '%(%Y-%m-%dT%H:%M:%SZ)T' -1
  who="\"userId\":\"$user\",\"conversationId\":\"conversation-of-${user: -3}\""
  case $kind in
  user.message.received) payload="$who,\"message\":\"Hello\",\"phoneNumber\":\"+15550100\",\"messageId\":\"m-$RANDOM\"" ;;
  user.response.recorded) payload="$who,\"responseType\":\"acceptance\",\"context\":\"intro offer\",\"response\":\"Yes, please\"" ;;
  conversation.intent_classified) payload="$who,\"intent\":\"solution\",\"confidence\":0.93" ;;
  user.inquiry.solution_needed) payload="$who,\"requestDescription\":\"A CRM for five\",\"category\":\"crm\",\"urgency\":\"high\"" ;;
  community.request_needed) payload="\"requestingAgentType\":\"concierge\",\"requestingUserId\":\"$user\",\"question\":\"Which CRM?\",\"expertiseNeeded\":[\"crm\"]" ;;
  user.intro_inquiry) payload="$who,\"introId\":\"$intro\",\"userQuestion\":\"Has she answered?\"" ;;
  user.verified) payload="\"userId\":\"$user\",\"verificationCompletedAt\":\"$at\",\"pocAgentType\":\"concierge\"" ;;
  solution.research_complete) payload="\"workflowId\":\"w-$RANDOM\",\"userId\":\"$user\",\"requestDescription\":\"A CRM\",\"findings\":{\"matchedInnovators\":[]},\"completedAt\":\"$at\"" ;;
  intro.completed) payload="\"introId\":\"$intro\",\"connectorUserId\":\"$user\",\"completedAt\":\"$at\",\"creditsAwarded\":50" ;;
  account_manager.processing.completed) payload="\"userId\":\"$user\",\"processedEvents\":12,\"urgentItems\":1,\"prioritiesUpdated\":3,\"tasksCreated\":2,\"completedAt\":\"$at\"" ;;
  community.response_received) fail 'an answer needs a request; send examples/events/community/response_received.json' ;;
  *) payload="$who" ;;
  esac
  if ((RANDOM % 100 < poison)); then
    payload='"userId":"nobody"'
  fi
  printf "('%s','%s','user','{%s}','produce-events')" "$kind" "$user" "$payload"
}

made=0
while ((count == 0 || made < count)); do
  # A tenth of a second's worth at once, or a good handful.
  batch=$((rate > 0 ? (rate + 9) / 10 : 200))
  if ((count > 0 && batch > count - made)); then batch=$((count - made)); fi
  {
    echo 'INSERT INTO events (event_type, aggregate_id, aggregate_type, payload, created_by) VALUES'
    for ((i = 0; i < batch; i++)); do
      row
      if ((i < batch - 1)); then echo ','; else echo ';'; fi
    done
  } | run
  made=$((made + batch))
  if ((rate > 0)); then sleep "$(printf '0.%03d' $((batch * 1000 / rate > 999 ? 999 : batch * 1000 / rate)))"; fi
done
echo "$made events" >&2
