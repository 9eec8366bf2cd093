#!/usr/bin/env bash
# All the tests, with what they need.
set -euo pipefail

parts=(lint test doc package loom scripts readme compose deploy h2spec bench drill observability gokit interop)
usage() {
    cat <<EOF
usage: test.sh [PART...]

Runs all the tests, or the named parts of them: ${parts[*]}.

  lint      rustfmt, clippy with warnings as errors, shellcheck, cargo-deny (licences, sources, bans;
            advisories if their database can be fetched)
  test      every Rust test: units, policies, and behaviour with real registries and processes; four test
            programs at a time, each with its output when it ends
  doc       the documentation builds without a warning
  package   the crate discovery builds from its own package, outside the workspace
  loom      the hand-written atomic protocols, in every order of the threads' steps
  scripts   the demo (--once; also over etcd) and its Ctrl-C, trim-instances.sh, registry.sh and their
            Ctrl-C, bad arguments
  readme    the flags and answers that the READMEs of the binaries quote are the real ones; README.zh-CN.md
            is in step with README.md
  compose   docker-compose.yml is well-formed
  deploy    the systemd units pass systemd-analyze, the Kubernetes manifests their schemas; their settings
            are those that the services have
  h2spec    h2spec against the ports of both services; skipped where there is no Go
  bench     every benchmark runs once, and a small simulation
  drill     the fault drill, every row for four seconds; over the other registries those about the registry,
            rolling restarts and the loss of all instances; rows 1 to 5 and 9 over plain HTTP
  observability
            the alert rules and the dashboard, with promtool and a Prometheus that scrapes the rows of the drill
  gokit     the services beside the Go kit pair, and a row of the drill with the clients in Go; skipped
            without Go
  interop   gRPC's interop tests with the servers and clients of grpc-go and grpc-java; a peer whose tools
            are missing is SKIPPED, or a failure with INTEROP_PEERS=required

It fetches the registries' servers, nginx, Prometheus, grpcurl, cargo-deny and the interop peers into the
project's cache where they are missing; \`test.sh fetch\` only fetches what the part test needs. A part whose
tool is missing fails and names the package to install.
Without Java and Maven the tests of ZooKeeper and Eureka are skipped, and without Node.js that of Eureka's
JavaScript client. A skipped test prints SKIPPED; if CI is set, it fails.

  --help    this text
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

chosen=()
while (($#)); do
    case $1 in
        --help | -h) usage && exit ;;
        *) [[ " fetch ${parts[*]} " == *" $1 "* ]] || { usage >&2; die "unknown part '$1'"; }; chosen+=("$1") ;;
    esac
    shift
done
((${#chosen[@]})) || chosen=("${parts[@]}")
need cargo "rustup (or cargo)"
need curl curl
cd "$root"
# The terminal's width and colours must not change the compared output.
export CARGO_TERM_COLOR=never NO_COLOR=1
unset COLUMNS

part_lint() {
    need shellcheck shellcheck
    cargo fmt --all --check
    if [[ " ${chosen[*]} " == *" test "* ]]; then
        # Downloads wait for the network, clippy for the processors. What fails here fails again in the part `test`.
        trap 'end_groups; end_all 20' EXIT
        start /dev/null scripts/test.sh fetch
    fi
    cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
    wait
    trap - EXIT
    shellcheck -x scripts/*.sh scripts/registries/*.sh .ci/run
    local deny
    deny=$(scripts/get-cargo-deny.sh)
    "$deny" --all-features --locked check licenses sources bans
    if timeout 60 "$deny" --log-level off fetch db; then
        "$deny" --all-features --locked check advisories
    else
        say "SKIPPED: advisories: their database (https://github.com/RustSec/advisory-db) cannot be fetched" >&2
    fi
}

# export_path VARIABLE WHAT COMMAND...: fetches or builds what some tests need by a command that prints its
# path. If the command fails, the tests are skipped and say so; in CI the script fails.
export_path() {
    local path variable=$1 what=$2
    shift 2
    if path=$("$@"); then
        export "$variable=$path"
    elif [[ ${CI:-false} != false ]]; then
        die "CI must not skip the tests of $what"
    else
        say "SKIPPED: tests of $what: not available, see above" >&2
        unset "$variable"
    fi
}

# export_server VARIABLE NAME: the same for a registry's server.
export_server() { export_path "$1" "$2" scripts/registry.sh "$2" --fetch; }

# The binaries of the workspace in the development profile: those of the tests, if they are built.
have_binaries=
need_binaries() { [[ $have_binaries ]] || cargo build --locked --quiet --workspace --bins; }

part_fetch() {
    CONSUL_BIN=$(scripts/get-consul.sh)
    export CONSUL_BIN
    export_server ETCD_BIN etcd
    export_path ETCD_PEER_BIN "Go's clients of etcd" scripts/get-go-peer.sh etcd
    export_path HEALTH_PEER_BIN "grpc-go's health watching" scripts/get-go-peer.sh health
    export_path ORCA_PEER_BIN "grpc-go's load reports" scripts/get-go-peer.sh orca
    export_server ZOOKEEPER_HOME zookeeper
    export_path CURATOR_HOME "Curator, a Java client of ZooKeeper" scripts/get-curator.sh
    export_path ZOOKEEPER_PEER_BIN "Go kit's client of ZooKeeper" scripts/get-go-peer.sh zookeeper
    export_server EUREKA_HOME eureka
    export_path EUREKA_PYTHON_HOME "Python's client of Eureka" scripts/get-eureka-peer.sh python
    export_path EUREKA_JAVASCRIPT_HOME "JavaScript's client of Eureka" scripts/get-eureka-peer.sh javascript
    export_server KNOT_HOME dns
    export_path GRPCURL_BIN grpcurl scripts/get-grpcurl.sh
    export_path NGINX_BIN nginx scripts/get-nginx.sh
}

part_test() {
    local work failed=()
    part_fetch
    work=$(mktemp -d)
    trap 'end_groups; end_all 20; rm -rf "$work"' EXIT
    test_programs "$work/programs"
    # They build the binaries that they run.
    have_binaries=1
    run_tests "$work/programs"
    cargo test --locked --workspace --all-features --doc || failed+=("the examples in the documentation")
    rm -rf "$work"
    trap - EXIT
    ((${#failed[@]} == 0)) || die "failed: ${failed[*]}"
}

# These wait for timers of real registries most of the time. `cargo test` leaves them out. The slowest first;
# consul_clusters takes half a minute or more than two, as Consul's servers notice each other.
waiting_tests=(conformance_eureka consul_clusters conformance_consul conformance_etcd eureka_servers conformance_dns
    conformance_zookeeper)
# The slowest of the others.
slow_tests=(zookeeper examples etcd_watch survival unreachable browser odd_clients servers)

# test_programs FOLDER: builds every test program and writes a script PACKAGE:PROGRAM into FOLDER, or for one of
# `waiting_tests` into FOLDER/waiting, that runs it as cargo does.
test_programs() {
    local name waiting=()
    for name in "${waiting_tests[@]}"; do waiting+=(--test "$name"); done
    # With the examples, which a test runs.
    cargo test --locked --workspace --all-features --no-run
    cargo test --locked --workspace --all-features --no-run "${waiting[@]}"
    mkdir -p "$1/waiting"
    record_tests "$1" --tests
    record_tests "$1/waiting" "${waiting[@]}" -- --nocapture
}

# record_tests FOLDER ARGUMENT...: cargo gives each program to a command that writes down the variables, the folder
# and the arguments that cargo sets for it.
record_tests() {
    local folder=$1
    shift
    # shellcheck disable=SC2016 # expanded by that command
    local record='{ export -p; printf "cd %q\nexec" "$PWD"; printf " %q" "$@"; } >"$0/$CARGO_PKG_NAME:${1##*/}"'
    cargo --config "target.'cfg(all())'.runner = ['bash', '-c', '$record', '$folder']" \
        test --locked --workspace --all-features "$@" 2>"$folder.log" || { cat "$folder.log" >&2; die "cannot list the tests"; }
}

# run_tests FOLDER: runs the test programs of test_programs, two of each kind at a time: most tests wait for timers
# and processes, so one program leaves half of two cores idle. Adds those that fail to `failed`.
run_tests() {
    local file result waiting others ended
    local -A of=() kind=() since=()
    waiting=$(in_front "$1/waiting" "${waiting_tests[@]}")
    others=$(in_front "$1" "${slow_tests[@]}")
    mapfile -t waiting <<<"$waiting"
    mapfile -t others <<<"$others"
    # start_next KIND: starts the first program of an array.
    start_next() {
        local -n queue=$1
        ((${#queue[@]})) || return 0
        start "${queue[0]}.log" bash "${queue[0]}"
        of[$pid]=${queue[0]} kind[$pid]=$1 since[$pid]=$SECONDS
        queue=("${queue[@]:1}")
    }
    for _ in 1 2; do
        start_next waiting
        start_next others
    done
    while ((${#of[@]})); do
        result=passed
        wait -n -p ended "${!of[@]}" || result=FAILED
        file=${of[$ended]}
        printf '\n--- %s: %s in %d s\n' "${file##*/}" "$result" $((SECONDS - since[$ended]))
        cat "$file.log"
        [[ $result == passed ]] || failed+=("${file##*/}")
        start_next "${kind[$ended]}"
        unset "of[$ended]"
    done
}

# in_front FOLDER NAME...: prints the files of test_programs, those of these tests first.
in_front() {
    local name folder=$1
    shift
    {
        for name; do
            compgen -G "$folder/*:$name-*" || die "there is no test '$name'"
        done
        printf '%s\n' "$folder"/*:*
    } | awk '!seen[$0]++'
}

part_doc() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps --quiet
}

part_package() {
    local work target=${CARGO_TARGET_DIR:-$root/target}
    rm -f "$target"/package/discovery-*.crate
    cargo package --locked --quiet --no-verify --allow-dirty -p discovery
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    tar -xzf "$target"/package/discovery-*.crate -C "$work"
    (cd "$work"/discovery-* && cargo check --locked --quiet --all-features --target-dir "$target")
    rm -rf "$work"
    trap - EXIT
}

part_scripts() {
    scripts/get-grpcurl.sh >/dev/null || say "no grpcurl (see above): the demo runs without it"
    scripts/demo.sh --once
    scripts/demo.sh --once --registry etcd
    ctrl_c_on_demo
    ctrl_c_on_instances
    ctrl_c_on_registry
    shell_files
    local script
    for script in scripts/*.sh; do
        [[ $script == */lib*.sh ]] && continue
        (cd / && "$root/$script" --help | grep -q '^usage: ') || die "$script --help prints no usage"
        if "$script" --no-such-flag >/dev/null 2>&1; then
            die "$script accepts an unknown flag"
        fi
    done
}

# Ends the wait for the demo: it is up, or it has ended.
up_or_died() { grep -q 'Up until Ctrl-C' "$2" || gone "$1"; }

# A Ctrl-C while the demo stays up is its normal end.
ctrl_c_on_demo() {
    local work demo
    work=$(mktemp -d)
    trap 'end_all 60; rm -rf "$work"' EXIT
    start "$work/demo.log" scripts/demo.sh
    demo=$pid
    wait_until 300 "the demo to stay up" up_or_died "$demo" "$work/demo.log"
    kill -INT "$demo" 2>/dev/null || true
    wait "$demo" || { cat "$work/demo.log" >&2; die "demo.sh failed after Ctrl-C"; }
    grep -q 'no registration is left' "$work/demo.log" || die "demo.sh did not check for registrations that are left"
    rm -rf "$work"
    trap - EXIT
    say "demo.sh: stopped by Ctrl-C"
}

# Two instances register, a Ctrl-C ends them, and none is left in Consul.
ctrl_c_on_instances() {
    local work consul instances
    work=$(mktemp -d)
    trap 'end_all 20; rm -rf "$work"' EXIT
    start_consul "$work"
    start "$work/instances.log" scripts/trim-instances.sh 2 --port 0 -- \
        --ip 127.0.0.1 --listen 127.0.0.1 --consul "$consul" --drain 200ms
    instances=$pid
    in_consul() { [[ $(curl -fsS "http://$consul/v1/agent/services" | grep -oE '"ID": ?"trim_service-' | wc -l) == "$1" ]]; }
    wait_until 120 "two registrations" in_consul 2
    kill -INT "$instances"
    wait "$instances" || { cat "$work/instances.log" >&2; die "trim-instances.sh failed after Ctrl-C"; }
    in_consul 0 || die "trim-instances.sh left registrations behind"
    end_all 20
    rm -rf "$work"
    trap - EXIT
    say "trim-instances.sh: two instances registered and deregistered"
}

# A Ctrl-C ends a registry's server, and the data stay.
ctrl_c_on_registry() {
    local work registry port
    work=$(mktemp -d)
    trap 'end_all 20; rm -rf "$work"' EXIT
    port=$(free_port)
    start "$work/registry.log" scripts/registry.sh etcd --port "$port" --data "$work/data"
    registry=$pid
    wait_until 120 "etcd to answer" grep -q "^etcd ready: etcd://127.0.0.1:$port" "$work/registry.log"
    kill -INT "$registry"
    wait "$registry" || { cat "$work/registry.log" >&2; die "registry.sh failed after Ctrl-C"; }
    ! pgrep -f "$work/data" >/dev/null || die "registry.sh left its server behind"
    [[ -d $work/data/etcd ]] || die "registry.sh did not keep its data"
    rm -rf "$work"
    trap - EXIT
    say "registry.sh: stopped by Ctrl-C"
}

# Every file that packages install is written.
shell_files() {
    local work
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    need_binaries
    scripts/shell-files.sh --bin "${CARGO_TARGET_DIR:-target}/debug" "$work"
    (($(find "$work" -type f -size +100c | wc -l) == 17)) || die "shell-files.sh did not write 17 files"
    rm -rf "$work"
    trap - EXIT
}

part_readme() {
    need_binaries
    local bin=${CARGO_TARGET_DIR:-$root/target}/debug name
    (($(wc -l <README.md) <= 200)) || die "README.md is longer than 200 lines"
    scripts/check-readme.py || die "README.zh-CN.md is not in step, see above"
    readme_help trim-service/README.md trim-service
    readme_help add-service/README.md add-service
    readme_help discovery/cli/README.md discovery
    for name in watch resolve call register doctor; do
        readme_help discovery/cli/README.md discovery "$name"
    done
    readme_calls "$bin"
}

# readme_help FILE COMMAND...: compares the block that follows the line `$ COMMAND -h`, up to the end of its
# fence, with the output. Uses `bin`.
readme_help() {
    local file=$1
    shift
    diff <(sed -n "/^\\\$ $* -h\$/,/^\`\`\`/p" "$file" | sed '1d;$d') \
        <("$bin/$1" "${@:2}" -h </dev/null 2>/dev/null) || die "$file: the block of $* -h is not its current output"
}

# Makes the curl calls that add-service/README.md shows, and compares their answers.
readme_calls() {
    local work trim add
    work=$(mktemp -d)
    trap 'end_all 20; rm -rf "$work"' EXIT
    touch "$work/trim.log" "$work/add.log"
    start "$work/trim.log" "$1/trim-service" --listen 127.0.0.1 --port 0 --consul 127.0.0.1:1
    trim=$pid
    wait_until 30 "the trim service to listen" listening_or_died "$trim" "$work/trim.log"
    start "$work/add.log" "$1/add-service" --listen 127.0.0.1 --http-port 0 --grpc-port 0 \
        --static "$(field grpc "$work/trim.log")"
    add=$pid
    wait_until 30 "the add service to listen" listening_or_died "$add" "$work/add.log"
    # The block that begins with a call, up to the end of its fence.
    sed -n '/^\$ curl /,/^```/p' add-service/README.md | grep -v '^```' >"$work/shown"
    [[ -s $work/shown ]] || die "add-service/README.md shows no calls"
    while IFS= read -r line; do
        printf '%s\n' "$line"
        line=${line/localhost:8080/$(field http "$work/add.log")}
        # A JSON body has no newline at its end, a text has one.
        printf '%s\n' "$(eval "curl -sS ${line#\$ curl }")"
    done < <(grep '^\$ curl ' "$work/shown") >"$work/seen"
    diff "$work/shown" "$work/seen" || die "add-service/README.md shows other answers"
    end_all 20
    rm -rf "$work"
    trap - EXIT
}

part_compose() {
    need docker-compose docker-compose
    docker-compose -f docker-compose.yml config -q
}

# What a tool is missing for is said, or fails in CI.
skipped() {
    [[ ${CI:-false} == false ]] || die "CI must not skip $1: $2"
    say "SKIPPED: $1: $2" >&2
}

part_deploy() {
    need_binaries
    local bin=${CARGO_TARGET_DIR:-$root/target}/debug work
    work=$(mktemp -d)
    trap 'end_all 20; rm -rf "$work"' EXIT
    deploy_systemd "$bin" "$work"
    deploy_kubernetes "$bin" "$work"
    known_settings "$bin/trim-service" scripts/systemd/trim-service@.service scripts/kubernetes/trim-service.yaml
    known_settings "$bin/add-service" scripts/systemd/add-service.service scripts/systemd/add-service.service.d/*.conf \
        scripts/kubernetes/add-service.yaml
    rm -rf "$work"
    trap - EXIT
}

# The units are without a finding, and their services have little access to the machine.
deploy_systemd() {
    command -v systemd-analyze >/dev/null || {
        skipped "the systemd units" "there is no systemd-analyze; install it with: apt-get install systemd"
        return
    }
    cp -r scripts/systemd "$2"
    # The program of a unit must exist.
    sed -i "s|=/usr/local/bin/|=$1/|" "$2"/systemd/*.service
    local findings unit units=("$2/systemd/trim-service@8975.service" "$2/systemd/add-service.service")
    # An unknown setting is a line of its output only, not an error.
    findings=$(systemd-analyze verify --man=no --recursive-errors=no "${units[@]}" 2>&1) || findings+=$'\nfailed'
    [[ -z $findings ]] || die "systemd-analyze verify: $findings"
    for unit in trim-service@ add-service; do
        # In tenths of what it prints: 0 is a service without any access.
        systemd-analyze security --offline=true --no-pager --threshold=15 "$2/systemd/$unit.service" >"$2/security" ||
            die "$unit.service has more access than it needs: $(cat "$2/security")"
        tail -n 1 "$2/security"
    done
}

# The manifests fit their schemas and each other, and the services start with their variables.
deploy_kubernetes() {
    local bin=$1 work=$2 packages trim version variables=()
    packages=$(scripts/get-kubernetes-validate.sh) || {
        skipped "the Kubernetes manifests" "kubernetes-validate is not available, see above"
        return
    }
    local -x PYTHONPATH=$packages PYTHONDONTWRITEBYTECODE=1
    for version in 1.27.0 1.37.0; do
        python3 -m kubernetes_validate --strict --quiet -k "$version" scripts/kubernetes/*.yaml ||
            die "a manifest does not fit the schemas of Kubernetes $version"
    done
    scripts/kubernetes/check.py scripts/kubernetes || die "the manifests do not fit together"
    mapfile -t variables < <(scripts/kubernetes/check.py scripts/kubernetes add-service)
    env -i "${variables[@]}" "$bin/add-service" --print-config >/dev/null ||
        die "add-service does not accept the manifest's variables"
    mapfile -t variables < <(scripts/kubernetes/check.py scripts/kubernetes trim-service)
    touch "$work/trim.log"
    start "$work/trim.log" env -i "${variables[@]}" TRIM_LISTEN=127.0.0.1 TRIM_PORT=0 TRIM_DRAIN=100ms "$bin/trim-service"
    trim=$pid
    wait_until 30 "the trim service to listen" listening_or_died "$trim" "$work/trim.log"
    listening "$work/trim.log" || { cat "$work/trim.log" >&2; die "trim-service does not start with the manifest's variables"; }
    end_all 20
}

# known_settings PROGRAM FILE...: every flag and variable in the files is one of the program.
known_settings() {
    local program=$1 help name
    shift
    help=$("$program" --help)
    while IFS= read -r name; do
        grep -qw -e "$name" <<<"$help" || die "$(basename "$program") has no $name, which stands in $*"
    done < <(grep -hv '^ *#' "$@" | grep -oE '\b(ADD|TRIM|REGISTRY|LOG)_[A-Z_]+|[ =]--[a-z][a-z-]*' | tr -d ' =' | sort -u)
}

part_h2spec() {
    scripts/h2spec.sh
}

part_loom() {
    # The flag replaces the atomics: a build of its own.
    RUSTFLAGS="--cfg discovery_loom" cargo test --locked -p discovery --no-default-features --lib \
        --target-dir "${CARGO_TARGET_DIR:-$root/target}/loom" loom_
}

part_bench() {
    # Whether each runs, not how fast: the development profile shares the builds of the tests.
    cargo bench --locked --profile dev --workspace --all-features \
        --bench pick --bench update --bench call -- --test
    local bin
    bin=$(build_testkit release)
    "$bin/simulation" --clients 50 --instances 500 --subset 20 --seconds 10
}

part_drill() {
    # Below 16 s only failed calls count, so rows can run at the same time.
    scripts/drill.sh --seconds 4 --jobs 3 --rerun 2
    scripts/drill.sh --seconds 4 --jobs 3 --rerun 2 --only 1 --only 7 --only 9 \
        --registry etcd --registry zookeeper --registry eureka --registry dns --registry embedded
    scripts/drill.sh --seconds 4 --jobs 3 --protocol http
}

part_observability() {
    scripts/observability.sh
}

part_gokit() {
    scripts/gokit-mix.sh
    scripts/drill.sh --seconds 4 --jobs 2 --only 2a --client gokit --client grpc-go
}

part_interop() {
    scripts/interop.sh
}

for part in "${chosen[@]}"; do
    printf '\n=== %s\n' "$part"
    begun=$SECONDS
    "part_$part"
    printf '=== %s: passed in %d s\n' "$part" $((SECONDS - begun))
done
