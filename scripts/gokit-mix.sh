#!/usr/bin/env bash
# The Go kit pair mixed with the project's services through one Consul.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: gokit-mix.sh [--seconds N] [--rate N]

Builds a trim service and an add service with Go kit's sd/consul and lb (get-gokit.sh). Runs two trim
services and one add service of each kind through one Consul. Checks that both add services rotate exactly
over all four instances. Ends a trim service of each kind by SIGTERM and by SIGKILL under load: no call of
the project's add service may fail. The calls of the Go add service are reported only.

  --seconds N   length of the load around each event (default 4)
  --rate N      calls per second to each add service (default 200)
  --help        this text

Without Go 1.21 or later it does nothing, prints SKIPPED and exits with 0.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=4 rate=200
while (($#)); do
    case $1 in
        --seconds | --rate)
            [[ ${2-} =~ ^[0-9]+$ ]] || die "$1 takes a number"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done

binary=$("$root/scripts/get-gokit.sh") || exit $(($? == 3 ? 0 : 1))
need cargo "rustup (or cargo)"
CONSUL_BIN=$("$root/scripts/get-consul.sh")
export CONSUL_BIN
# Optimized, as services run.
bin=$(build_testkit release)
exec "$bin/drill" --gokit "$binary" --seconds "$seconds" --rate "$rate"
