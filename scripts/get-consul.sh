#!/usr/bin/env bash
# Finds a Consul, or fetches one into the project's cache, and prints the path of its binary.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-consul.sh [--fetch]

Prints the path of a Consul binary: the one on PATH, else the one in the project's cache, else one
fetched there: Consul 1.8.7 as Debian's bullseye packages it, over apt's own mirror and with apt's
signature check. Nothing is installed; apt's lists and packages stay as they are.

  --fetch   do not look on PATH
  --help    this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

version=1.8.7+dfsg1-2
look_on_path=yes
while (($#)); do
    case $1 in
        --fetch) look_on_path=no ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done

fetch() {
    local command keyring mirror options found
    for command in apt-get dpkg; do
        command -v $command >/dev/null || die "no consul on PATH, and no $command to fetch one with; \
install Consul (https://developer.hashicorp.com/consul/install) and put it on PATH"
    done
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -r $keyring ]] || die "needs Debian's keyring; install it with: apt-get install debian-archive-keyring"
    # The mirror that apt on this machine uses for Debian's main archive, else Debian's own name for
    # any mirror. awk reads to the end, here and below: if it ended early, apt's next line would end
    # this script by SIGPIPE.
    # shellcheck disable=SC2016 # these are apt's own fields
    mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | awk '!found && $3 == "main" && $2 !~ /security|updates|backports/ { found = $1 }
            END { print found }')
    mirror=${mirror:-http://deb.debian.org/debian}
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    echo "deb [signed-by=$keyring] $mirror bullseye main" >"$work/sources.list"
    options=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User="$(id -un)"
        -o Acquire::Languages=none -o Acquire::Retries=3)
    {
        apt-get "${options[@]}" update &&
            found=$(apt-cache "${options[@]}" madison consul | awk -v want="$version" \
                '{ gsub(/ /, "", $3) } !found && index($3, want) == 1 { found = $3 } END { print found }') &&
            [[ -n $found ]] &&
            (cd "$work" && apt-get "${options[@]}" download "consul=$found")
    } || die "cannot fetch Consul $version from $mirror (bullseye); put a consul on PATH instead"
    dpkg-deb -x "$work"/consul_*.deb "$work/unpacked"
    mv "$work/unpacked/usr/bin/consul" "$work/consul"
}

if [[ $look_on_path == yes ]] && command -v consul; then
    exit
fi
fetched consul "$version" version fetch
