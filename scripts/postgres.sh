# shellcheck shell=bash
# A private PostgreSQL cluster, for scripts that source this file.

postgres_folder="" postgres_programs="" postgres_as=() postgres_url=""

# Prints a port of the loopback that nobody listens on.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 12000))
        if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    return 1
}

# Prints the folder of PostgreSQL's server programs, which distributions keep out of PATH.
find_postgres() {
    local folder program
    for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
        /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ]; then
            program="$folder"
        fi
    done
    if [ -n "${program:-}" ]; then
        echo "$program"
    elif command -v initdb >/dev/null 2>&1 && command -v pg_ctl >/dev/null 2>&1; then
        dirname "$(readlink -f "$(command -v initdb)")"
    else
        return 1
    fi
}

# Starts a cluster of our own, on a free port of the loopback, and sets `postgres_url`; it is gone
# after `stop_postgres`.
start_postgres() { # log options...
    local port log="$1"
    shift
    postgres_programs=$(find_postgres) || return 1
    postgres_folder=$(mktemp -d "${TMPDIR:-/tmp}/hookyard-postgres.XXXXXX") || return 1
    postgres_as=()
    if [ "$(id -u)" -eq 0 ]; then # which PostgreSQL refuses to run as
        local user=nobody
        id postgres >/dev/null 2>&1 && user=postgres
        chown "$user" "$postgres_folder" || return 1
        postgres_as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
    fi
    (
        cd "$postgres_folder" &&
            "${postgres_as[@]}" "$postgres_programs/initdb" -D "$postgres_folder/data" -U postgres \
                --auth=trust --encoding=UTF8 --locale=C --no-sync
    ) >"$log" 2>&1 || return 1
    for _ in 1 2 3; do # somebody else may take the port first
        port=$(free_port) || return 1
        if (
            cd "$postgres_folder" &&
                "${postgres_as[@]}" "$postgres_programs/pg_ctl" start -w -t 120 \
                    -D "$postgres_folder/data" -l "$postgres_folder/log" \
                    -o "-c listen_addresses=127.0.0.1 -p $port \
                        -c unix_socket_directories=$postgres_folder $*"
        ) >>"$log" 2>&1; then
            # Whoever sources this file reads it.
            # shellcheck disable=SC2034
            postgres_url="postgres://postgres@127.0.0.1:$port/postgres"
            return
        fi
    done
    return 1
}

stop_postgres() {
    [ -n "$postgres_folder" ] || return 0
    if [ -f "$postgres_folder/data/postmaster.pid" ]; then
        (cd "$postgres_folder" && "${postgres_as[@]}" "$postgres_programs/pg_ctl" stop -m immediate \
            -D "$postgres_folder/data") >/dev/null 2>&1
    fi
    rm -rf "$postgres_folder"
}
