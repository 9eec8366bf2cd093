#!/usr/bin/env bash
# Builds the Go program that the tests of ZooKeeper talk to, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-zookeeper-peer.sh

Prints the path of zookeeper-peer: a Go program that registers and finds instances in ZooKeeper with Go
kit's client. It is built from scripts/registries/zookeeper/gokit into the project's cache where it is
missing there. Its modules have fixed versions and checksums (go.mod, go.sum). The tests of the ZooKeeper
registry find it by ZOOKEEPER_PEER_BIN.

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

fetched_go zookeeper-peer "$root/scripts/registries/zookeeper/gokit"
