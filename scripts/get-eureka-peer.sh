#!/usr/bin/env bash
# Installs a client of Eureka, and the program that tests it, into the project's cache, and prints its folder.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-eureka-peer.sh python|javascript

Prints the folder of a program that registers and finds instances in Eureka with the client that programs
of that language use. The program and the client's packages are put into the project's cache where they
are missing there. The packages have fixed versions and checksums. Nothing is installed. The tests of the
Eureka registry find the folders by EUREKA_PYTHON_HOME and EUREKA_JAVASCRIPT_HOME.

  python       py-eureka-client 0.13.3; needs Python 3.10 with pip
  javascript   eureka-js-client 4.5.0; needs Node.js with npm

  --help   this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

language=''
while (($#)); do
    case $1 in
        --help | -h) usage && exit ;;
        python | javascript) language=$1 ;;
        *) usage >&2 && die "unknown argument '$1'" ;;
    esac
    shift
done
[[ -n $language ]] || { usage >&2; die "the language is missing"; }
need sha256sum coreutils
source=$root/scripts/registries/eureka/$language

# shellcheck disable=SC2317 # fetched_folder calls it
install_python() {
    need python3 python3
    python3 -m pip --version >/dev/null 2>&1 || die "needs pip; install it with: apt-get install python3-pip"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "needs Python 3.10 or later"
    # shellcheck disable=SC2154 # fetched_folder sets it
    python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --no-cache-dir --no-deps --only-binary :all: \
        --require-hashes -r "$source/requirements.txt" --target "$work/$name/packages" ||
        die "cannot fetch py-eureka-client"
    cp "$source/peer.py" "$work/$name"
}

# shellcheck disable=SC2317 # fetched_folder calls it
install_javascript() {
    need node nodejs
    need npm npm
    mkdir "$work/$name"
    cp "$source"/{peer.js,package.json,package-lock.json} "$work/$name"
    # A cache of its own: nothing is left in the user's.
    npm ci --prefix "$work/$name" --cache "$work/npm" --ignore-scripts --no-audit --no-fund --loglevel error ||
        die "cannot fetch eureka-js-client"
}

name=eureka-$language
# A changed program or list of packages is installed anew.
version=$(cat "$source"/* | sha256sum | cut -c 1-12)
fetched_folder "$name" "$version" "install_$language"
