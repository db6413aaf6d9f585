#!/usr/bin/env bash
# Prepares what is missing, then runs every check and every test.
#
# Works from any folder and asks nothing. What cannot be had is skipped and said so at the end;
# with CI=true a skip is a failure. NO_INSTALL=1 keeps it from installing packages.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exec </dev/null

target="${CARGO_TARGET_DIR:-target}"
logs="$target/test-logs"
mkdir -p "$logs"
ci="${CI:-false}"
names=() states=() notes=()
passed=0 failed=0 skipped=0
emulator_pid="" emulator_container=""

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' yellow=$'\e[33m' red=$'\e[31m' plain=$'\e[0m'
else
    bold="" green="" yellow="" red="" plain=""
    export CARGO_TERM_COLOR=never NO_COLOR=1
fi

. scripts/postgres.sh

has() { command -v "$1" >/dev/null 2>&1; }

record() { # name state note
    names+=("$1") states+=("$2") notes+=("$3")
}

skip() { # name why
    printf '%s-- %s: skipped, %s%s\n' "$yellow" "$1" "$2" "$plain"
    if [ "$ci" = true ]; then
        record "$1" failed "would be skipped: $2"
        failed=$((failed + 1))
    else
        record "$1" skipped "$2"
        skipped=$((skipped + 1))
    fi
}

# Runs one step, keeps its output, and counts it as one check unless it counted tests itself.
step() { # name command...
    local name="$1" log started took code
    shift
    log="$logs/${name//[^a-z0-9]/-}.log"
    printf '\n%s-- %s%s\n' "$bold" "$name" "$plain"
    started=$SECONDS
    "$@" 2>&1 | tee "$log"
    code=${PIPESTATUS[0]}
    took=$((SECONDS - started))
    local counted
    counted=$(count_tests "$log")
    if [ -n "$counted" ]; then
        local p f s
        read -r p f s <<<"$counted"
        if [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        note="$p passed, $f failed, $s skipped, $took s"
    else
        if [ "$code" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
        note="$took s"
    fi
    if [ "$code" -eq 0 ]; then
        record "$name" passed "$note"
    else
        record "$name" failed "$note, exit code $code, see $log"
    fi
    return "$code"
}

# Prints "passed failed skipped" when the log is a test runner's.
count_tests() { # log
    sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
        # cargo test: test result: ok. 3 passed; 0 failed; 1 ignored; ...
        /^test result: / {
            seen = 1
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed;?$/) p += $(i - 1)
                if ($i ~ /^failed;?$/) f += $(i - 1)
                if ($i ~ /^ignored;?$/) s += $(i - 1)
            }
        }
        # nextest: Summary [ 3.2s] 5 tests run: 4 passed (1 slow), 1 failed, 2 skipped
        /^ *Summary \[/ {
            seen = 1
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) p += $(i - 1)
                if ($i ~ /^(failed|timed)/) f += $(i - 1)
                if ($i ~ /^skipped/) s += $(i - 1)
            }
        }
        END { if (seen) print p + 0, f + 0, s + 0 }'
}

wait_for() { # host:port seconds [pid of who shall listen there]
    for _ in $(seq $(($2 * 5))); do
        if [ -n "${3:-}" ] && ! kill -0 "$3" 2>/dev/null; then return 1; fi
        if (: <"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; then return 0; fi
        sleep 0.2
    done
    return 1
}

# Installs packages of the system's own sources, if that needs no question to be asked.
install() { # packages...
    local root=()
    [ "${NO_INSTALL:-}" = 1 ] && return 1
    has apt-get || return 1
    if [ "$(id -u)" -ne 0 ]; then
        has sudo && sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    local package
    for package in "$@"; do
        if [ -z "$(apt-cache madison "$package" 2>/dev/null)" ]; then
            timeout 120 "${root[@]}" apt-get -qq update >/dev/null 2>&1
            [ -n "$(apt-cache madison "$package" 2>/dev/null)" ] || return 1
        fi
    done
    echo "installing $*"
    timeout 600 "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

find_emulator() {
    local root inside=platform/pubsub-emulator/bin/cloud-pubsub-emulator
    for root in /usr/lib/google-cloud-sdk /usr/share/google-cloud-sdk /opt/google-cloud-sdk \
        "$HOME/google-cloud-sdk"; do
        if [ -f "$root/$inside" ]; then
            echo "$root/$inside"
            return
        fi
    done
    if has cloud-pubsub-emulator; then
        command -v cloud-pubsub-emulator
        return
    fi
    if has gcloud; then
        root=$(timeout 30 gcloud info --format='value(installation.sdk_root)' 2>/dev/null)
        if [ -f "$root/$inside" ]; then
            echo "$root/$inside"
            return
        fi
    fi
    return 1
}

start_emulator() {
    local program port iam_port image
    if [ -n "${PUBSUB_EMULATOR_HOST:-}" ]; then
        wait_for "$PUBSUB_EMULATOR_HOST" 30 && return 0
        echo "nothing answers at PUBSUB_EMULATOR_HOST"
        unset PUBSUB_EMULATOR_HOST
    fi
    if ! find_emulator >/dev/null; then
        install google-cloud-cli-pubsub-emulator
    fi
    if program=$(find_emulator); then
        has java || install default-jre-headless
        if has java; then
            for _ in 1 2 3; do # somebody else may take a port first
                port=$(free_port) && iam_port=$(free_port) || return 1
                "$program" --host=127.0.0.1 --port="$port" --iam_port="$iam_port" \
                    >"$logs/emulator.log" 2>&1 &
                emulator_pid=$!
                if wait_for "127.0.0.1:$port" 120 "$emulator_pid"; then
                    export PUBSUB_EMULATOR_HOST="127.0.0.1:$port"
                    return 0
                fi
                kill "$emulator_pid" 2>/dev/null
            done
            echo "the emulator did not start, see $logs/emulator.log"
        else
            echo "the emulator needs a Java runtime (default-jre-headless)"
        fi
    fi
    if has docker && timeout 10 docker info >/dev/null 2>&1; then
        image=gcr.io/google.com/cloudsdktool/google-cloud-cli:emulators
        port=$(free_port) || return 1
        emulator_container=$(timeout 300 docker run --rm --detach --publish "127.0.0.1:$port:8085" \
            "$image" gcloud beta emulators pubsub start --host-port=0.0.0.0:8085 2>/dev/null)
        if [ -n "$emulator_container" ] && wait_for "127.0.0.1:$port" 60; then
            sleep 5 # Docker's port is open before the emulator's
            export PUBSUB_EMULATOR_HOST="127.0.0.1:$port"
            return 0
        fi
    fi
    return 1
}

stop_emulator() {
    if [ -n "$emulator_pid" ]; then kill "$emulator_pid" 2>/dev/null; fi
    if [ -n "$emulator_container" ]; then docker stop "$emulator_container" >/dev/null 2>&1; fi
}

# Nothing in the tests' cluster has to outlive a power cut, so it does not wait for the disk.
tests_postgres() {
    [ -n "${TEST_POSTGRES_URL:-}" ] && return 0
    find_postgres >/dev/null || install postgresql
    start_postgres "$logs/postgres.log" -c max_connections=300 -c shared_buffers=256MB \
        -c fsync=off -c synchronous_commit=on -c full_page_writes=off || return 1
    export TEST_POSTGRES_URL="$postgres_url"
}

stop_all() {
    stop_emulator
    stop_postgres
}
trap stop_all EXIT
trap 'exit 130' INT TERM

component() { # name
    cargo "$1" --version >/dev/null 2>&1 ||
        { has rustup && rustup component add "${2:-$1}" >/dev/null 2>&1; }
}

# -- prepare

if ! has cargo; then
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
fi
if ! has cargo; then
    echo "cargo is not installed: see https://rustup.rs" >&2
    exit 1
fi
if ! has cc && ! has gcc && ! has clang && ! install gcc libc6-dev; then
    echo "no C compiler, which the crypto library needs: install gcc or clang" >&2
    exit 1
fi

printf '%s-- Pub/Sub emulator%s\n' "$bold" "$plain"
if start_emulator; then
    echo "at $PUBSUB_EMULATOR_HOST"
    record "Pub/Sub emulator" passed "at $PUBSUB_EMULATOR_HOST"
else
    skip "Pub/Sub emulator" "none found and none could be installed; see docs/CONTRIBUTING.md"
fi

printf '%s-- PostgreSQL%s\n' "$bold" "$plain"
if tests_postgres; then
    echo "at $TEST_POSTGRES_URL"
    record "PostgreSQL" passed "at $TEST_POSTGRES_URL"
else
    skip "PostgreSQL" "it could not be had, see $logs/postgres.log and docs/CONTRIBUTING.md"
fi

# -- check

if component fmt rustfmt; then
    step "format" cargo fmt --check
else
    skip "format" "rustfmt is not installed"
fi
if component clippy; then
    step "lints" cargo clippy --all-targets --locked -- -D warnings
    step "lints without the sandbox" \
        cargo clippy --all-targets --locked --no-default-features -- -D warnings
else
    skip "lints" "clippy is not installed"
fi
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
if cargo deny --version >/dev/null 2>&1; then
    # Without advisories, which are fetched from a place that need not be reachable.
    step "dependencies" cargo deny --offline check --config .deny.toml bans licenses sources
fi

step "deployment" scripts/check-deployment.sh
if has python3; then step "push simulation" python3 scripts/simulate-push.py --check; else skip "push simulation" "python3 is not installed"; fi

# -- test

if cargo nextest --version >/dev/null 2>&1; then
    step "tests" cargo nextest run --locked --no-fail-fast
else
    step "tests" cargo test --locked --no-fail-fast --lib --bins --tests
fi
step "examples in the documentation" cargo test --locked --doc
step "build" cargo build --locked --bins --examples

# -- try

hookyard="$target/debug/hookyard"
if [ -x "$hookyard" ]; then
    pusher=(env -u PUBSUB_EMULATOR_HOST)
    step "dev, once" "${pusher[@]}" timeout 120 "$hookyard" dev --once
    step "dev, chaos" "${pusher[@]}" timeout 300 "$hookyard" dev --chaos --events 200 --seed 1
    siege=(timeout 300 "$hookyard" dev --chaos --events 600 --seed 1 --instances 3 --kills 8)
    step "dev, siege on SQLite" "${siege[@]}" --database "sqlite://$target/siege.db"
    if [ -n "${TEST_POSTGRES_URL:-}" ]; then
        step "dev, siege on PostgreSQL" "${siege[@]}" --database "$TEST_POSTGRES_URL"
    fi
    if [ -n "${PUBSUB_EMULATOR_HOST:-}" ]; then
        step "dev, once, with the emulator" timeout 120 "$hookyard" dev --once
    fi
else
    skip "dev" "there is no binary"
fi

if [ -n "${PUBSUB_EMULATOR_HOST:-}" ] && [ -x "$hookyard" ] && has jq; then
    step "local deployment" timeout 300 env SERVICE_BIN="$hookyard" scripts/deploy-local.sh --once
else
    skip "local deployment" "it needs the emulator and jq"
fi
# Two release builds: for the build server, and for who asks.
if [ "$ci" = true ] || [ "${CHECK_IMAGE:-}" = 1 ]; then
    step "image" scripts/check-image.sh
fi

# -- tell

printf '\n%sSummary%s\n' "$bold" "$plain"
for i in "${!names[@]}"; do
    case "${states[$i]}" in
    passed) ink=$green ;;
    skipped) ink=$yellow ;;
    *) ink=$red ;;
    esac
    printf '  %-30s %s%-8s%s %s\n' "${names[$i]}" "$ink" "${states[$i]}" "$plain" "${notes[$i]}"
done
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
