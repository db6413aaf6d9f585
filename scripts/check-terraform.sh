#!/usr/bin/env bash
# Checks terraform/: format, rules of this repository, and, where the Google provider can be had,
# `terraform validate` and `terraform test` (which uses a mock of it, no cloud).
#
# REQUIRE_PROVIDER=1 makes it a failure when the provider cannot be had.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

failures=0 skipped=0
ok() { printf '  ok    %s\n' "$*"; }
bad() {
  printf '  FAIL  %s\n' "$*"
  failures=$((failures + 1))
}
skip() {
  if [[ ${REQUIRE_PROVIDER:-} == 1 ]]; then
    bad "$*"
  else
    printf '  SKIP  %s\n' "$*"
    skipped=$((skipped + 1))
  fi
}
# none WHAT PATTERN: nothing in the configuration matches.
none() {
  local found
  found=$(grep -rnE --include='*.tf' --exclude-dir=.terraform "$2" terraform | grep -vE '^[^:]+:[0-9]+:[[:space:]]*(#|error_message|description)')
  if [[ -z $found ]]; then ok "$1"; else
    printf '%s\n' "$found"
    bad "$1"
  fi
}

none 'nobody is let in without a name' '"(allUsers|allAuthenticatedUsers)"'
none 'no secret value goes through Terraform' 'resource "(google_secret_manager_secret_version|google_service_account_key|google_sql_user|random_password)"'
none 'no role that can do everything' '"roles/(owner|editor)"'
none 'no role for a list of members, which would throw others out' 'resource "google_[a-z_]+_iam_(binding|policy)"'

# Every variable is described, and validated unless there is nothing to it (bool), and every output
# is described.
lacking=$(find terraform -name '*.tf' -not -path '*/.terraform/*' -exec awk '
  /^(variable|output) "/ { kind = $1; name = $2; described = validated = is_bool = 0 }
  kind && /^  description[ ]*=/ { described = 1 }
  kind && /^  validation \{/ { validated = 1 }
  kind && /^  type[ ]*=[ ]*bool/ { is_bool = 1 }
  kind && /^}/ {
    if (!described) print FILENAME ": " kind " " name " has no description"
    # Maps of labels and substitutions are checked; a plain bool cannot be wrong.
    if (kind == "variable" && !validated && !is_bool) print FILENAME ": variable " name " has no validation"
    kind = ""
  }' {} +)
if [[ -z $lacking ]]; then ok 'variables are described and validated, outputs described'; else
  printf '%s\n' "$lacking"
  bad 'variables are described and validated, outputs described'
fi

# Both folders have to mean the same by the same name.
for variable in project_id region name; do
  if diff <(sed -n "/^variable \"$variable\"/,/^}/p" terraform/variables.tf | grep -E 'condition|default|type ') \
    <(sed -n "/^variable \"$variable\"/,/^}/p" terraform/bootstrap/variables.tf | grep -E 'condition|default|type ') >/dev/null; then
    ok "both folders take the same $variable"
  else
    bad "both folders take the same $variable"
  fi
done

if ! command -v terraform >/dev/null; then
  skip 'terraform is not installed: format, validate and test were not run'
else
  export TF_IN_AUTOMATION=1 TF_INPUT=0 CHECKPOINT_DISABLE=1
  if terraform fmt -check -diff -recursive terraform; then ok 'terraform fmt'; else bad 'terraform fmt'; fi

  # In a copy: init leaves files behind, and its lock must not depend on this machine.
  copy=$(mktemp -d "${TMPDIR:-/tmp}/check-terraform.XXXXXX")
  trap 'rm -rf "$copy"' EXIT
  cp -r terraform docs "$copy"
  for folder in terraform terraform/bootstrap; do
    cd "$copy/$folder" || exit 1
    if ! timeout 180 terraform init -backend=false -no-color >"$copy/init.log" 2>&1; then
      if grep -qiE 'could not (query|retrieve|connect)|failed to (query|install|retrieve)|connection|lookup|timeout' "$copy/init.log" || [[ ! -s $copy/init.log ]]; then
        skip "$folder: validate and test, the Google provider cannot be fetched here"
      else
        cat "$copy/init.log"
        bad "$folder: terraform init"
      fi
    else
      if terraform validate -no-color >"$copy/log" 2>&1; then ok "$folder: validate"; else
        cat "$copy/log"
        bad "$folder: validate"
      fi
      if terraform test -no-color >"$copy/log" 2>&1; then ok "$folder: test, $(tail -1 "$copy/log")"; else
        cat "$copy/log"
        bad "$folder: test"
      fi
    fi
    cd - >/dev/null || exit 1
  done
fi

printf '\nterraform: %d failed, %d skipped\n' "$failures" "$skipped"
((failures == 0))
