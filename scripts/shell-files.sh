#!/usr/bin/env bash
# Writes the shell completions and manual pages of the three binaries, as packages install them.
set -euo pipefail

usage() {
    cat <<'EOF2'
usage: shell-files.sh [--bin FOLDER] FOLDER

Writes the completions (bash, zsh, fish) and manual pages of trim-service, add-service and discovery
below FOLDER, in the places that packages use below /usr:

  share/bash-completion/completions   share/zsh/site-functions   share/fish/vendor_completions.d
  share/man/man1

A user's own bash and fish read completions below ~/.local too. The binaries print each file by
themselves: discovery --generate complete-bash, discovery --generate man watch.

  --bin FOLDER   the folder of the built binaries (default: target/release, which is built first)
  --help         this text
EOF2
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bin='' target=''
while (($#)); do
    case $1 in
        --bin) [[ -n ${2:-} ]] || die "--bin needs a folder"; bin=$2; shift ;;
        --help | -h) usage && exit ;;
        -*) usage >&2 && die "unknown argument '$1'" ;;
        *) [[ -z $target ]] || { usage >&2; die "unexpected argument '$1'"; }; target=$1 ;;
    esac
    shift
done
[[ -n $target ]] || { usage >&2; die "needs the folder to write to"; }
if [[ -z $bin ]]; then
    need cargo "rustup (or cargo)"
    (cd "$root" && cargo build --locked --quiet --release -p trim-service -p add-service -p discovery-cli)
    bin=${CARGO_TARGET_DIR:-$root/target}/release
fi

share=$target/share
bash=$share/bash-completion/completions zsh=$share/zsh/site-functions
fish=$share/fish/vendor_completions.d man=$share/man/man1
mkdir -p "$bash" "$zsh" "$fish" "$man"
for name in trim-service add-service discovery; do
    [[ -x $bin/$name ]] || die "there is no $bin/$name; build it, or name its folder with --bin"
    "$bin/$name" --generate complete-bash >"$bash/$name"
    "$bin/$name" --generate complete-zsh >"$zsh/_$name"
    "$bin/$name" --generate complete-fish >"$fish/$name.fish"
    "$bin/$name" --generate man >"$man/$name.1"
done
for name in watch resolve call register doctor; do
    "$bin/discovery" --generate man "$name" >"$man/discovery-$name.1"
done
say "wrote the completions and manual pages to $share"
