# Knot DNS, as Debian's bookworm packages it; sourced by registry.sh. Records change at run time: by
# knotc, or by dynamic updates (RFC 2136) from this machine.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # registry.sh uses and sets these

default_port=5300
version=3.2.6
zone=discovery.test

fetch() { fetched_folder knot "$version" fetch_knot; }

fetch_knot() {
    # With the libraries that it needs beside libc, so that it also runs on another Debian.
    from_debian bookworm "knot=$version-" libknot13 libdnssec9 libzscanner4 liburcu8 liblmdb0 libedit2 \
        libcap-ng0 libbpf1 libxdp1 libgnutls30 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 \
        libzstd1 liblz4-1 libelf1 zlib1g libp11-kit0 libidn2-0 libunistring2 libtasn1-6 libnettle8 \
        libhogweed6 libgmp10 libffi8 libbsd0 libmd0 libtinfo6
    mkdir -p "$work/knot/bin" "$work/knot/lib"
    mv "$work"/unpacked/usr/sbin/{knotd,knotc} "$work/knot/bin"
    find "$work/unpacked" -name '*.so.*' -exec cp -P {} "$work/knot/lib" \;
    LD_LIBRARY_PATH=$work/knot/lib "$work/knot/bin/knotd" --version >/dev/null ||
        die "the fetched Knot does not run"
}

# configure FOLDER: writes the configuration and, once, an empty zone; sets the command and the URL.
configure() {
    local libraries=LD_LIBRARY_PATH=$1/lib
    knotc=(env "$libraries" "$1/bin/knotc" -c "$data/knot.conf")
    mkdir -p "$data/zones" "$data/db" "$data/run"
    # A socket's path must be shorter than 108 characters.
    ((${#data} < 90)) || die "the path of the data folder is longer than 90 characters: $data"
    # From the second start on, the zone is in the journal: the file has the initial one.
    local load=difference-no-serial
    [[ ! -e $data/zones/$zone ]] || load=none
    cat >"$data/knot.conf" <<EOF
server:
    listen: 127.0.0.1@$port
    rundir: $data/run
database:
    storage: $data/db
log:
  - target: stderr
    any: info
acl:
  - id: this-machine
    address: 127.0.0.1
    action: update
zone:
  - domain: $zone
    storage: $data/zones
    file: $zone
    zonefile-sync: -1
    zonefile-load: $load
    journal-content: all
    acl: this-machine
EOF
    [[ -e $data/zones/$zone ]] || cat >"$data/zones/$zone" <<EOF
\$ORIGIN $zone.
@ 3600 SOA ns hostmaster 1 3600 600 86400 5
@ 3600 NS ns
ns 3600 A 127.0.0.1
EOF
    command=(env "$libraries" "$1/bin/knotd" -c "$data/knot.conf")
    url=dns://127.0.0.1:$port/_trim_service._tcp.$zone
}

ready() { "${knotc[@]}" zone-read "$zone" @ SOA >/dev/null 2>&1; }

hints() {
    local run=${knotc[*]}
    say "add an instance with:"
    say "  $run zone-begin $zone"
    say "  $run zone-set $zone _trim_service._tcp 5 SRV 0 1 8975 ns"
    say "  $run zone-commit $zone"
}
