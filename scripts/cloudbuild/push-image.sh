#!/usr/bin/env bash
# Pushes the image and keeps its digest, by which everything after this names it.
#   IMAGE   default: what build-image.sh built
# By hand: scripts/cloudbuild/push-image.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_tools docker
IMAGE=${IMAGE:-$(kept image)}
need IMAGE
docker push "$IMAGE" >&2
digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$IMAGE" |
  grep "^${IMAGE%:*}@sha256:" | head -1)
[[ $digest =~ @sha256:[0-9a-f]{64}$ ]] || fail "no digest for $IMAGE"
keep digest "$digest"
printf '%s\n' "$digest"
