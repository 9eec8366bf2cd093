#!/usr/bin/env bash
# Finds a Consul, or fetches one into the project's cache, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-consul.sh [--fetch]

Prints the path of a Consul binary: the one on PATH, else the one in the project's cache, else one
fetched there: Consul 1.8.7 as Debian's bullseye packages it, over apt's own mirror and with apt's
signature check. Nothing is installed; apt's lists and packages stay as they are.

  --fetch   do not look on PATH
  --help    this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

version=1.8.7+dfsg1-2
look_on_path=yes
while (($#)); do
    case $1 in
        --fetch) look_on_path=no ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done

fetch() {
    # In a subshell, so that the remedy is printed after the reason.
    (from_debian bullseye "consul=$version") || die "cannot fetch Consul $version; install Consul \
(https://developer.hashicorp.com/consul/install) and put it on PATH"
    mv "$work/unpacked/usr/bin/consul" "$work/consul"
}

if [[ $look_on_path == yes ]] && command -v consul; then
    exit
fi
fetched consul "$version" version fetch
