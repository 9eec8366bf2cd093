#!/usr/bin/env bash
# Installs kubernetes-validate into the project's cache, and prints its folder.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: get-kubernetes-validate.sh

Prints the folder of kubernetes-validate 1.37.0, a PyPI package that checks Kubernetes manifests against
the schemas of Kubernetes, without a cluster. It is put into the project's cache where it is missing there,
with what it depends on; versions and checksums are fixed. Nothing is installed. It needs Python 3.11 or
later with pip, on Linux:

  PYTHONPATH=$(scripts/get-kubernetes-validate.sh) python3 -m kubernetes_validate --strict FILE...

Of the schemas it keeps those of Kubernetes 1.27 and 1.37.

  --help   this text

DISCOVERY_CACHE names another cache folder than .cache in the project.
EOF
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib-fetch.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib-fetch.sh"

help_only "$@"
need python3 python3
need sha256sum coreutils
python3 -m pip --version >/dev/null 2>&1 || die "needs pip; install it with: apt-get install python3-pip"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or later"

list=$root/scripts/kubernetes/requirements.txt
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The files are those of one version of Python.
version=1.37.0-python$python-$(sha256sum "$list" | cut -c 1-12)

install() {
    local folder=$work/kubernetes-validate
    python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --no-cache-dir --no-deps \
        --no-compile --only-binary :all: --require-hashes -r "$list" --target "$folder" ||
        die "cannot fetch kubernetes-validate"
    find "$folder/kubernetes_validate/kubernetes-json-schema" -mindepth 1 -maxdepth 1 -type d \
        ! -name 'v1.27.*' ! -name 'v1.37.*' -exec rm -r {} +
}

fetched_folder kubernetes-validate "$version" install
