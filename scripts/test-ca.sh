#!/usr/bin/env bash
# Makes a certificate authority for tests, and certificates of a server and a client.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: test-ca.sh [--days N] [--name NAME]... FOLDER

Writes into FOLDER, which is made if it is missing:

  ca.pem, ca.key           a certificate authority; one that is there already is used
  server.pem, server.key   a certificate of localhost, 127.0.0.1, ::1 and each NAME, for servers
  client.pem, client.key   a certificate for clients

Certificates and keys that are there are replaced, each at once, as renewals are. Keys are not encrypted:
for tests and trials only.

  --days N      days until the certificates expire (default 30)
  --name NAME   a further DNS name or IP address of the server; repeatable
  --help        this text

For example, with both services on this machine:

  scripts/test-ca.sh /tmp/ca
  trim-service --tls-cert /tmp/ca/server.pem --tls-key /tmp/ca/server.key --tls-client-ca /tmp/ca/ca.pem
  add-service --tls-cert /tmp/ca/server.pem --tls-key /tmp/ca/server.key --trim-tls-ca /tmp/ca/ca.pem \
      --trim-tls-cert /tmp/ca/client.pem --trim-tls-key /tmp/ca/client.key --trim-tls-server-name localhost
  curl --cacert /tmp/ca/ca.pem -d '{"a":1,"b":2}' https://localhost:8080/sum
EOT
}
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

days=30 folder='' names=(DNS:localhost IP:127.0.0.1 IP:::1)
while (($#)); do
    case $1 in
        --help | -h) usage && exit ;;
        --days)
            [[ ${2-} =~ ^[1-9][0-9]{0,4}$ ]] || die "--days takes a number from 1 to 99999"
            days=$2
            shift
            ;;
        --name)
            [[ ${2-} =~ ^[A-Za-z0-9.:*-]+$ ]] || die "--name takes a DNS name or an IP address"
            if [[ $2 == *:* || $2 =~ ^[0-9.]+$ ]]; then names+=("IP:$2"); else names+=("DNS:$2"); fi
            shift
            ;;
        -*) usage >&2 && die "unknown argument '$1'" ;;
        *)
            [[ -z $folder ]] || die "one FOLDER is expected"
            folder=$1
            ;;
    esac
    shift
done
[[ -n $folder ]] || { usage >&2; die "a FOLDER is expected"; }
need openssl openssl
umask 077
mkdir -p "$folder"
work=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT

# quietly COMMAND...: shows what the command says only if it fails.
quietly() {
    "$@" 2>"$work/log" || { cat "$work/log" >&2; die "openssl failed"; }
}

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
if [[ ! -e $folder/ca.pem ]]; then
    quietly openssl req -x509 "${key[@]}" -days 3650 -subj "/CN=test CA" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$work/ca.key" -out "$work/ca.pem"
    mv "$work/ca.key" "$work/ca.pem" "$folder"
fi

# issue NAME USAGE SUBJECT-ALTERNATIVES: a certificate of the authority.
issue() {
    local name=$1 usage=$2 alternatives=$3
    printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
        "extendedKeyUsage=$usage" "subjectAltName=$alternatives" >"$work/extensions"
    quietly openssl req -new "${key[@]}" -subj "/CN=$name" -keyout "$work/$name.key" -out "$work/request"
    quietly openssl x509 -req -in "$work/request" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" \
        -set_serial "0x$(openssl rand -hex 16)" -days "$days" -extfile "$work/extensions" \
        -out "$work/$name.pem"
    mv "$work/$name.key" "$work/$name.pem" "$folder"
}

issue server serverAuth "$(IFS=,; printf '%s' "${names[*]}")"
issue client clientAuth DNS:client
say "$folder: ca.pem, server.pem, server.key, client.pem, client.key; for $days days"
