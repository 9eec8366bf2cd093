#!/usr/bin/env bash
# Checks the alert rules and the dashboard with promtool, and with a Prometheus that scrapes the running drill.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: observability.sh [--seconds N] [--debug]

Checks scripts/observability: promtool accepts the rules and passes their tests; a Prometheus on a free port
scrapes the add service of six rows of the drill, all at a time; each alert fires in the row made
for it and in no other; every metric that the rules and the dashboard name is in the scrapes; and promtool
accepts a scrape. The windows of the rules are shortened to seconds for it.

  --seconds N   length of each row's load (default 4)
  --debug       build and run the development profile: on a busy machine the alerts of a row may differ
  --help        this text
EOT
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=4
profile=release
while (($#)); do
    case $1 in
        --seconds) [[ ${2-} =~ ^[0-9]+$ ]] || { usage >&2; die "--seconds needs a number"; }; seconds=$2; shift ;;
        --debug) profile=debug ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
need cargo "rustup (or cargo)"
need curl curl
need python3 python3

# The rows in which each alert fires. The other rows of the run, and a service that nothing happens to, have
# none.
declare -A rows=(
    [DiscoveryNoInstance]="9"
    [DiscoveryDeadlinesExceeded]="16"
    [DiscoveryInstanceEjected]="5a"
    [DiscoveryConnectionsShortLived]="13"
    # Both kill the registry for a moment.
    [DiscoveryRegistryFails]="7b 7c"
)
folder=$root/scripts/observability
tools=$("$root/scripts/get-prometheus.sh")
CONSUL_BIN=$("$root/scripts/get-consul.sh")
export CONSUL_BIN
"$tools/promtool" check rules "$folder/rules.yml"
(cd "$folder" && "$tools/promtool" test rules rules_test.yml)
work=$(mktemp -d)
trap 'end_all 20; rm -rf "$work"' EXIT
sed -E 's/\[5m\]/[3s]/g; s/for: 2m/for: 300ms/' "$folder/rules.yml" >"$work/rules.yml"
# Known before they run: Prometheus takes up to ten seconds to see a new target.
only=() quiet=$(free_port)
{
    sed -E 's/(scrape|evaluation)_interval: 15s/\1_interval: 400ms/; s/^global:/&\n  scrape_timeout: 400ms/; /- targets/d' \
        "$folder/prometheus.yml"
    say "      - {targets: [\"127.0.0.1:$quiet\"], labels: {row: quiet}}"
    for row in $(printf '%s\n' "${rows[@]}" | tr ' ' '\n' | sort -u); do
        port=$(free_port)
        only+=(--only "$row" --http-port "$row=$port")
        say "      - {targets: [\"127.0.0.1:$port\"], labels: {row: \"$row\"}}"
    done
} >"$work/prometheus.yml"
prometheus=127.0.0.1:$(free_port)
start "$work/prometheus.log" "$tools/prometheus" --config.file="$work/prometheus.yml" --log.level=warn \
    --storage.tsdb.path="$work/data" --web.listen-address="$prometheus"
server=$pid
up_or_died() { curl -fsS "http://$prometheus/-/ready" >/dev/null 2>&1 || gone "$server"; }
wait_until 30 "Prometheus" up_or_died
alive "$server" || { cat "$work/prometheus.log" >&2; die "Prometheus does not start"; }

bin=$(build_testkit "$profile")

# A service that nothing happens to, with a call of every kind.
touch "$work/trim.log" "$work/add.log"
start "$work/trim.log" "$bin/trim-service" --listen 127.0.0.1 --port 0 --consul 127.0.0.1:1 --drain 200ms
trim=$pid
wait_until 30 "the trim service" listening_or_died "$trim" "$work/trim.log"
start "$work/add.log" "$bin/add-service" --listen 127.0.0.1 --http-port "$quiet" --grpc-port 0 --drain 200ms \
    --static "$(field grpc "$work/trim.log")"
add=$pid
wait_until 30 "the add service" listening_or_died "$add" "$work/add.log"
http=$(field http "$work/add.log")
curl -fsS -d '{"a":"1 0","b":"2 0"}' "http://$http/concat" >/dev/null
printf '\0\0\0\0\0' | curl -fsS --http2-prior-knowledge -H 'content-type: application/grpc' -H 'te: trailers' \
    --data-binary @- "http://$(field grpc "$work/add.log")/pb.Add/Sum" >/dev/null

# Prometheus begins to scrape some seconds after its start.
scraping() { (($(curl -fsS "http://$prometheus/api/v1/targets?state=active" | grep -o '"lastScrape":"20' | wc -l) > ${#only[@]} / 4)); }
wait_until 30 "Prometheus to scrape" scraping

# Fewer calls than the drill makes: the rows run at the same time, and their own verdict is the drill's.
rate=50
[[ $profile == release ]] || rate=20
"$bin/drill" --seconds "$seconds" --rate "$rate" --jobs 6 "${only[@]}" || true
curl -fsS "http://$http/metrics" >"$work/scrape"
"$tools/promtool" check metrics <"$work/scrape" || die "promtool refuses the metrics of the add service"

table=$(for alert in "${!rows[@]}"; do say "$alert ${rows[$alert]}"; done)
python3 - "$prometheus" "$folder" "$table" <<'EOT'
import json, re, sys
from urllib.parse import urlencode
from urllib.request import urlopen

server, folder, table = sys.argv[1:]
failed = False

def fail(text):
    global failed
    failed = True
    print(f"FAILED: {text}")

def api(path, **query):
    return json.load(urlopen(f"http://{server}/api/v1/{path}?{urlencode(query)}"))["data"]

rules = open(f"{folder}/rules.yml").read()
expected = {alert: set(rows) for alert, *rows in map(str.split, table.splitlines())}
named = set(re.findall(r"- alert: (\w+)", rules))
if named != set(expected):
    fail(f"alerts without a row, or rows without an alert: {named ^ set(expected)}")
fired = {alert: set() for alert in expected}
query = 'count by (alertname, row) (max_over_time(ALERTS{alertstate="firing"}[1h]))'
for sample in api("query", query=query)["result"]:
    fired[sample["metric"]["alertname"]].add(sample["metric"]["row"])
seen_rows = {sample["metric"]["row"] for sample in api("query", query="count by (row) (max_over_time(up[1h]))")["result"]}
print(f"rows: {' '.join(sorted(seen_rows))}")
for alert in sorted(expected):
    wanted, seen = expected[alert], fired[alert]
    print(f"{alert}: fired in {' '.join(sorted(seen)) or 'no row'}")
    for row in sorted(wanted - seen):
        fail(f"{alert} did not fire in row {row}, which is made for it")
    for row in sorted(seen - wanted):
        fail(f"{alert} fired in row {row}, which is not made for it")

dashboard = json.load(open(f"{folder}/dashboard.json"))
queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
queries += re.findall(r"expr: >-\n((?: {10}.*\n)+)", rules) + re.findall(r"expr: (?!>-)(.*)", rules)
known = set(api("label/__name__/values"))
used = set()
for query in queries:
    # Without labels, what is left with these beginnings is a metric.
    query = re.sub(r"\{[^}]*\}|\b(?:by|on|without)\s*\([^)]*\)", " ", query)
    used |= set(re.findall(r"\b(?:discovery|grpc|http)_\w+", query))
for name in sorted(used - known):
    fail(f"no scrape has {name}")
print(f"{len(used)} metrics of the rules and the dashboard are in the scrapes" if used <= known else "")
sys.exit(failed)
EOT
say "observability: the alerts fire in their rows only"
