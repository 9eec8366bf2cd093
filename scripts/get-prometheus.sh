#!/usr/bin/env bash
# Finds Prometheus and promtool, or fetches them into the project's cache, and prints the folder of both.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: get-prometheus.sh [--fetch]

Prints the folder that contains prometheus and promtool: the one on PATH, else the one in the project's
cache, else one fetched there: Prometheus 2.42 as Debian's bookworm packages it, over apt's own mirror and
with apt's signature check. Nothing is installed, and no system service is set up.

  --fetch   do not look on PATH
  --help    this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOT
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

version=2.42.0
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
    (from_debian bookworm "prometheus=$version") || die "cannot fetch Prometheus $version; install Prometheus \
(https://prometheus.io/download) and put prometheus and promtool on PATH"
    mkdir "$work/prometheus"
    local name
    for name in prometheus promtool; do
        mv "$work/unpacked/usr/bin/$name" "$work/prometheus/$name"
        "$work/prometheus/$name" --version >/dev/null 2>&1 || die "the fetched $name does not run"
    done
}

if [[ $look_on_path == yes ]] && command -v promtool >/dev/null && found=$(command -v prometheus); then
    dirname "$found"
    exit
fi
fetched_folder prometheus "$version" fetch
