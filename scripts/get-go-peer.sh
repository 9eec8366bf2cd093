#!/usr/bin/env bash
# Builds a Go program that the tests run, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-go-peer.sh etcd|zookeeper|health|orca

Prints the path of a Go program that is built into the project's cache where it is missing there. Its
modules have fixed versions and checksums (go.mod, go.sum). The tests find the programs by ETCD_PEER_BIN,
ZOOKEEPER_PEER_BIN, HEALTH_PEER_BIN and ORCA_PEER_BIN.

  etcd        registers and finds instances in etcd with the clients of Go kit and of etcd itself, from
              scripts/registries/etcd-peer
  zookeeper   registers and finds instances in ZooKeeper with Go kit's client, from
              scripts/registries/zookeeper/gokit
  health      servers that report their health and clients that watch it, with grpc-go's package health,
              from scripts/health-peer
  orca        servers that report load and clients that weigh servers by it, with grpc-go's packages orca
              and weightedroundrobin, from scripts/orca-peer

  --help   this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

peer=''
while (($#)); do
    case $1 in
        --help | -h) usage && exit ;;
        etcd | zookeeper | health | orca) peer=$1 ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
case $peer in
    etcd) source=registries/etcd-peer ;;
    zookeeper) source=registries/zookeeper/gokit ;;
    health) source=health-peer ;;
    orca) source=orca-peer ;;
    *) usage >&2 && die "the name of the program is missing" ;;
esac
need go golang-go

fetched_go "$peer-peer" "$root/scripts/$source"
