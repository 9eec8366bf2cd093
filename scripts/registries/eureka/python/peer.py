"""Registers and finds instances in Eureka with py-eureka-client.

peer.py SERVER register NAME PORT   registers 127.0.0.1:PORT until SIGTERM
peer.py SERVER watch NAME           prints the instances that are up, one line per change
"""

import signal
import sys
import time

from py_eureka_client import eureka_client

# The client's own default is 30 s, for renewals and for its view of the registry.
INTERVAL_SECONDS = 1


def register(server, name, port):
    eureka_client.init(
        eureka_server=server,
        app_name=name,
        instance_ip="127.0.0.1",
        instance_host="127.0.0.1",
        instance_port=int(port),
        metadata={"zone": "z1", "tags": "a,b"},
        renewal_interval_in_secs=INTERVAL_SECONDS,
        duration_in_secs=3 * INTERVAL_SECONDS,
        should_discover=False,
    )
    print("registered", flush=True)
    signal.sigwait([signal.SIGTERM])
    eureka_client.stop()


def watch(server, name):
    client = eureka_client.init(
        eureka_server=server,
        app_name="watcher",
        should_register=False,
        renewal_interval_in_secs=INTERVAL_SECONDS,
    )
    last = None
    while True:
        instances = client.applications.get_application(name.upper()).up_instances
        shown = " ".join(sorted(show(instance) for instance in instances))
        if shown != last:
            print(f"[{shown}]", flush=True)
            last = shown
        time.sleep(0.1)


def show(instance):
    metadata = ",".join(f"{key}={value}" for key, value in sorted(instance.metadata.items()))
    return f"{instance.instanceId}={instance.ipAddr}:{instance.port.port}={metadata}"


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    match sys.argv[1:]:
        case [server, "register", name, port]:
            register(server, name, port)
        case [server, "watch", name]:
            watch(server, name)
        case _:
            sys.exit(__doc__)


main()
