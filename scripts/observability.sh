#!/usr/bin/env bash
# Checks the alert rules and the dashboard with promtool, and with a Prometheus that scrapes the running drill.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: observability.sh [--seconds N] [--jobs N] [--debug]

Checks scripts/observability: promtool accepts the rules and passes their tests; a Prometheus on a free port
scrapes the add service of every row of the drill; each alert fires in the rows made for it and in no
other; every metric that the rules and the dashboard name is in the scrapes; and promtool accepts a scrape.
The windows of the rules are shortened to seconds for it.

  --seconds N   length of each row's load (default 4)
  --jobs N      number of rows that run at the same time (default 6)
  --debug       build and run the development profile: on a busy machine the alerts of a row may differ
  --help        this text

Rows that cannot run here, as drill.sh --help says, are reported as SKIPPED, and their alerts are not
required.
EOT
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=4
jobs=6
profile=release
while (($#)); do
    case $1 in
        --seconds) [[ ${2-} =~ ^[0-9]+$ ]] || { usage >&2; die "--seconds needs a number"; }; seconds=$2; shift ;;
        --jobs) [[ ${2-} =~ ^[1-8]$ ]] || { usage >&2; die "--jobs needs a number from 1 to 8"; }; jobs=$2; shift ;;
        --debug) profile=debug ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
need cargo "rustup (or cargo)"
need curl curl
need python3 python3

# The rows in which each alert fires: its fault lasts there. No other row has it, nor has a service that
# nothing happens to.
declare -A rows=(
    [DiscoveryNoInstance]="9"
    [DiscoveryDeadlinesExceeded]="16"
    # An instance that is connected and does not answer, or answers wrongly.
    [DiscoveryInstanceEjected]="3a 3b 4 5a 5b 8 11a 11c 14a 14b 15"
    [DiscoveryRemovalsProtected]="7d"
    [DiscoveryRetryBudgetEmpty]="17"
    [DiscoveryConnectionsShortLived]="13"
    # The registry is killed, and is back after a moment.
    [DiscoveryRegistryFails]="7b 7c 7d"
)
# The rows in which an alert may fire: its cause is there for a moment, which may be long enough.
declare -A brief=(
    # Until the instances have registered again, or their checks pass again.
    [DiscoveryRemovalsProtected]="7b 7c"
)
folder=$root/scripts/observability
tools=$("$root/scripts/get-prometheus.sh")
CONSUL_BIN=$("$root/scripts/get-consul.sh")
# The row that needs it is skipped without.
NGINX_BIN=$("$root/scripts/get-nginx.sh") || NGINX_BIN=
export CONSUL_BIN NGINX_BIN
"$tools/promtool" check rules "$folder/rules.yml"
(cd "$folder" && "$tools/promtool" test rules rules_test.yml)
bin=$(build_testkit "$profile")

work=$(mktemp -d)
trap 'end_all 20; rm -rf "$work"' EXIT
sed -E 's/\[5m\]/[3s]/g; s/for: 2m/for: 300ms/' "$folder/rules.yml" >"$work/rules.yml"
# Known before they run: Prometheus takes up to ten seconds to see a new target.
only=() ports=() quiet=$(free_port)
# They stay free until their row runs: below the ports that free_port and the drill's own servers take.
next=$((10000 + RANDOM % 9000))
{
    sed -E 's/(scrape|evaluation)_interval: 15s/\1_interval: 400ms/; s/^global:/&\n  scrape_timeout: 400ms/; /- targets/d' \
        "$folder/prometheus.yml"
    say "      - {targets: [\"127.0.0.1:$quiet\"], labels: {row: quiet}}"
    while read -r row _; do
        while (exec 3<>"/dev/tcp/127.0.0.1/$next") 2>/dev/null; do next=$((next + 1)); done
        port=$next next=$((next + 1))
        [[ $row == 12 ]] || only+=(--only "$row")
        ports+=(--http-port "$row=$port")
        say "      - {targets: [\"127.0.0.1:$port\"], labels: {row: \"$row\"}}"
    done < <("$bin/drill" --list)
} >"$work/prometheus.yml"
prometheus=127.0.0.1:$(free_port)
start "$work/prometheus.log" "$tools/prometheus" --config.file="$work/prometheus.yml" --log.level=warn \
    --storage.tsdb.path="$work/data" --web.listen-address="$prometheus"
server=$pid
up_or_died() { curl -fsS "http://$prometheus/-/ready" >/dev/null 2>&1 || gone "$server"; }
wait_until 30 "Prometheus" up_or_died
alive "$server" || { cat "$work/prometheus.log" >&2; die "Prometheus does not start"; }

