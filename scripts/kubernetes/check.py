#!/usr/bin/env python3
"""Checks what the schemas of Kubernetes cannot see in the manifests, and prints the variables of a service.

usage: check.py FOLDER            checks every manifest of the folder
       check.py FOLDER SERVICE    prints NAME=VALUE for each variable of that container

It needs PyYAML, which get-kubernetes-validate.sh brings.
"""

import re
import sys
from pathlib import Path

import yaml

# The time to deregister, and the end of the process.
MARGIN_SECONDS = 5


def seconds(duration):
    """A duration such as 500ms, 20s or 2m."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def environment(container):
    """The variables with a value. The namespace is `default`, and a label that is missing is empty."""
    values = {}
    for variable in container["env"]:
        field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        value = variable.get("value", "default" if field == "metadata.namespace" else "")
        values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], value)
    return values


def check(objects):
    """The mistakes, as lines."""
    of_kind = lambda kind: [one for one in objects if one["kind"] == kind]
    for deployment in of_kind("Deployment"):
        name = deployment["metadata"]["name"]
        template = deployment["spec"]["template"]
        labels, pod = template["metadata"]["labels"], template["spec"]
        selects = lambda selector: selector and selector.items() <= labels.items()
        (container,) = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        values = environment(container)

        if not selects(deployment["spec"]["selector"]["matchLabels"]):
            yield f"{name}: the deployment does not select its pods"
        for constraint in pod["topologySpreadConstraints"]:
            if not selects(constraint["labelSelector"]["matchLabels"]):
                yield f"{name}: a spread constraint does not select its pods"
        budgets = [one for one in of_kind("PodDisruptionBudget") if selects(one["spec"]["selector"]["matchLabels"])]
        if len(budgets) != 1:
            yield f"{name}: {len(budgets)} disruption budgets, expected 1"

        services = [one for one in of_kind("Service") if selects(one["spec"]["selector"])]
        if len(services) != 1:
            yield f"{name}: {len(services)} services select its pods, expected 1"
        for port in (port for service in services for port in service["spec"]["ports"]):
            if ports.get(port["targetPort"]) != port["port"]:
                yield f"{name}: the service's port {port['name']} is {port['port']}, not that of the container"
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            port = probe["grpc"]["port"] if "grpc" in probe else probe["httpGet"]["port"]
            if port not in ports and port not in ports.values():
                yield f"{name}: a probe asks the port {port}, which the container does not have"

        (drain,) = [value for key, value in values.items() if key.endswith("_DRAIN")]
        if pod["terminationGracePeriodSeconds"] < seconds(drain) + MARGIN_SECONDS:
            yield f"{name}: terminationGracePeriodSeconds is less than the drain ({drain}) and {MARGIN_SECONDS} s"

        # The SRV name is _PORT._PROTOCOL.SERVICE.NAMESPACE.svc of a headless service.
        srv = re.match(r"dns:///_(\w+)\._tcp\.([\w-]+)\.default\.svc\.", values.get("REGISTRY_URL", ""))
        if srv:
            found = [
                port
                for service in of_kind("Service")
                if service["metadata"]["name"] == srv[2] and service["spec"].get("clusterIP") == "None"
                for port in service["spec"]["ports"]
                if port["name"] == srv[1] and port["protocol"] == "TCP"
            ]
            if len(found) != 1:
                yield f"{name}: no headless service has the port of {values['REGISTRY_URL']}"


def main(folder, service=None):
    files = sorted(Path(folder).glob("*.yaml"))
    objects = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    if service is None:
        mistakes = list(check(objects))
        print("\n".join(mistakes) or f"{len(objects)} objects fit together")
        return 1 if mistakes or not objects else 0
    for one in objects:
        if one["kind"] == "Deployment" and one["metadata"]["name"] == service:
            (container,) = one["spec"]["template"]["spec"]["containers"]
            for name, value in environment(container).items():
                print(f"{name}={value}")
            return 0
    print(f"no deployment {service}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
