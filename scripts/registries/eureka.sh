# Eureka as a Spring Cloud application, from Maven Central; sourced by registry.sh. The POM and the class
# are beside it.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # registry.sh uses and sets these

default_port=8761
# Of spring-cloud-netflix-eureka-server.
version=5.0.3

fetch() {
    local source
    need sha256sum coreutils
    # A changed class is compiled anew.
    source=$(cat "$root"/scripts/registries/eureka/{EurekaServer.java,pom.xml} | sha256sum | cut -c 1-8)
    fetched_folder eureka "$version-$source" fetch_eureka
}

fetch_eureka() {
    local folder=$root/scripts/registries/eureka
    need javac default-jdk-headless
    from_maven "$folder/pom.xml" "$work/eureka/lib" \
        c8d571ef12735883481265e41f31c71687a4aa32aa673981a7add2c4afe565f4
    javac --release 17 -cp "$work/eureka/lib/*" -d "$work/eureka/classes" "$folder/EurekaServer.java" ||
        die "cannot compile $folder/EurekaServer.java"
}

# configure FOLDER: sets the command and the URL. The settings make changes visible at once, and what is
# not renewed goes when its lease ends: Eureka's own defaults take up to 30 s and 90 s. The only peer is the
# server itself: by default it sends registrations to localhost:8761.
configure() {
    need java default-jre-headless
    command=(java -Xmx256m -XX:TieredStopAtLevel=1 -cp "$1/classes:$1/lib/*" discovery.EurekaServer
        --server.port="$port" --server.address=127.0.0.1
        --eureka.instance.hostname=127.0.0.1
        --eureka.client.service-url.defaultZone="http://127.0.0.1:$port/eureka/"
        --eureka.client.register-with-eureka=false --eureka.client.fetch-registry=false
        --eureka.server.use-read-only-response-cache=false
        --eureka.server.response-cache-auto-expiration-in-seconds=2
        --eureka.server.eviction-interval-timer-in-ms=500
        --eureka.server.enable-self-preservation=false)
    url=eureka://127.0.0.1:$port/eureka
}

ready() { curl -fsS --max-time 2 -o /dev/null "http://127.0.0.1:$port/eureka/apps" 2>/dev/null; }

# registered SERVICE: prints the number of its instances at $address. Fails if Eureka does not answer.
registered() {
    local answer
    # An application without instances is a 404.
    answer=$(curl -sS --max-time 5 -H 'Accept: application/json' "http://$address/eureka/apps/$1") || return
    { grep -o '"instanceId"' <<<"$answer" || true; } | wc -l
}
