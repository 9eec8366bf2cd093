#!/usr/bin/env bash
# The fault drill: real processes under load, one fault at a time, and a table of the results.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: drill.sh [--only ROW]... [--registry NAME]... [--client NAME]... [--protocol NAME] [--seconds N]
                [--rate N] [--jobs N] [--rerun N] [--http-port ROW=PORT]... [--json] [--list] [-- FLAG...]

Starts a registry, five trim instances and the add service for every row, sends 500 calls per second over
HTTP, and injects the fault of the row. Exits with 1 if a row failed: no call may fail (except while
every instance is dead or fails), and 99 of 100 calls must be answered within 50 ms. Some rows require more, for
example that no instance is ejected.

  --only ROW    this row only, by number or name; repeatable
  --registry NAME
                consul (default), etcd, zookeeper, eureka, dns (that of Consul) or embedded; repeatable.
                Others than Consul have the rows about discovery only: 1, 2, 3, 7 and 9
  --client NAME client of the add service: discovery (default), or of one in Go: gokit (sd and lb) or
                grpc-go (its round robin, outlier detection and retries); repeatable. The results of
                these are shown and not judged
  --protocol NAME
                grpc (default), or http: plain HTTP/1.1 between servers on axum, which have rows 1 to 5 and 9
  --seconds N   length of each row's load (default 20); below 16 s the 99th percentile is shown but
                not required
  --rate N      calls per second (default 500)
  --jobs N      number of rows that run at the same time (default 1), for a look at failed calls only
  --rerun N     number of further runs of a row that failed, each alone (default 0): a fault fails in every
                run, a busy machine does not
  --http-port ROW=PORT
                port of the add service of a row, for a Prometheus that scrapes it; repeatable
  --json        print one JSON object per row
  --list        list the rows
  --            further arguments go to the add service, for example -- --trim-config FILE
  --help        this text

Rows 8 and 11c create a network namespace, which needs root. Row 12 needs nginx (see get-nginx.sh);
ZooKeeper and Eureka need Java and Maven. A row that cannot run is reported as SKIPPED.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The program reads the flags, but its build takes minutes: a flag that it does not have is refused before.
for argument; do
    case $argument in
        --) break ;;
        --help | -h) usage && exit ;;
        -*) [[ $(usage) == *$'\n  '"${argument%%=*} "* ]] || { usage >&2; die "unknown argument '$argument'"; } ;;
    esac
done
need cargo "rustup (or cargo)"
CONSUL_BIN=$("$root/scripts/get-consul.sh")
# The row that needs it is skipped without.
NGINX_BIN=$("$root/scripts/get-nginx.sh") || NGINX_BIN=
export CONSUL_BIN NGINX_BIN
# fetch VARIABLE NAME: the server of a registry that a flag names, or nothing.
fetch() {
    [[ " ${arguments[*]} " =~ [\ =]$2\  ]] || return 0
    export "$1=$("$root/scripts/registry.sh" "$2" --fetch || true)"
}
arguments=("$@")
fetch ETCD_BIN etcd
fetch ZOOKEEPER_HOME zookeeper
fetch EUREKA_HOME eureka
# A peer that cannot be built is reported as SKIPPED.
if [[ " ${arguments[*]} " =~ [\ =](gokit|grpc-go)\  ]]; then
    GOKIT_BIN=$("$root/scripts/get-gokit.sh") || GOKIT_BIN=
    export GOKIT_BIN
fi
# Optimized, as services run.
bin=$(build_testkit release)
exec "$bin/drill" "$@"
