#!/usr/bin/env bash
# Besieges the service: several processes on one database, killed, put to sleep and cut off while
# they work among unreliable neighbours; says for each seed whether anything was lost or done twice.
#
#   scripts/chaos.sh [SEEDS] [EVENTS]
#
# SEEDS is a number (20: seeds 1 to 20) or a list (7,12 or 7,); EVENTS are sent with each of them (5000).
# Every seed runs on SQLite, in a temporary folder, and on a private PostgreSQL cluster.
# INSTANCES (3) and KILLS (15) are how many services there are and how often one is struck;
# DATABASES (sqlite,postgres) picks one. Exit code 1 if any seed failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. scripts/postgres.sh

fail() { echo "chaos.sh: $*" >&2 && exit 2; }
wanted=${1:-20} events=${2:-5000}
instances=${INSTANCES:-3} kills=${KILLS:-15} databases=${DATABASES:-sqlite,postgres}
case $wanted in
*[!0-9,]* | '') fail "SEEDS is a number or a list such as 7,12" ;;
*,*) IFS=, read -ra seeds <<<"$wanted" ;;
*) mapfile -t seeds < <(seq "$wanted") ;;
esac
case $events in *[!0-9]* | '') fail "EVENTS is a number" ;; esac
IFS=, read -ra databases <<<"$databases"
for database in "${databases[@]}"; do
    case $database in sqlite | postgres) ;; *) fail "unknown database: $database" ;; esac
done

cargo build --locked --bin hookyard || fail "it does not build"
target=${CARGO_TARGET_DIR:-target}
# All services of this run are this program, whatever is built meanwhile.
folder=$(mktemp -d "${TMPDIR:-/tmp}/hookyard-chaos.XXXXXX") || fail "no temporary folder"
logs="$target/chaos-logs"
mkdir -p "$logs"
cp "$target/debug/hookyard" "$folder/hookyard" || fail "there is no program to run"

failed=() siege_pid=""
stop_all() {
    [ -z "$siege_pid" ] || kill "$siege_pid" 2>/dev/null
    # A failed seed's SQLite file and database are worth a look; the program can be built again.
    rm -f "$folder/hookyard"
    rmdir "$folder" 2>/dev/null || echo "left for a look: $folder"
    stop_postgres
}
trap stop_all EXIT
trap 'exit 130' INT TERM

for database in "${databases[@]}"; do
    if [ "$database" = postgres ]; then
        # Nothing here has to outlive a power cut: it is the services that are killed.
        start_postgres "$logs/postgres.log" -c max_connections=200 -c shared_buffers=256MB \
            -c fsync=off -c full_page_writes=off || fail "no PostgreSQL, see $logs/postgres.log"
        url=$postgres_url
    else
        url="sqlite://$folder/siege.db"
    fi
    for seed in "${seeds[@]}"; do
        log="$logs/$database-$seed.log"
        siege=(dev --chaos --events "$events" --seed "$seed" --instances "$instances" --kills "$kills")
        started=$SECONDS
        NO_COLOR=1 timeout --kill-after=10 600 "$folder/hookyard" "${siege[@]}" --database "$url" \
            >"$log" 2>&1 </dev/null &
        siege_pid=$!
        wait "$siege_pid"
        code=$? siege_pid=""
        took=$((SECONDS - started))
        if [ "$code" -eq 0 ]; then
            printf '%-8s  seed %3d  %4d s  clean\n' "$database" "$seed" "$took"
            continue
        fi
        failed+=("$database seed $seed")
        broken=$(sed -n 's/^BROKEN *//p' "$log" | paste -sd ';' -)
        printf '%-8s  seed %3d  %4d s  FAILED: %s; see %s\n' "$database" "$seed" "$took" \
            "${broken:-exit code $code}" "$log"
        printf '  again: DATABASES=%s INSTANCES=%s KILLS=%s scripts/chaos.sh %s, %s\n' \
            "$database" "$instances" "$kills" "$seed" "$events"
    done
done

all=$((${#seeds[@]} * ${#databases[@]}))
echo "$((all - ${#failed[@]})) of $all clean, $events events each, $instances services, $kills kills"
[ "${#failed[@]}" -eq 0 ]
