# ZooKeeper 3.9 from Maven Central; sourced by registry.sh. The POM beside it names what it consists of.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # registry.sh uses and sets these

default_port=2181
version=3.9.5

fetch() { fetched_folder zookeeper "$version" fetch_zookeeper; }

fetch_zookeeper() {
    from_maven "$root/scripts/registries/zookeeper/pom.xml" "$work/zookeeper/lib" \
        e5927a74f94dd9b75a1218a491384d2d719a8cf1c669f002c0c555d960ecccc7
}

# configure FOLDER: writes the configuration, and sets the command and the URL. A session may be as short
# as 1 s and as long as 20 ticks, which is 10 s.
configure() {
    need java default-jre-headless
    mkdir -p "$data/zookeeper"
    printf '%s\n' tickTime=500 minSessionTimeout=1000 "dataDir=$data/zookeeper" "clientPort=$port" \
        clientPortAddress=127.0.0.1 maxClientCnxns=0 admin.enableServer=false '4lw.commands.whitelist=*' \
        >"$data/zoo.cfg"
    command=(java -Xmx128m -XX:TieredStopAtLevel=1 -cp "$1/lib/*"
        org.apache.zookeeper.server.quorum.QuorumPeerMain "$data/zoo.cfg")
    url=zookeeper://127.0.0.1:$port
}

ready() { [[ $(ask "127.0.0.1:$port" srvr) == 'Zookeeper version'* ]]; }

# registered SERVICE: prints the number of its ephemeral nodes at $address. Fails if ZooKeeper does not
# answer.
registered() {
    local answer
    answer=$(ask "$address" dump) || return
    grep -c "/services/$1/" <<<"$answer" || true
}

# ask HOST:PORT COMMAND: prints the answer to one of the commands that ZooKeeper takes as four letters.
ask() {
    { exec 8<>"/dev/tcp/${1%:*}/${1##*:}"; } 2>/dev/null || return
    printf '%s' "$2" >&8
    timeout 5 cat <&8 || true
    exec 8>&-
}
