#!/usr/bin/env bash
# Finds an nginx, or fetches one into the project's cache, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-nginx.sh [--fetch]

Prints the path of an nginx binary: the one on PATH, else the one in the project's cache, else one
fetched there: nginx 1.22.1 as Debian's bookworm packages it, over apt's own mirror and with apt's
signature check. The libraries that this machine lacks are put beside it. Nothing is installed.

  --fetch   do not look on PATH
  --help    this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

version=1.22.1-9
look_on_path=yes
while (($#)); do
    case $1 in
        --fetch) look_on_path=no ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done

# True if the fetched binary finds all its libraries on this machine.
is_complete() { ! ldd "$work/unpacked/usr/sbin/nginx" | grep -q 'not found'; }

fetch() {
    from_debian bookworm "nginx=$version"
    if is_complete; then
        mv "$work/unpacked/usr/sbin/nginx" "$work/nginx"
        return
    fi
    from_debian bookworm libcrypt1=1: libpcre2-8-0=10.42 libssl3=3.0 zlib1g=1:1.2
    mkdir "$work/lib"
    find "$work/unpacked" -name '*.so.*' -exec mv -t "$work/lib" {} +
    mv "$work/unpacked/usr/sbin/nginx" "$work/lib/nginx"
    cat >"$work/nginx" <<'EOF'
#!/bin/sh
# Runs nginx with the libraries beside it.
lib=$(dirname "$0")/lib
LD_LIBRARY_PATH=$lib exec "$lib/nginx" "$@"
EOF
}

if [[ $look_on_path == yes ]] && command -v nginx; then
    exit
fi
fetched nginx "$version" -v fetch
