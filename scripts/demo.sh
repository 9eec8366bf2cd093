#!/usr/bin/env bash
# The whole system in one command: a registry, three trim instances, the add service, and calls.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: demo.sh [--once] [--registry NAME | --consul HOST:PORT]

Starts a registry (or uses a running Consul), three trim instances and the add service on this machine.
Shows that calls rotate over the instances, then stops one instance and shows that no call fails. Then
it prints the addresses, the live page's among them, and stays up until Ctrl-C, which stops everything,
checks that no process and no registration is left, and exits with 0. A Ctrl-C before that also cleans
up, and exits with 130.

  --once               check every step, stop everything, and exit with 0 only if all checks passed
  --registry NAME      consul, etcd, zookeeper, eureka (each fetched and started, see registry.sh), or
                       embedded, which is a folder and needs no server; default: consul, or embedded
                       if no Consul is available
  --consul HOST:PORT   use this Consul instead of looking for one; so does CONSUL_HTTP_ADDR
  --help               this text

A Consul that answers at localhost:8500 is used. Otherwise one is started, from PATH or fetched into
the project's cache (see get-consul.sh); also if CONSUL_HTTP_ADDR or CONSUL_HTTP_SSL asks for HTTPS or
a socket, which this script does not support. grpcurl is used if it is found (see get-grpcurl.sh).
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

once=no consul='' registry=''
while (($#)); do
    case $1 in
        --once) once=yes ;;
        --registry)
            case ${2-} in
                consul | etcd | zookeeper | eureka | embedded) registry=$2 ;;
                dns) die "DNS only lists instances: the demo's services cannot register themselves there" ;;
                *) die "--registry takes consul, etcd, zookeeper, eureka or embedded" ;;
            esac
            shift
            ;;
        --consul)
            [[ ${2-} == *:* && $2 != https://* && $2 != unix://* ]] || die "--consul takes HOST:PORT"
            consul=$2
            shift
            ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
[[ -z $consul || ${registry:-consul} == consul ]] || die "--consul and --registry $registry exclude each other"
own=no
if [[ -z $consul ]]; then
    consul=${CONSUL_HTTP_ADDR-}
    if [[ $consul == https://* || $consul == unix://* || ${CONSUL_HTTP_SSL-} =~ ^(1|[tT]|[tT]rue|TRUE)$ ]]; then
        own=yes
    fi
fi
# As the services read it: without `http://` and a final slash; the default port is 80.
consul=${consul#http://} consul=${consul%/}
[[ -z $consul || $consul =~ :[0-9]+$ ]] || consul+=:80
need cargo "rustup (or cargo)"
need curl curl

work=$(mktemp -d)
# A unique service name, because the Consul may be shared.
name=trim_service-demo-$$
cleanup() {
    local status=$?
    trap '' INT TERM
    end_all 20
    case $status in
        0) ;;
        130 | 143) say "interrupted; all started processes are stopped" >&2 ;;
        *)
            for log in "$work"/*.log; do
                [[ $log == */consul.log ]] || { say "--- $(basename "$log")"; tail -n 20 "$log"; } >&2
            done
            ;;
    esac
    rm -rf "$work"
}
trap cleanup EXIT
# Until everything is up, a signal ends the script at once. After that it is the normal end.
trap 'exit 130' INT
trap 'exit 143' TERM
stopping=no
stop() { stopping=yes; }

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

step "Building"
cargo build --locked --manifest-path "$root/Cargo.toml" -p trim-service -p add-service
bin=${CARGO_TARGET_DIR:-$root/target}/debug

# choose_consul: uses or starts a Consul. Sets the address, the flags for the services and the web page.
choose_consul() {
    local host
    step "Consul"
    if [[ $own == yes ]]; then
        say "the environment names a Consul over HTTPS or a socket, which this script does not support: starting another"
        start_own_consul
    elif [[ -n $consul ]]; then
        host=${consul%:*} host=${host#[}
        no_proxy_for "${host%]}"
        consul_leads "$consul" || die "no Consul with a leader answers at $consul"
        say "using the Consul at $consul"
    elif consul_leads 127.0.0.1:8500; then
        consul=127.0.0.1:8500
        say "using the Consul at $consul"
    else
        start_own_consul
    fi
    address=$consul page="Consul  http://$consul/ui"
    registry_flags=(--consul "$consul") check=(--check-interval 1s)
}

# start_own_consul: starts a Consul and drops the environment's settings of another one.
start_own_consul() {
    unset "${!CONSUL_@}"
    start_consul "$work"
    say "started a Consul at $consul"
}

# start_registry: starts another registry's server on a free port. Sets the same as choose_consul.
start_registry() {
    local url
    step "$registry"
    "$root/scripts/registry.sh" "$registry" --fetch >/dev/null || die "$registry is not available, see above"
    address=127.0.0.1:$(free_port)
    start "$work/registry.log" "$root/scripts/registry.sh" "$registry" --port "${address#*:}" --data "$work/data"
    wait_until 150 "$registry to answer" ready_or_died "$pid" || die "$registry does not start"
    url=$(sed -n "s/^$registry ready: //p" "$work/registry.log")
    [[ -n $url ]] || die "$registry does not start"
    # The default layout of etcd has no tags.
    [[ $registry != etcd ]] || url+="/services?layout=grpc"
    say "started $registry at $url"
    page="registry  $url"
    registry_flags=(--registry "$url") check=(--check ttl --check-interval 4s)
}
ready_or_died() { grep -q "^$registry ready: " "$work/registry.log" || gone "$1"; }

# use_folder: the embedded registry in a new folder. Sets the same as choose_consul.
use_folder() {
    step "The embedded registry"
    folder=$work/instances
    (umask 077 && mkdir "$folder")
    say "a folder, without a server: $folder"
    page="registry  embedded://$folder"
    registry_flags=(--registry "embedded://$folder") check=()
}

if [[ -z $registry && -z $consul && $own == no ]] && ! consul_leads 127.0.0.1:8500 &&
    ! "$root/scripts/get-consul.sh" >/dev/null; then
    say "no Consul is available on this machine (see above): using the embedded registry instead"
    registry=embedded
fi
registry=${registry:-consul}
address='' folder='' page='' registry_flags=() check=()
# The fetching functions of the file need lib-fetch.sh, which only registry.sh sources.
# shellcheck disable=SC1090 # one of the files beside it
source "$root/scripts/registries/$registry.sh"
case $registry in
    consul) choose_consul ;;
    embedded) use_folder ;;
    *) start_registry ;;
