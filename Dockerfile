# Both services, each as an image of its own:
#
#   docker build --target trim-service -t trim-service .
#   docker build --target add-service -t add-service .
#
# docker-compose.yml builds and runs them. BuildKit is not needed. The build fetches the two base
# images, Debian's build-essential and the crates of Cargo.lock, and nothing else.

FROM rust:1-slim-bookworm AS toolchain
# ring (TLS) and mimalloc compile C. Versions are not pinned, because Debian keeps only the newest one
# of a release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# Only the files that determine the dependencies: the manifests, the lock file, and the targets that
# the manifests name, emptied. The next stage copies them by content, so that a change of code keeps
# the layer of compiled dependencies.
FROM toolchain AS manifests
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -name lib.rs ! -name main.rs \
        ! -name build.rs ! -path './*/benches/*.rs' -delete \
    && find . -type f -name '*.rs' -exec sh -c 'echo "fn main() { }" | tee "$@" >/dev/null' sh {} + \
    && find . -type d -empty -delete

FROM toolchain AS build
COPY --from=manifests /src .
# The workspace's own emptied crates are removed: the real files may be older than they are, and cargo
# compares modification times.
RUN cargo build --release --locked -p trim-service -p add-service \
    && cargo clean --release --locked -p proto -p discovery -p bootstrap -p trim-service \
        -p add-service
COPY . .
RUN cargo build --release --locked -p trim-service -p add-service

FROM debian:bookworm-slim AS runtime
# For a registry with a certificate of a public authority; CONSUL_CACERT names a private one.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# A number, so that an orchestrator can check that it is not root. The services write no files and
# listen above port 1024.
USER 65532:65532
# The services handle it: deregister, drain, exit with 0.
STOPSIGNAL SIGTERM

FROM runtime AS trim-service
COPY --from=build /src/target/release/trim-service /usr/local/bin/
EXPOSE 8975
ENTRYPOINT ["/usr/local/bin/trim-service"]

FROM runtime AS add-service
COPY --from=build /src/target/release/add-service /usr/local/bin/
EXPOSE 8080 8972
ENTRYPOINT ["/usr/local/bin/add-service"]
