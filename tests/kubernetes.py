"""deploy/kubernetes as a cluster would get it: rendered by kustomize, and what its parts say of each other."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
WORKLOADS = ("Deployment", "StatefulSet", "Job")
NAME = "app.kubernetes.io/name"
Document = dict[str, Any]


@cache
def _kustomize() -> tuple[str, ...] | None:
    """The command that renders a folder: kustomize 5, alone or in kubectl. None where there is none."""
    if (path := shutil.which("kustomize")) is not None:
        said = subprocess.run([path, "version"], capture_output=True, text=True, check=False).stdout
        if re.search(r"v[5-9]\.", said):
            return (path, "build")
    if (path := shutil.which("kubectl")) is not None:
        command = [path, "version", "--client", "--output=json"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if re.match(r"v[5-9]\.", json.loads(said or "{}").get("kustomizeVersion", "")):
            return (path, "kustomize")
    return None


@cache
def _rendered(overlay: str) -> list[Document]:
    command = _kustomize()
    if command is None:
        pytest.skip("no kustomize 5: neither `kustomize` nor a `kubectl` that has it is on the PATH")
    done = subprocess.run([*command, str(FOLDER / "overlays" / overlay)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def render(overlay: str) -> list[Document]:
    """The documents of an overlay, the caller's own to change. Skips the test where nothing can render them."""
    return deepcopy(_rendered(overlay))


def of_kind(documents: list[Document], *kinds: str) -> dict[str, Document]:
    """The documents of these kinds by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] in kinds}


def pods(documents: list[Document]) -> dict[str, Document]:
    """Workload to its pod's template."""
    return {name: workload["spec"]["template"] for name, workload in of_kind(documents, *WORKLOADS).items()}


def containers(documents: list[Document]) -> dict[str, Document]:
    """Workload to its only container."""
    found = {}
    for name, pod in pods(documents).items():
        [found[name]] = pod["spec"]["containers"]
    return found


def environment(container: Document) -> dict[str, str | None]:
    """Variable to value; None where the cluster fills it in."""
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes an object with these labels; an empty one takes all."""
    wanted = selector.get("matchLabels", {})
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def _peers(rules: list[Document], side: str, labels: Mapping[str, str], port: int) -> bool:
    """Whether a rule lets pods of our namespace with these labels through, to `port`."""
    for rule in rules:
        ports = rule.get("ports")
        if ports is not None and port not in [entry["port"] for entry in ports]:
            continue
        for peer in rule[side]:
            inside = "namespaceSelector" not in peer or peer["namespaceSelector"] == {}
            if "podSelector" in peer and inside and selects(peer["podSelector"], labels):
                return True
    return False


def may_speak(documents: list[Document], source: str, target: str, port: int) -> bool:
    """Whether the network policies let `source`'s pods open a connection to `port` of `target`'s: both ends must."""
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(documents).items()}
    out, into = False, False
    for policy in of_kind(documents, "NetworkPolicy").values():
        spec = policy["spec"]
        if selects(spec["podSelector"], labels[source]):
            out = out or _peers(spec.get("egress", []), "to", labels[target], port)
        if selects(spec["podSelector"], labels[target]):
            into = into or _peers(spec.get("ingress", []), "from", labels[source], port)
    return out and into


def conversations(documents: list[Document]) -> Iterator[tuple[str, str, int]]:
    """Who may open a connection to which port of whom, of all the ports that containers name."""
    for target, container in containers(documents).items():
        for port in container["ports"]:
            for source in containers(documents):
                if may_speak(documents, source, target, port["containerPort"]):
                    yield source, target, port["containerPort"]
