# Functions that the scripts share; sourced by them, not run. Each defines `usage` before sourcing.
# shellcheck shell=bash

# With CDPATH, `cd` may change to another folder and print it, which would be captured.
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Everything that is fetched goes here and nowhere else on the machine.
# shellcheck disable=SC2034 # used by the scripts that source this
cache=${DISCOVERY_CACHE:-$root/.cache}
# Processes that this script has started.
started=()

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# help_only ARGUMENT...: prints the usage for --help, and refuses every other argument.
help_only() {
    (($#)) || return 0
    case $1 in
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
}

# no_proxy_for HOST...: connects to these hosts directly even if http_proxy is set, as the services do.
# curl reads the lower-case variable first, other programs the upper-case one; both are extended.
no_proxy_for() {
    local host
    local -n list
    no_proxy=${no_proxy-${NO_PROXY-}} NO_PROXY=${NO_PROXY-$no_proxy}
    for list in no_proxy NO_PROXY; do
        for host; do
            # A `*` means every host, but only alone.
            [[ $list == '*' || ,$list, == *",$host,"* ]] || list+=${list:+,}$host
        done
    done
    export no_proxy NO_PROXY
}
no_proxy_for 127.0.0.1 localhost

# need COMMAND PACKAGE: fails if the command is missing, and names the package to install.
need() {
    command -v "$1" >/dev/null || die "needs '$1'; install it with: apt-get install $2"
}

# build_testkit release|debug: builds the programs of the testkit and both services, and prints their folder.
# Each script builds the same packages and features, so that nothing is built twice.
build_testkit() {
    local arguments=(build --quiet --locked --manifest-path "$root/Cargo.toml" -p testkit -p trim-service
        -p add-service --bins --features testkit/http --features testkit/interop)
    [[ $1 == debug ]] || arguments+=(--release)
    # Inside `$(...)` a failure alone does not end the function, and an older build would be used.
    cargo "${arguments[@]}" >&2 || return 1
    say "${CARGO_TARGET_DIR:-$root/target}/$1"
}

# wait_until SECONDS WHAT COMMAND...: polls until the command succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || {
            printf '%s: timed out waiting for %s\n' "$(basename "$0")" "$what" >&2
            return 1
        }
        sleep 0.1
    done
}

# start LOG COMMAND...: starts a process in its own session, so that a Ctrl-C reaches only this script,
# which then ends its processes one by one. Sets `pid`.
start() {
    local log=$1
    shift
    # A background process of a script ignores SIGINT by default.
    setsid env --default-signal=INT "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    started+=("$pid")
}

alive() { kill -0 "$1" 2>/dev/null; }

gone() { ! alive "$1"; }

# end_groups: asks every started process and the processes that it has started to end. Tests start servers, and do
# not end them when they are ended by a signal.
end_groups() {
    local pid
    for pid in $(jobs -pr); do
        # `start` makes each the leader of a group. A test may have stopped a process, which then would not end.
        kill -TERM -- "-$pid" 2>/dev/null || true
        kill -CONT -- "-$pid" 2>/dev/null || true
    done
}

# end_all SECONDS: ends every started process by SIGTERM, last started first; by SIGKILL after SECONDS.
end_all() {
    local i pid pids
    # Bash's own list, in the order of start: a signal can come before `start` has recorded a pid.
    read -r -d '' -a pids <<<"$(jobs -pr)" || true
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        pid=${pids[i]}
        alive "$pid" || continue
        kill -TERM "$pid" 2>/dev/null || true
        wait_until "$1" "process $pid to end" gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    done
    started=()
}

# free_port: prints a port that nothing listens on, below the kernel's range for outgoing connections.
free_port() {
    local port tries
    for ((tries = 0; tries < 100; tries++)); do
        port=$((20000 + RANDOM % 10000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            say "$port"
            return
        fi
    done
    die "found no free port in 100 tries"
}

consul_leads() { [[ $(curl -fsS --max-time 2 "http://$1/v1/status/leader" 2>/dev/null) == *:* ]]; }

# start_consul FOLDER: starts a Consul on free ports. Sets `consul` to its HOST:PORT.
start_consul() {
    local binary tries
    binary=$("$root/scripts/get-consul.sh") || die "no Consul found or fetched, see above"
    for ((tries = 0; tries < 5; tries++)); do
        local ports=()
        for _ in 1 2 3 4; do ports+=("$(free_port)"); done
        consul=127.0.0.1:${ports[0]}
        start "$1/consul.log" "$binary" agent -dev -bind 127.0.0.1 -client 127.0.0.1 \
            -http-port "${ports[0]}" -server-port "${ports[1]}" -serf-lan-port "${ports[2]}" \
            -serf-wan-port "${ports[3]}" -grpc-port -1 -dns-port -1 \
            -hcl 'limits { http_max_conns_per_client = 1000 }'
        if wait_until 20 "Consul to elect a leader" consul_leads_or_died "$pid" && alive "$pid"; then
            return
        fi
    done
    tail -n 5 "$1/consul.log" >&2
    die "Consul does not start"
}

# Ends the wait for a Consul: it leads, or it has ended because a port was taken.
consul_leads_or_died() { consul_leads "$consul" || gone "$1"; }

# listening LOG: succeeds if a service has printed its addresses.
listening() { grep -qE '^(trim|add)-service listening ' "$1"; }

# field NAME LOG: prints a value of that line, for example `field grpc trim.log`.
field() { sed -nE "s/^[a-z]+-service listening .*\b$1=([^ ]+).*/\1/p" "$2" | head -n 1; }

# Ends the wait for a service: it listens, or it has ended.
listening_or_died() { listening "$2" || gone "$1"; }
