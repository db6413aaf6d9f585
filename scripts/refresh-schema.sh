#!/usr/bin/env bash
# Refreshes graphql/schema.graphql from a live Hasura, by introspection.
#
# Usage: HASURA_GRAPHQL_URL=… HASURA_ADMIN_SECRET=… scripts/refresh-schema.sh [options]
#   --check          change nothing; exit 2 when the file differs or an operation does not fit
#   --force          replace the file even when an operation no longer fits
#   --folder FOLDER  another folder than graphql/
#
# The operations beside the schema are checked against the new one first: the service is compiled
# against this file, and would no longer build. Set HOOKYARD to use a binary that is built already.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$repository/graphql
check=false
force=false
while [ $# -gt 0 ]; do
  case $1 in
    --check) check=true ;;
    --force) force=true ;;
    --folder)
      folder=${2:?--folder needs a folder}
      shift
      ;;
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *)
      echo "unknown option: $1 (try --help)" >&2
      exit 1
      ;;
  esac
  shift
done

hookyard() {
  if [ -n "${HOOKYARD:-}" ]; then
    "$HOOKYARD" "$@"
  else
    cargo run --quiet --locked --manifest-path "$repository/Cargo.toml" -- "$@"
  fi
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
hookyard hasura schema --output "$new"

fits=0
hookyard hasura operations --operations "$folder" --schema "$new" || fits=$?
[ "$fits" -eq 0 ] || [ "$fits" -eq 2 ] || exit "$fits"

same=true
cmp -s "$new" "$folder/schema.graphql" || same=false
if $check; then
  $same || {
    echo "$folder/schema.graphql differs from the live schema:"
    diff -u "$folder/schema.graphql" "$new" | head -n 100 || true
  }
  $same && [ "$fits" -eq 0 ] || exit 2
  echo "the schema is up to date"
elif [ "$fits" -ne 0 ] && ! $force; then
  echo "not replaced: mend the operations above first, or give --force" >&2
  exit 2
elif $same; then
  echo "the schema is up to date"
else
  cat "$new" >"$folder/schema.graphql"
  echo "$folder/schema.graphql replaced; look at it with git diff"
fi