# A service that nothing happens to, with a call of every kind.
touch "$work/trim.log" "$work/add.log"
start "$work/trim.log" "$bin/trim-service" --listen 127.0.0.1 --port 0 --consul 127.0.0.1:1 --drain 200ms
trim=$pid
wait_until 30 "the trim service" listening_or_died "$trim" "$work/trim.log"
start "$work/add.log" "$bin/add-service" --listen 127.0.0.1 --http-port "$quiet" --grpc-port 0 --drain 200ms \
    --static "$(field grpc "$work/trim.log")" --balancer weighted-round-robin
add=$pid
wait_until 30 "the add service" listening_or_died "$add" "$work/add.log"
http=$(field http "$work/add.log")
curl -fsS -d '{"a":"1 0","b":"2 0"}' "http://$http/concat" >/dev/null
printf '\0\0\0\0\0' | curl -fsS --http2-prior-knowledge -H 'content-type: application/grpc' -H 'te: trailers' \
    --data-binary @- "http://$(field grpc "$work/add.log")/pb.Add/Sum" >/dev/null

# Prometheus begins to scrape some seconds after its start.
scraping() { (($(curl -fsS "http://$prometheus/api/v1/targets?state=active" | grep -o '"lastScrape":"20' | wc -l) > ${#ports[@]} / 2)); }
wait_until 30 "Prometheus to scrape" scraping

# Fewer calls than the drill makes: the rows run at the same time, and their own verdict is the drill's.
rate=100
[[ $profile == release ]] || rate=20
# nginx ends a connection after 1 000 requests: in this row for longer, beside the others.
"$bin/drill" --seconds $((seconds * 3)) --rate $((rate * 3 / 2)) --only 12 "${ports[@]}" >"$work/drill-12.log" 2>&1 &
nginx=$!
"$bin/drill" --seconds "$seconds" --rate "$rate" --jobs "$jobs" "${only[@]}" "${ports[@]}" 2>&1 |
    tee "$work/drill.log" || true
wait "$nginx" || true
cat "$work/drill-12.log"
skipped=$(sed -nE 's/^([0-9]+[a-z]?) .*: SKIPPED: .*/\1/p' "$work"/drill*.log | tr '\n' ' ')
curl -fsS "http://$http/metrics" >"$work/scrape"
"$tools/promtool" check metrics <"$work/scrape" || die "promtool refuses the metrics of the add service"

table=$(for alert in "${!rows[@]}"; do say "$alert ${rows[$alert]} / ${brief[$alert]-}"; done)
python3 - "$prometheus" "$folder" "$table" "$skipped" <<'EOT'
import json, re, sys
from urllib.parse import urlencode
from urllib.request import urlopen

server, folder, table, skipped = sys.argv[1:]
skipped = set(skipped.split())
failed = False

def fail(text):
    global failed
    failed = True
    print(f"FAILED: {text}")

def api(path, **query):
    return json.load(urlopen(f"http://{server}/api/v1/{path}?{urlencode(query)}"))["data"]

rules = open(f"{folder}/rules.yml").read()
expected, brief = {}, {}
for line in table.splitlines():
    lasting, _, momentary = line.partition("/")
    alert, *rows = lasting.split()
    expected[alert], brief[alert] = set(rows), set(momentary.split())
named = set(re.findall(r"- alert: (\w+)", rules))
if named != set(expected):
    fail(f"alerts without a row, or rows without an alert: {named ^ set(expected)}")
fired = {alert: set() for alert in expected}
query = 'count by (alertname, row) (max_over_time(ALERTS{alertstate="firing"}[1h]))'
for sample in api("query", query=query)["result"]:
    fired[sample["metric"]["alertname"]].add(sample["metric"]["row"])
configured, scraped = (
    {sample["metric"]["row"] for sample in api("query", query=query)["result"]}
    for query in ("max_over_time(up[1h])", "max_over_time(up[1h]) == 1")
)
print(f"rows: {' '.join(sorted(scraped))}; SKIPPED: {' '.join(sorted(skipped)) or 'none'}")
for row in sorted(configured - scraped - skipped):
    fail(f"row {row} was not scraped")
for row in sorted(set().union(*expected.values()) - configured):
    fail(f"there is no row {row}")
for alert in sorted(expected):
    wanted, seen = expected[alert], fired[alert]
    print(f"{alert}: fired in {' '.join(sorted(seen)) or 'no row'}")
    for row in sorted(wanted - seen - skipped):
        fail(f"{alert} did not fire in row {row}, which is made for it")
    for row in sorted(seen - wanted - brief[alert]):
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
