#!/usr/bin/env bash
# Fetches a real registry server into the project's cache, and runs it in the foreground.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: registry.sh NAME [--port PORT] [--data FOLDER]
       registry.sh NAME --fetch

Runs a registry server on 127.0.0.1 until Ctrl-C. Prints its URL once it answers. Its version is fixed,
and it is fetched into the project's cache where it is missing. Nothing is installed.

  NAME         what                                                       port    needs to be fetched
  consul       Consul from PATH, else 1.8.7 of Debian's bullseye          8500    apt-get
  etcd         etcd 3.5.16 of Debian's trixie                             2379    apt-get
  zookeeper    ZooKeeper 3.9.5                                            2181    Java 11, Maven
  eureka       Eureka 5.0.3 (Spring Cloud), with short intervals          8761    a JDK from 17, Maven
  dns          Knot DNS 3.2.6 of Debian's bookworm, zone discovery.test   5300    apt-get

  --port PORT     use this port instead; Consul and etcd use further ports near it
  --data FOLDER   keep data and log there; default: data/NAME-PORT in the cache
  --fetch         print the path of the binary (consul, etcd) or of the server's folder, and exit
  --help          this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

name='' port='' data='' fetch_only=no
while (($#)); do
    case $1 in
        --port)
            [[ ${2-} =~ ^[1-9][0-9]{3,4}$ && ${2-} -ge 1300 && ${2-} -le 65435 ]] ||
                die "--port takes 1300 to 65435"
            port=$2
            shift
            ;;
        --data)
            [[ -n ${2-} ]] || die "--data takes a folder"
            data=$2
            shift
            ;;
        --fetch) fetch_only=yes ;;
        --help | -h) usage && exit ;;
        consul | etcd | zookeeper | eureka | dns)
            [[ -z $name ]] || die "takes one NAME"
            name=$1
            ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
[[ -n $name ]] || { usage >&2; die "NAME is missing"; }

# Text that a registry may add to the ready line.
hints() { :; }
# shellcheck disable=SC1090 # one of the files beside it
source "$root/scripts/registries/$name.sh"

# A shell of its own: the lock and the folder of the fetching end with it.
path=$(fetch) || exit
if [[ $fetch_only == yes ]]; then
    say "$path"
    exit
fi

need curl curl
# shellcheck disable=SC2154 # each registry's file sets it
port=${port:-$default_port}
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    die "port $port is in use; choose another with --port"
fi
data=${data:-$cache/data/$name-$port}
mkdir -p "$data"
data=$(cd "$data" && pwd)
command=() url=''
configure "$path"

trap 'end_all 20' EXIT
trap 'exit 0' INT TERM
start "$data/log" "${command[@]}"
# shellcheck disable=SC2317 # called by wait_until
ready_or_ended() { ready || gone "$pid"; }
wait_until 120 "$name to answer" ready_or_ended || { tail -n 20 "$data/log" >&2; exit 1; }
failed() {
    tail -n 20 "$data/log" >&2
    die "$name has ended; its log is $data/log"
}
alive "$pid" || failed
say "$name ready: $url"
say "data and log: $data"
hints
wait "$pid" || true
failed
