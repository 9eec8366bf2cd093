#!/usr/bin/env bash
# Builds the test program with Apache Curator in the project's cache, and prints its folder.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-curator.sh

Prints the folder of a small program that uses Curator's service discovery (5.9, a Java client of
ZooKeeper): its class in `classes`, and what it needs in `lib`. Where it is missing, it is built in the
project's cache with a JDK from 17 and Maven. Nothing is installed. The tests of the ZooKeeper registry
find it by CURATOR_HOME.

  --help    this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

help_only "$@"

version=5.9.0

build() {
    local folder=$root/scripts/registries/zookeeper/curator
    need javac default-jdk-headless
    # shellcheck disable=SC2154 # fetched_folder sets it
    from_maven "$folder/pom.xml" "$work/curator/lib" \
        6eb2cf2cf367919229c61dceccba725a1078daed7ccd40df41b9c8c5d1570396
    javac --release 17 -cp "$work/curator/lib/*" -d "$work/curator/classes" "$folder"/*.java ||
        die "cannot compile the program in $folder"
}

fetched_folder curator "$version" build