esac
# registrations_are COUNT [passing]: succeeds if COUNT instances are registered; with `passing`, if COUNT
# are healthy, for registries that report it.
registrations_are() {
    local count
    count=$(registered "$name" "${2-}") && [[ $count == "$1" ]]
}

step "Three trim instances"
for i in 1 2 3; do
    start "$work/trim-$i.log" "$bin/trim-service" --port 0 --listen 127.0.0.1 --ip 127.0.0.1 \
        "${registry_flags[@]}" "${check[@]}" --name "$name" --tag demo --drain 1s
    trim_pids[i]=$pid
    wait_until 20 "trim instance $i to listen" listening "$work/trim-$i.log"
    trim_ids[i]=$(field id "$work/trim-$i.log")
    say "${trim_ids[i]}"
done
wait_until 20 "three registrations" registrations_are 3 passing

step "The add service"
start "$work/add.log" "$bin/add-service" --listen 127.0.0.1 --http-port 0 --grpc-port 0 \
    "${registry_flags[@]}" --trim-name "$name" --tag demo
add_pid=$pid
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

step "Calls rotate: curl -d '{\"a\":\"1 0\",\"b\":\"2 0\"}' http://$http/concat"
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
    answer=$("$grpcurl" -plaintext "$grpc" list)
    say "$answer"
    grep -qx pb.Add <<<"$answer" || die "grpcurl does not see pb.Add"
    answer=$("$grpcurl" -plaintext -v -d '{"a":"1 0","b":"2 0"}' "$grpc" pb.Add/Concat)
    grep -E '^x-trim-instance|"v"' <<<"$answer"
    grep -q '"v": "1020"' <<<"$answer" || die "grpcurl got another answer: $answer"
fi

step "Stopping ${trim_ids[2]}"
kill -TERM "${trim_pids[2]}"
for _ in {1..30}; do call; done
say "30 calls while it stops: all answered"
wait "${trim_pids[2]}" || die "${trim_ids[2]} did not exit with 0"
wait_until 20 "the registry to remove it" registrations_are 2 passing
wait_until 20 "the add service to remove it" ready_with 2
for _ in {1..6}; do
    call
    say "$body   $instances"
    [[ $instances != *"${trim_ids[2]}"* ]] || die "a stopped instance was called"
done

if [[ $once == no ]]; then
    trap stop INT TERM
    step "Up until Ctrl-C"
    say "HTTP    curl -d '{\"a\":\"1 0\",\"b\":\"2 0\"}' http://$http/concat"
    say "gRPC    grpcurl -plaintext $grpc list"
    say "metrics http://$http/metrics"
    say "$page"
    say "page    http://$http/   to see it: kill -9 ${trim_pids[1]}, and the calls go on"
    # A Ctrl-C in the terminal also ends the sleep.
    while [[ $stopping == no ]]; do sleep 0.2 || true; done
fi

# A further signal would interrupt the wait. (Set here because Bash aborts if a trap ignores its own
# signal and the signal comes again.)
trap '' INT TERM
step "Stopping everything"
# The services first: they deregister, so the registry must still run.
killed=0
for pid in "$add_pid" "${trim_pids[1]}" "${trim_pids[3]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    wait_until 30 "process $pid to end" gone "$pid" || die "process $pid does not end"
    status=0
    wait "$pid" || status=$?
    # A viewer of the page may have killed an instance (128 + SIGKILL).
    if ((status == 137)) && [[ $once == no && $pid != "$add_pid" ]]; then
        killed=$((killed + 1))
    elif ((status)); then
        die "process $pid did not exit with 0"
    fi
done
# The registry drops a killed instance once its health check fails.
((killed)) || registrations_are 0 || die "registrations are left in the registry"
end_all 20
[[ -z $(jobs -pr) ]] || die "processes are left"
if ((killed)); then
    say "all processes have ended; the registry itself drops the instances that were killed"
else
    say "all processes ended with 0, no registration is left"
fi
