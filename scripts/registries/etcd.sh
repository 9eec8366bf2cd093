# etcd 3.5, as Debian's trixie packages it; sourced by registry.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # registry.sh uses and sets these

default_port=2379
version=3.5.16

fetch() { fetched etcd "$version" --version fetch_etcd; }

fetch_etcd() {
    from_debian trixie "etcd-server=$version-"
    mv "$work/unpacked/usr/bin/etcd" "$work/etcd"
}

# configure PATH: sets the command and the URL.
configure() {
    local client=http://127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
    command=("$1" --name default --data-dir "$data/etcd" --logger zap --log-outputs stderr
        --listen-client-urls "$client" --advertise-client-urls "$client"
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer")
    url=etcd://127.0.0.1:$port
    # The settings are the ones above, not those of another etcd.
    unset "${!ETCD_@}"
}

ready() { [[ $(curl -fsS --max-time 2 "http://127.0.0.1:$port/health" 2>/dev/null) == *true* ]]; }

# registered SERVICE: prints the number of its entries at $address. Fails if etcd does not answer.
registered() {
    local begin end answer
    # The end of the range is the prefix with its last byte, a slash, increased.
    begin=$(printf 'services/%s/' "$1" | base64 -w 0) end=$(printf 'services/%s0' "$1" | base64 -w 0)
    answer=$(curl -fsS --max-time 5 -d '{"key":"'"$begin"'","range_end":"'"$end"'","count_only":true}' \
        "http://$address/v3/kv/range") || return
    sed -nE 's/.*"count":"([0-9]+)".*/\1/p; t; s/.*/0/p' <<<"$answer"
}
