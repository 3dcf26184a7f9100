# Two images from one source:
#
#   docker build --target sidecar -t sluice .          the sidecar: one static binary and nothing else
#   docker build --target envoy   -t sluice-envoy .    Envoy with the filter at /etc/envoy/filter.wasm
#
# Needs BuildKit, which Docker uses by itself since version 23 and with DOCKER_BUILDKIT=1 before.

# The sources and the toolchain. The image builds for the architecture that it runs on.
FROM rust:1.95-slim-bookworm AS build
RUN rustup target add wasm32-wasip1 "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
# Cargo compares times of change, and the caches below outlive this tree: an older file of another checkout must
# not pass for one that is already built.
RUN find . -type f -exec touch {} +

FROM build AS build-sidecar
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=sluice-target-sidecar,sharing=locked \
    target="$(uname -m)-unknown-linux-musl" \
    # The C of the cryptography needs no libc, so the compiler that is here will do.
    && export "CC_$(uname -m)_unknown_linux_musl=gcc" \
    && cargo build --locked --release --package sluice --bin sluice --target "$target" \
    && cp "target/$target/release/sluice" /sluice

FROM build AS build-filter
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=sluice-target-filter,sharing=locked \
    cargo build --locked --release --package sluice-filter --target wasm32-wasip1 \
    && cp target/wasm32-wasip1/release/sluice_filter.wasm /filter.wasm

FROM scratch AS sidecar
COPY --from=build-sidecar --chmod=755 /sluice /sluice
USER 65532:65532
ENV SLUICE_LISTEN=0.0.0.0:9090
EXPOSE 9090
# There is no shell and no curl in here, so the binary asks itself.
HEALTHCHECK --interval=2s --timeout=3s --start-period=10s CMD ["/sluice", "health"]
ENTRYPOINT ["/sluice"]

FROM envoyproxy/envoy:v1.40.0 AS envoy
COPY --from=build-filter --chmod=644 /filter.wasm /etc/envoy/filter.wasm
COPY --chmod=644 envoy/envoy.yaml /etc/envoy/envoy.yaml
# The image's own user "envoy", by number, so that Kubernetes can see that it is not root.
USER 101:101
