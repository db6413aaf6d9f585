#!/usr/bin/env bash
# Builds the image into the local engine, with the layers of the last build as cache.
#   PROJECT_ID, REGION, NAME   where the image will live
#   COMMIT_SHA                 revision baked into it (default: git's HEAD)
#   SOURCE                     address of the repository, for the label (optional)
# By hand: PROJECT_ID=… REGION=… NAME=hookyard scripts/cloudbuild/build-image.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need PROJECT_ID REGION NAME
need_tools docker
COMMIT_SHA=${COMMIT_SHA:-$(git -C "$ROOT" rev-parse HEAD)}
repository=$REGION-docker.pkg.dev/$PROJECT_ID/$NAME
image=$repository/$NAME:$COMMIT_SHA
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -1)

# A builder of its own: the default one cannot write a cache to a registry.
docker buildx inspect hookyard >/dev/null 2>&1 ||
  docker buildx create --name hookyard --driver docker-container >/dev/null
docker buildx build \
  --builder hookyard \
  --cache-from "type=registry,ref=$repository/cache:latest" \
  --cache-to "type=registry,ref=$repository/cache:latest,mode=max,ignore-error=true" \
  --build-arg "REVISION=$COMMIT_SHA" \
  --build-arg "VERSION=$version" \
  --build-arg "SOURCE=${SOURCE:-unknown}" \
  --build-arg "CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
  --tag "$image" --load "$ROOT"
keep image "$image"
printf '%s\n' "$image"
