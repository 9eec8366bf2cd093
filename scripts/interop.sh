#!/usr/bin/env bash
# gRPC's interop tests: the channel against the servers of grpc-go, grpc-java and tonic, and grpc-go's
# clients against our servers.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: interop.sh [--only CASE]... [--list]

Runs gRPC's standard interop cases, without those that need credentials, through discovery::Channel with
one, two and three servers of grpc-go, grpc-java, tonic and our own server; then the cases of grpc-go's
client against our servers, and its clients of health and reflection against both services. Prints a table
of cases and servers. Exits with 1 if a case failed.

  --only CASE   this case only; repeatable
  --list        list the cases
  --help        this text

grpc-go is built with the Go on PATH, grpc-java is fetched with the Maven on PATH and runs with the JDK on
PATH, all in the project's cache; scripts/interop pins their versions. Without Go or a JDK the cases of
that peer are reported as SKIPPED. With INTEROP_PEERS=required a missing one is a failure, as in CI.

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

arguments=()
list=no
while (($#)); do
    case $1 in
        --help | -h) usage && exit ;;
        --list) list=yes ;;
        --only)
            (($# > 1)) || die "--only needs a case; --list names them"
            arguments+=(--only "$2")
            shift
            ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
need cargo "rustup (or cargo)"
need flock util-linux
folder=$root/scripts/interop

# missing PEER REASON: the peer cannot be tested.
missing() {
    [[ ${INTEROP_PEERS-} != required ]] || die "$1: $2, and INTEROP_PEERS=required"
    say "SKIPPED: $1: $2" >&2
    arguments+=(--skip "$1=$2")
}

# in_cache NAME FUNCTION FILE...: sets `made` to a folder in the cache, which FUNCTION fills if it is
# missing. Its name changes with the files, which pin the versions. Fails if FUNCTION fails.
in_cache() {
    local name=$1 make=$2 hash work
    shift 2
    hash=$(cat "$@" | sha256sum)
    made=$cache/interop-$name-${hash:0:16}
    [[ ! -d $made ]] || return 0
    mkdir -p "$cache"
    # Two at once: the second waits and finds the folder that the first has made.
    exec 9>"$cache/interop-$name.lock"
    flock 9
    if [[ ! -d $made ]]; then
        say "making $name in $cache" >&2
        work=$(mktemp -d "$cache/interop-$name.XXXXXX")
        if ! "$make" "$work" >&2; then
            rm -rf "$work"
            return 1
        fi
        # Moved into place whole.
        mv "$work" "$made"
    fi
    flock -u 9
}

make_go() {
    (cd "$folder/go" && GOMODCACHE=$cache/go/mod GOCACHE=$cache/go/build GOTOOLCHAIN=local \
        GOFLAGS='-mod=readonly -modcacherw -trimpath -buildvcs=false' go build -ldflags '-s -w' -o "$1/peer" .)
}

make_java() {
    mvn -B -q --strict-checksums -f "$folder/java/pom.xml" -Dmaven.repo.local="$cache/maven" \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$1/lib" &&
        javac -cp "$1/lib/*" -d "$1/classes" "$folder/java/InteropServer.java"
}

if [[ $list == no ]]; then
    if ! command -v go >/dev/null; then
        missing grpc-go "no Go on PATH"
    elif in_cache go make_go "$folder"/go/*; then
        arguments+=(--go "$made/peer")
    else
        missing grpc-go "it cannot be built, see above"
    fi
    if ! command -v java >/dev/null || ! command -v javac >/dev/null; then
        missing grpc-java "no JDK on PATH"
    elif ! command -v mvn >/dev/null; then
        missing grpc-java "no Maven on PATH"
    elif in_cache java make_java "$folder"/java/*; then
        arguments+=(--java "$made/classes:$made/lib/*")
    else
        missing grpc-java "it cannot be fetched or built, see above"
    fi
else
    arguments+=(--list)
fi
# A lock that the peers would inherit.
exec 9>&-
# Optimized, as services run.
bin=$(build_testkit release)
exec "$bin/interop" "${arguments[@]}"
