#!/usr/bin/env bash
# Looks for known vulnerabilities in the image before it is pushed anywhere.
#   PROJECT_ID, REGION   where the scan is billed and runs
#   IMAGE                default: what build-image.sh built
#   SCAN_FAIL_ON         severities that end the deployment (default CRITICAL,HIGH)
#   SCAN_LOCATION        asia, europe or us (default: of the region)
# By hand: PROJECT_ID=… REGION=… scripts/cloudbuild/scan-image.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need PROJECT_ID REGION
need_tools gcloud
IMAGE=${IMAGE:-$(kept image)}
need IMAGE
fail_on=${SCAN_FAIL_ON:-CRITICAL,HIGH}
case $REGION in
europe-*) location=europe ;;
asia-* | australia-*) location=asia ;;
*) location=us ;;
esac

say "scanning $IMAGE"
scan=$(gcloud artifacts docker images scan "$IMAGE" --project="$PROJECT_ID" \
  --location="${SCAN_LOCATION:-$location}" --format='value(response.scan)')
[[ -n $scan ]] || fail 'the scan has no result'
# gcloud answers with the severities, one a line.
found=$(gcloud artifacts docker images list-vulnerabilities "$scan" --project="$PROJECT_ID" \
  --location="${SCAN_LOCATION:-$location}" --format='value(vulnerability.effectiveSeverity)')
printf '%s\n' "$found" | sed '/^$/d' | sort | uniq -c >&2
if printf '%s\n' "$found" | grep -qxE "${fail_on//,/|}"; then
  gcloud artifacts docker images list-vulnerabilities "$scan" --project="$PROJECT_ID" \
    --location="${SCAN_LOCATION:-$location}" \
    --format='table(vulnerability.shortDescription,vulnerability.effectiveSeverity,vulnerability.packageIssue.affectedPackage.list(),vulnerability.packageIssue.fixedVersion.fullName.list())' >&2
  fail "vulnerabilities of severity $fail_on"
fi
