# Consul; sourced by registry.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # registry.sh uses and sets these

default_port=8500

fetch() { "$root/scripts/get-consul.sh"; }

# configure PATH: sets the command and the URL. The other ports are at Consul's usual distances from the
# one of HTTP: 8300 to 8302 for the cluster and 8600 for DNS beside 8500.
configure() {
    command=("$1" agent -server -bootstrap-expect 1 -ui -node registry -data-dir "$data/consul"
        -bind 127.0.0.1 -client 127.0.0.1 -http-port "$port" -dns-port $((port + 100)) -grpc-port -1
        -server-port $((port - 200)) -serf-lan-port $((port - 199)) -serf-wan-port $((port - 198))
        -hcl 'performance { raft_multiplier = 1 } limits { http_max_conns_per_client = 1000 }')
    url=consul://127.0.0.1:$port
    # The settings are the ones above, not those of another Consul.
    unset "${!CONSUL_@}"
}

ready() { consul_leads "127.0.0.1:$port"; }

# registered SERVICE [passing]: prints the number of instances, or of healthy ones, at $address. Fails if
# Consul does not answer.
registered() {
    local answer
    answer=$(curl -fsS --max-time 5 "http://$address/v1/health/service/$1?${2-}") || return
    { grep -oE '"ID": ?"'"$1"'-[^"]*"' <<<"$answer" || true; } | sort -u | wc -l
}
