#!/usr/bin/env bash
# Runs N trim instances; one Ctrl-C stops and deregisters them all.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: trim-instances.sh N [--port BASE] [--release] [-- FLAG...]

Runs N trim-service processes until Ctrl-C (or SIGTERM), which stops and deregisters all of them. If
one of them ends by itself, the others are stopped and the script exits with 1.

A Ctrl-C while they start has the same effect: no more are started, and the started ones are stopped
and deregistered. The exit code is 0 if all started processes exited with 0, else 1. A further Ctrl-C
while they stop is ignored.

  --port BASE   they listen on BASE, BASE+1, ... (default 8975); 0: each on any free port
  --release     build and run them optimized
  --            what follows is for trim-service, for example -- --ip 127.0.0.1 --tag blue
  --help        this text
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

count='' base=8975 profile=debug build=()
while (($#)); do
    case $1 in
        --port) [[ ${2-} =~ ^[0-9]+$ ]] || die "--port takes a number"; base=$2; shift ;;
        --release) profile=release build=(--release) ;;
        --) shift && break ;;
        --help | -h) usage && exit ;;
        *) [[ -z $count && $1 =~ ^[0-9]+$ ]] || { usage >&2; die "unexpected argument '$1'"; }; count=$1 ;;
    esac
    shift
done
[[ $count =~ ^[1-9][0-9]{0,2}$ ]] || { usage >&2; die "N must be a number from 1 to 999"; }
((base == 0 || base + count - 1 <= 65535)) || die "ports from $base on are not enough for $count instances"
need cargo "rustup (or cargo)"

# The same packages as the demo, so that nothing is built twice.
cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p trim-service -p add-service "${build[@]}"
binary=${CARGO_TARGET_DIR:-$root/target}/$profile/trim-service
logs=$(mktemp -d)
stopping=no
stop() { stopping=yes; }
trap stop INT TERM
trap 'end_all 30; rm -rf "$logs"' EXIT

for ((i = 0; i < count; i++)); do
    [[ $stopping == no ]] || break
    port=$((base == 0 ? 0 : base + i))
    start "$logs/$i.log" "$binary" --port "$port" "$@"
    # Even after a signal: a process that has just started does not handle signals yet.
    if ! wait_until 20 "instance $i to listen" listening_or_died "$pid" "$logs/$i.log" ||
        ! listening "$logs/$i.log"; then
        cat "$logs/$i.log" >&2
        die "instance $i did not start"
    fi
    say "$(field id "$logs/$i.log")  pid $pid"
done
[[ $stopping == yes ]] || say "$count instances run; Ctrl-C stops and deregisters them"

while [[ $stopping == no ]]; do
    for i in "${!started[@]}"; do
        if gone "${started[i]}"; then
            tail -n 20 "$logs/$i.log" >&2
            die "instance $i (pid ${started[i]}) ended by itself"
        fi
    done
    # A Ctrl-C in the terminal also ends the sleep.
    sleep 0.2 || true
done

# A further signal would interrupt the wait. (Set here because Bash aborts if a trap ignores its own
# signal and the signal comes again.)
trap '' INT TERM
count=${#started[@]}
say "stopping $count instances"
for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
failed=0
for pid in "${started[@]}"; do wait "$pid" || failed=$((failed + 1)); done
started=()
((failed == 0)) || die "$failed of $count instances did not exit with 0"
say "all stopped"
