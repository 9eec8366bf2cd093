# Both services, each as an image of its own:
#
#   docker build --target trim-service -t trim-service .
#   docker build --target add-service -t add-service .
#
# docker-compose.yml builds and runs them. Needs no BuildKit; nothing here is fetched but the two
# base images, Debian's build-essential and the crates of Cargo.lock.

FROM rust:1-slim-bookworm AS toolchain
# ring, which does the TLS, compiles C and assembler. Versions are Debian's to choose: it keeps only
# the newest of a release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# What decides about the dependencies, and nothing more: the manifests, the lock file, and the
# targets that the manifests name, emptied. The next stage copies this by content, so that editing
# code leaves the layer of compiled dependencies as it is.
FROM toolchain AS manifests
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -name lib.rs ! -name main.rs \
        ! -name build.rs ! -path './*/benches/*.rs' -delete \
    && find . -type f -name '*.rs' -exec sh -c 'echo "fn main() { }" | tee "$@" >/dev/null' sh {} + \
    && find . -type d -empty -delete

FROM toolchain AS build
COPY --from=manifests /src .
# The workspace's own empty crates are forgotten again: the real files may be older than they are,
# and cargo goes by age.
RUN cargo build --release --locked -p trim-service -p add-service \
    && cargo clean --release --locked -p proto -p discovery -p trim-service -p add-service
COPY . .
RUN cargo build --release --locked -p trim-service -p add-service

FROM debian:bookworm-slim AS runtime
# For a registry behind a public certificate authority; CONSUL_CACERT names a private one.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# A number, so that an orchestrator can see that it is not root. Both services write no file and
# listen above port 1024.
USER 65532:65532
# The services catch it themselves: deregister, drain, exit 0.
STOPSIGNAL SIGTERM

FROM runtime AS trim-service
COPY --from=build /src/target/release/trim-service /usr/local/bin/
EXPOSE 8975
ENTRYPOINT ["/usr/local/bin/trim-service"]

FROM runtime AS add-service
COPY --from=build /src/target/release/add-service /usr/local/bin/
EXPOSE 8080 8972
ENTRYPOINT ["/usr/local/bin/add-service"]
