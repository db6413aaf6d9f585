# syntax=docker/dockerfile:1.7
# Builds for the platform it runs on: amd64 and arm64 need no difference.
# `scripts/check-image.sh` runs the same steps without a container engine.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /build
ENV CARGO_INCREMENTAL=0 \
    CARGO_NET_RETRY=5

# aws-lc-sys (the one crypto library) is C. Versions follow the Debian release of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes gcc g++ make libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# Dependencies alone: this layer is built again only when Cargo.toml or Cargo.lock change. Empty
# sources stand in for ours. Tests, benches and examples, which the manifest names ([[test]] and so
# on, to the next empty line), are not in the context and are taken out of it.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[/,/^$/d' Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --no-default-features --bin hookyard \
    && rm -r src target/release/hookyard target/release/deps/hookyard-* \
             target/release/deps/libhookyard-* target/release/.fingerprint/hookyard-*

# The service, without the sandbox: no token issuer, no stand-in upstream reaches production.
COPY graphql graphql
COPY migrations migrations
COPY src src
RUN cargo build --release --locked --no-default-features --bin hookyard \
    && strip --strip-all target/release/hookyard

# The few libraries it needs, and what tells scanners of images their versions.
RUN mkdir -p libraries/lib libraries/lib64 packages \
    && ldd target/release/hookyard > libraries/needed \
    && grep -o '/[^ ]*' libraries/needed > libraries/paths \
    && xargs -a libraries/paths cp --parents --dereference --target-directory=libraries \
    && dpkg-query --status libc6 > packages/libc6 \
    && dpkg-query --status libgcc-s1 > packages/libgcc-s1

# CA certificates and time zones; no OpenSSL, no shell, no package manager, user 65532. The bases
# with a glibc bring many times what the service needs of it.
FROM gcr.io/distroless/static-debian12:nonroot
ARG REVISION=unknown
ARG VERSION=0.0.0
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="hookyard" \
      org.opencontainers.image.description="Event handler service for Hasura event triggers behind Google Pub/Sub push" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
COPY LICENSE /licenses/LICENSE
COPY --from=build /build/libraries/lib /lib
COPY --from=build /build/libraries/lib64 /lib64
COPY --from=build /build/packages /var/lib/dpkg/status.d
COPY --from=build /build/target/release/hookyard /usr/local/bin/hookyard
# The revision in logs and dead letters. Cloud Run puts its own name of the revision here.
ENV K_REVISION=${REVISION} \
    LOG_FORMAT=json \
    PORT=8080
USER 65532:65532
EXPOSE 8080
# No HEALTHCHECK: Cloud Run probes /health itself, and there is no shell to run one.
ENTRYPOINT ["/usr/local/bin/hookyard"]
CMD ["serve"]
