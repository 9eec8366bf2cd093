#!/usr/bin/env bash
# The main job in one command: Consul, three trim instances, the add service, and calls that rotate.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: demo.sh [--once] [--consul HOST:PORT]

Starts a Consul (or takes one that runs), three trim instances and the add service on this machine,
shows calls going round the instances, stops one instance and shows calls going on. Then it stays up
with the addresses printed until Ctrl-C, which stops everything and leaves no registration behind.

  --once               check every step, stop everything, and exit 0 only if all was as it should be
  --consul HOST:PORT   use this Consul instead of looking for one; so does CONSUL_HTTP_ADDR
  --help               this text

A Consul that answers at localhost:8500 is used; else one is started, from PATH or fetched into the
project's cache (see get-consul.sh). grpcurl is shown where there is one (see get-grpcurl.sh).
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

once=no consul=${CONSUL_HTTP_ADDR-}
while (($#)); do
    case $1 in
        --once) once=yes ;;
        --consul) [[ ${2-} == *:* ]] || die "--consul takes HOST:PORT"; consul=$2; shift ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
need cargo "rustup (or cargo)"
need curl curl

work=$(mktemp -d)
# A name of its own, so that a Consul that others use as well is not disturbed.
name=trim_service-demo-$$
cleanup() {
    local status=$?
    trap '' INT TERM
    end_all 20
    if ((status != 0)); then
        for log in "$work"/*.log; do
            [[ $log == */consul.log ]] || { say "--- $(basename "$log")"; tail -n 20 "$log"; } >&2
        done
    fi
    rm -rf "$work"
}
trap cleanup EXIT
stopping=no
trap 'stopping=yes; exit 130' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

step "Building"
cargo build --locked --manifest-path "$root/Cargo.toml" -p trim-service -p add-service
bin=${CARGO_TARGET_DIR:-$root/target}/debug

step "Consul"
if [[ -n $consul ]]; then
    consul=${consul#http://}
    consul_leads "$consul" || die "no Consul with a leader answers at $consul"
    say "using the one at $consul"
elif consul_leads 127.0.0.1:8500; then
    consul=127.0.0.1:8500
    say "using the one at $consul"
else
    start_consul "$work"
    say "started one at $consul"
fi
registered() { curl -fsS --max-time 5 "http://$consul/v1/health/service/$name?passing" | grep -oE '"ID": ?"'"$name"'-[^"]*"' | sort -u | wc -l; }
registrations_are() { [[ $(registered) == "$1" ]]; }

step "Three trim instances"
for i in 1 2 3; do
    start "$work/trim-$i.log" "$bin/trim-service" --port 0 --listen 127.0.0.1 --ip 127.0.0.1 \
        --consul "$consul" --name "$name" --tag demo --check-interval 1s --drain 1s
    trim_pids[i]=$pid
    wait_until 20 "trim instance $i to listen" listening "$work/trim-$i.log"
    trim_ids[i]=$(field id "$work/trim-$i.log")
    say "${trim_ids[i]}"
done
wait_until 20 "three registrations in Consul" registrations_are 3

step "The add service"
start "$work/add.log" "$bin/add-service" --listen 127.0.0.1 --http-port 0 --grpc-port 0 \
    --consul "$consul" --trim-name "$name" --tag demo
wait_until 20 "the add service to listen" listening "$work/add.log"
http=$(field http "$work/add.log") grpc=$(field grpc "$work/add.log")
say "HTTP on $http, gRPC on $grpc"
ready_with() { [[ $(curl -fsS --max-time 5 "http://$http/readyz" 2>/dev/null) == "ready: $1 of $1 "* ]]; }
wait_until 20 "the add service to find all three" ready_with 3

# call: one call through curl. Sets `body` and `instances`.
call() {
    local response
    response=$(curl -fsS --max-time 5 -i -H 'content-type: application/json' \
        -d '{"a":"1 0","b":"2 0"}' "http://$http/concat") || die "a call failed: $response"
    body=$(tail -n 1 <<<"$response")
    instances=$(sed -nE 's/^x-trim-instance: ([^\r]*)\r?$/\1/p' <<<"$response")
    [[ $body == '{"v":"1020"}' ]] || die "expected {\"v\":\"1020\"}, got $body"
}

step "Calls go round: curl -d '{\"a\":\"1 0\",\"b\":\"2 0\"}' http://$http/concat"
served=
for _ in 1 2 3 4 5 6; do
    call
    say "$body   $instances"
    served+="${instances//,/$'\n'}"$'\n'
done
for i in 1 2 3; do
    times=$(grep -cx -- "${trim_ids[i]}" <<<"$served" || true)
    [[ $times == 4 ]] || die "${trim_ids[i]} served $times of 12 trims, expected 4: not round robin"
done
say "each instance served 4 of the 12 trims"
sum=$(curl -fsS --max-time 5 -d '{"a":1,"b":2}' "http://$http/sum")
[[ $sum == '{"v":3}' ]] || die "expected {\"v\":3}, got $sum"

if grpcurl=$("$root/scripts/get-grpcurl.sh" --offline 2>/dev/null); then
    step "The same over gRPC: grpcurl -plaintext $grpc"
    "$grpcurl" -plaintext "$grpc" list
    "$grpcurl" -plaintext "$grpc" list | grep -qx pb.Add || die "grpcurl does not see pb.Add"
    answer=$("$grpcurl" -plaintext -v -d '{"a":"1 0","b":"2 0"}' "$grpc" pb.Add/Concat)
    grep -E '^x-trim-instance|"v"' <<<"$answer"
    grep -q '"v": "1020"' <<<"$answer" || die "grpcurl got another answer: $answer"
fi

step "Stopping ${trim_ids[2]}"
kill -TERM "${trim_pids[2]}"
for _ in {1..30}; do call; done
say "30 calls while it goes: all answered"
wait "${trim_pids[2]}" || die "${trim_ids[2]} did not exit with 0"
wait_until 20 "Consul to forget it" registrations_are 2
wait_until 20 "the add service to forget it" ready_with 2
for _ in {1..6}; do
    call
    say "$body   $instances"
    [[ $instances != *"${trim_ids[2]}"* ]] || die "a stopped instance was called"
done

if [[ $once == no ]]; then
    step "Up until Ctrl-C"
    say "HTTP    curl -d '{\"a\":\"1 0\",\"b\":\"2 0\"}' http://$http/concat"
    say "gRPC    grpcurl -plaintext $grpc list"
    say "metrics http://$http/metrics"
    say "Consul  http://$consul/ui"
    while [[ $stopping == no ]]; do sleep 1; done
fi

step "Stopping everything"
# The services first; Consul, if it is ours, is still there to be told.
for ((i = ${#started[@]} - 1; i >= 0; i--)); do
    pid=${started[i]}
    [[ $(ps -o args= -p "$pid" 2>/dev/null) == *-service* ]] || continue
    kill -TERM "$pid"
    wait "$pid" || die "process $pid did not exit with 0"
done
registrations_are 0 || die "registrations are left in Consul"
say "all ended in order, no registration is left"
