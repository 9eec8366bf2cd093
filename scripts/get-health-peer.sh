#!/usr/bin/env bash
# Builds the Go program that the tests of health watching talk to, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-health-peer.sh

Prints the path of health-peer: a Go program with servers that report their health and clients that watch
it, by grpc-go's package health. It is built from scripts/health-peer into the project's cache where it is
missing there. Its modules have fixed versions and checksums (go.mod, go.sum).

  --help   this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

while (($#)); do
    case $1 in
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
done
need go golang-go

fetched_go health-peer "$root/scripts/health-peer"
