#!/usr/bin/env bash
# Builds the services in Go that the project's own are compared with, and prints the path of their binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-gokit.sh

Prints the path of gokit: a trim service and an add service with Go kit's sd/consul and lb, and an add
service with grpc-go's own balancing. It is built from scripts/gokit into the project's cache where it is
missing there. Its modules have fixed versions and checksums (go.mod, go.sum). Without Go 1.21 or later it
prints SKIPPED and exits with 3.

  --help   this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

help_only "$@"
# Go fetches the version that go.mod names, from 1.21 on.
if ! version=$(go env GOVERSION 2>/dev/null) || [[ $version =~ ^go1\.(1?[0-9]|20)(\.|$) ]]; then
    say "SKIPPED: the services in Go need Go 1.21 or later on PATH (https://go.dev/dl), and found ${version:-none}" >&2
    exit 3
fi

fetched_go gokit "$root/scripts/gokit"
