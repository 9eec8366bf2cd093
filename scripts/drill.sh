#!/usr/bin/env bash
# The fault drill: real processes under load, one fault at a time, and a table of what was noticed.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: drill.sh [--only ROW]... [--seconds N] [--rate N] [--json] [--list] [-- FLAG...]

Starts a Consul, five trim instances and the add service for every row, sends a steady 500 calls a
second through HTTP, and does what the row says. Exits with 1 if a row did not hold: no call may fail
(but where every instance is dead), and 99 of 100 calls are answered within 50 ms.

  --only ROW    this row only, by number or name; repeatable
  --seconds N   length of each row's load (default 20); below 16 s the 99th percentile is shown and
                not judged
  --rate N      calls a second (default 500)
  --json        one JSON object a row
  --list        the rows
  --            what follows is for the add service, for example -- --hedge p95
  --help        this text

Rows 8 and 11c make a network namespace and need root; without it they are skipped, and say so.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ ${1-} != --help && ${1-} != -h ]] || { usage; exit; }
need cargo "rustup (or cargo)"
CONSUL_BIN=$("$root/scripts/get-consul.sh")
export CONSUL_BIN
# Optimized, as a service would run.
cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" \
    -p testkit -p trim-service -p add-service --bins
exec "${CARGO_TARGET_DIR:-$root/target}/release/drill" "$@"
