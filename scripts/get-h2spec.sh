#!/usr/bin/env bash
# Finds h2spec in the project's cache, or builds it there with Go, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: get-h2spec.sh

Prints the path of an h2spec binary: the one in the project's cache, else one built there: h2spec 2.2.1,
a Go module, with the versions and checksums of scripts/h2spec. Needs Go 1.24. Go's own caches are in
the project's cache too.

  --help   this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
USAGE
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

version=2.2.1
help_only "$@"

fetch() {
    need go golang-go
    # The module cache is writable, so that the project's cache can be removed.
    (cd "$root/scripts/h2spec" && GOMODCACHE="$cache/go/mod" GOCACHE="$cache/go/build" GOWORK=off \
        GOTOOLCHAIN=local GOFLAGS="-mod=readonly -modcacherw -trimpath" \
        go build -o "$work/h2spec" github.com/summerwind/h2spec/cmd/h2spec) ||
        die "cannot build h2spec $version (see above); it needs Go 1.24 and its module proxy"
}

fetched h2spec "$version" --version fetch
