#!/usr/bin/env bash
# Runs h2spec, a conformance test of HTTP/2 servers, against every port of both services, and compares the
# cases that do not pass with those that are explained.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: h2spec.sh [--show]

Starts a trim service and an add service, and runs h2spec against trim's gRPC port, add's gRPC port and
add's HTTP port (HTTP/2 with prior knowledge). The cases that do not pass must be those that
scripts/h2spec/expected.txt explains: one more or one fewer is an error. A case that is not listed and fails
is run up to three times more.

  --show   print h2spec's whole output too
  --help   this text

Without Go it prints SKIPPED and exits with 0.
USAGE
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

show=no
while (($#)); do
    case $1 in
        --show) show=yes ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
expected=$root/scripts/h2spec/expected.txt

if ! command -v go >/dev/null && ! [[ -x $cache/h2spec-2.2.1/h2spec ]]; then
    say "SKIPPED: h2spec: it is built with Go, and there is no go (https://go.dev/dl)" >&2
    exit
fi
h2spec=$("$root/scripts/get-h2spec.sh")
need cargo "rustup (or cargo)"
cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p trim-service -p add-service
bin=${CARGO_TARGET_DIR:-$root/target}/debug

work=$(mktemp -d)
trap 'end_all 20; rm -rf "$work"' EXIT
touch "$work/trim.log" "$work/add.log"
start "$work/trim.log" "$bin/trim-service" --listen 127.0.0.1 --port 0 --consul 127.0.0.1:1
trim=$pid
start "$work/add.log" "$bin/add-service" --listen 127.0.0.1 --http-port 0 --grpc-port 0 --consul 127.0.0.1:1
add=$pid
wait_until 60 "the trim service to listen" listening_or_died "$trim" "$work/trim.log"
wait_until 60 "the add service to listen" listening_or_died "$add" "$work/add.log"

# not_passed REPORT: the cases that did not pass, as `RESULT: SECTION: CASE`.
not_passed() {
    awk '
        function attribute(name) {
            if (!match($0, name "=\"[^\"]*\"")) return ""
            return substr($0, RSTART + length(name) + 2, RLENGTH - length(name) - 3)
        }
        /<testcase / { package = attribute("package"); class = attribute("classname") }
        /<(failure|error)[ >]/ { print "failed: " package ": " class }
        /<skipped/ { print "skipped: " package ": " class }
    ' "$1" | sort
}

# unless_sometimes FILE: passes the lines on, without the cases in the file.
unless_sometimes() {
    awk '
        FILENAME == ARGV[1] { sometimes[$0]; next }
        { name = $0; sub(/^[a-z]+: /, "", name); if (!(name in sometimes)) print }
    ' "$1" -
}

# h2spec_on NAME ADDRESS PATH REPORT [SECTION...]: one run of h2spec, all of it or the given sections.
h2spec_on() {
    local name=$1 address=$2 path=$3 report=$4
    shift 4
    # Long enough for a busy machine.
    "$h2spec" --strict --timeout 5 --host "${address%:*}" --port "${address##*:}" --path "$path" \
        --junit-report "$work/$report.xml" "$@" >"$work/$report.txt" 2>&1 || true
    [[ $show == no ]] || cat "$work/$report.txt"
    [[ -s $work/$report.xml ]] || { cat "$work/$report.txt" >&2; die "h2spec made no report about $name"; }
    not_passed "$work/$report.xml" | unless_sometimes "$work/$name.sometimes" >"$work/$report.seen"
}

status=0
# run PORT_NAME ADDRESS PATH
run() {
    local name=$1 again sections
    # Lines `NAME: RESULT: SECTION: CASE`; the comments say why.
    sed -nE "s/^$name: sometimes: //p" "$expected" >"$work/$name.sometimes"
    sed -nE "s/^$name: ((failed|skipped): .*)/\1/p" "$expected" | sort >"$work/$name.expected"
    h2spec_on "$@" "$name"
    # Most cases send to a stream that the server may have answered by then, and h2spec reads that answer
    # in place of the expected frame. Such a case passes in another run; a fault fails in every one.
    for again in 1 2 3; do
        comm -13 "$work/$name.expected" "$work/$name.seen" >"$work/$name.unexpected"
        [[ -s $work/$name.unexpected ]] || break
        say "$name: run $again again of: $(paste -sd ';' "$work/$name.unexpected")"
        mapfile -t sections < <(cut -d ' ' -f 2 "$work/$name.unexpected" | tr -d : | sort -u)
        h2spec_on "$@" "$name-$again" "${sections[@]}"
        comm -23 "$work/$name.unexpected" "$work/$name-$again.seen" >"$work/$name.passed"
        comm -23 "$work/$name.seen" "$work/$name.passed" >"$work/$name.still"
        mv "$work/$name.still" "$work/$name.seen"
    done
    if diff "$work/$name.expected" "$work/$name.seen" >"$work/$name.diff"; then
        say "$name: $(tail -n 1 "$work/$name.txt"); the others are explained"
    else
        say "$name: the cases that do not pass differ from $expected (> is new, < passes now):"
        cat "$work/$name.diff" "$work/$name.txt"
        status=1
    fi
}

run trim-grpc "$(field grpc "$work/trim.log")" /pb.Trim/TrimSpace
run add-grpc "$(field grpc "$work/add.log")" /pb.Add/Sum
run add-http "$(field http "$work/add.log")" /sum
for process in "$trim" "$add"; do
    alive "$process" || die "a service has ended"
done
exit $status
