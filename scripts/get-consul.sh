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

if [[ $look_on_path == yes ]] && command -v consul; then
    exit
fi
binary=$cache/consul-$version/consul
if [[ ! -x $binary ]]; then
    for command in apt-get dpkg flock; do
        command -v $command >/dev/null || die "no consul on PATH, and no $command to fetch one with; \
install Consul (https://developer.hashicorp.com/consul/install) and put it on PATH"
    done
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -r $keyring ]] || die "needs Debian's keyring; install it with: apt-get install debian-archive-keyring"
    mkdir -p "$cache"
    # Two at once: the second waits and finds what the first has fetched.
    exec 9>"$cache/consul.lock"
    flock 9
fi
if [[ ! -x $binary ]]; then
    # What apt is set up to use for Debian's main archive on this machine; the last resort is
    # Debian's own name for "any mirror". awk reads to the end, here and below: were it to leave
    # early, apt's next line would end this script by SIGPIPE.
    # shellcheck disable=SC2016 # these are apt's own fields
    mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | awk '!found && $3 == "main" && $2 !~ /security|updates|backports/ { found = $1 }
            END { print found }')
    mirror=${mirror:-http://deb.debian.org/debian}
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    echo "deb [signed-by=$keyring] $mirror bullseye main" >"$work/sources.list"
    options=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User="$(id -un)"
        -o Acquire::Languages=none -o Acquire::Retries=3)
    say "fetching Consul $version into $cache" >&2
    {
        apt-get "${options[@]}" update &&
            found=$(apt-cache "${options[@]}" madison consul | awk -v want="$version" \
                '{ gsub(/ /, "", $3) } !found && index($3, want) == 1 { found = $3 } END { print found }') &&
            [[ -n $found ]] &&
            (cd "$work" && apt-get "${options[@]}" download "consul=$found")
    } >&2 || die "cannot fetch Consul $version from $mirror (bullseye); put a consul on PATH instead"
    dpkg-deb -x "$work"/consul_*.deb "$work/unpacked"
    "$work/unpacked/usr/bin/consul" version >/dev/null || die "the fetched Consul does not run"
    mkdir -p "$(dirname "$binary")"
    # Moved into place whole, so that nobody finds half a file.
    cp "$work/unpacked/usr/bin/consul" "$binary.new"
    mv "$binary.new" "$binary"
fi
say "$binary"
