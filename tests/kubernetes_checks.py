"""What holds of deploy/kubernetes beyond the API's schemas: against the code, the images, and among its parts."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import yaml
from typer.main import get_command

from fabula_proto import STORIES_STREAM
from services.evaluator.settings import EvaluatorSettings
from services.student_trainer.__main__ import app as trainer_app
from services.teacher.settings import TeacherSettings
from tests.kubernetes import (
    FOLDER,
    WORKLOADS,
    Document,
    containers,
    conversations,
    environment,
    of_kind,
    pods,
    selects,
)

ROOT = FOLDER.parents[1]
OURS = {"teacher": "teacher", "student-trainer": "student_trainer", "evaluator": "evaluator"}
KEDA = "keda.sh/v1alpha1"
# What the ScaledObject of KEDA 2 knows of what we say; the test by its npm package has the whole schema.
KEDA_FIELDS = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "advanced", "triggers"}


def check_schemas(documents: list[Document]) -> None:
    for document in documents:
        if document["apiVersion"] != KEDA:
            kubernetes_validate.validate(document, desired_version="1.34", strict=True)


def check_hardening(documents: list[Document]) -> None:
    for name, pod in pods(documents).items():
        security, spec = pod["spec"]["securityContext"], pod["spec"]
        assert (security["runAsNonRoot"], security["seccompProfile"]) == (True, {"type": "RuntimeDefault"}), name
        assert min(security["runAsUser"], security["runAsGroup"], security["fsGroup"]) > 0, name
        assert (spec["automountServiceAccountToken"], spec["terminationGracePeriodSeconds"] >= 30) == (False, True)
        assert not {"initContainers", "hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}, name
    for name, container in containers(documents).items():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name


def check_probes(documents: list[Document]) -> None:
    for name, container in containers(documents).items():
        # The trainer serves nothing, so that nobody asks whether it is ready.
        kinds = ["startupProbe", "livenessProbe"] + (["readinessProbe"] if name != "student-trainer" else [])
        ports = {port["name"] for port in container["ports"]}
        for kind in kinds:
            probe = container[kind]
            if "httpGet" not in probe:
                assert probe["exec"]["command"], name
                continue
            assert probe["httpGet"]["port"] in ports, name
            served = json.loads((ROOT / "proto" / "openapi" / f"{OURS[name]}.json").read_text(encoding="utf-8"))
            assert probe["httpGet"]["path"] in served["paths"], name


def check_references(documents: list[Document]) -> None:
    claims, maps = of_kind(documents, "PersistentVolumeClaim"), of_kind(documents, "ConfigMap")
    for name, workload in of_kind(documents, *WORKLOADS).items():
        pod = workload["spec"]["template"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        made = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
        mounted = {mount["name"] for mount in containers(documents)[name]["volumeMounts"]}
        assert mounted == set(volumes) | made, name
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {"claimName": "runs"})["claimName"] in claims
            assert volume.get("configMap", {"name": next(iter(maps))})["name"] in maps
            assert volume.get("secret", {"secretName": "fabula"})["secretName"] == "fabula"
        # A Job makes its own selector.
        if workload["kind"] != "Job":
            assert selects(workload["spec"]["selector"], pod["metadata"]["labels"]), name
    for budget in of_kind(documents, "PodDisruptionBudget").values():
        matched = [
            n for n, pod in pods(documents).items() if selects(budget["spec"]["selector"], pod["metadata"]["labels"])
        ]
        assert matched == [budget["metadata"]["name"]]
    assert set(of_kind(documents, "PodDisruptionBudget")) == set(pods(documents))


def check_services(documents: list[Document]) -> None:
    services = of_kind(documents, "Service")
    for name, service in services.items():
        [(target, container)] = [
            (workload, containers(documents)[workload])
            for workload, pod in pods(documents).items()
            if selects({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
        ]
        for port in service["spec"]["ports"]:
            opened = {p["name"]: p["containerPort"] for p in container["ports"]}
            asked = port.get("targetPort", port["port"])
            assert opened.get(asked, asked) == port["port"], f"{name} leads to a port that {target} does not open"
            assert port["port"] in opened.values(), name
    headless = {name for name, service in services.items() if service["spec"].get("clusterIP") == "None"}
    assert of_kind(documents, "StatefulSet")["queue"]["spec"]["serviceName"] in headless
    assert pods(documents)["student-trainer"]["spec"]["subdomain"] in headless
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        for found in job.get("dns_sd_configs", ()):
            [asked] = found["names"]
            assert services[asked]["spec"]["ports"][0]["port"] == found["port"]
    assert "teacher" in headless, "a cluster IP would hide all replicas but one from Prometheus"


def check_network(documents: list[Document]) -> None:
    assert set(conversations(documents)) == {
        ("teacher", "queue", 6379),
        ("student-trainer", "queue", 6379),
        ("evaluator", "queue", 6379),
        ("evaluator", "teacher", 8001),
        ("student-trainer", "student-trainer", 29500),
    }
    everybody = of_kind(documents, "NetworkPolicy")["nobody"]["spec"]
    assert everybody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = {port["containerPort"] for container in containers(documents).values() for port in container["ports"]}
    for policy in of_kind(documents, "NetworkPolicy").values():
        spec = policy["spec"]
        assert [key for key in ("ingress", "egress") if key in spec] == [
            kind.lower() for kind in spec["policyTypes"] if policy["metadata"]["name"] != "nobody"
        ]
        assert any(selects(spec["podSelector"], pod["metadata"]["labels"]) for pod in pods(documents).values())
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert {port["port"] for port in rule.get("ports", ())} <= opened | {53, 443}


def known_variables(service: str) -> set[str]:
    """The FABULA_ variables that a service reads."""
    if service == "teacher":
        return {f"FABULA_{name.upper()}" for name in TeacherSettings.model_fields}
    if service == "evaluator":
        shared = {"runs_dir", "redis_url", "teacher_url", "eval_data"}
        own = {f"FABULA_EVALUATOR_{name.upper()}" for name in EvaluatorSettings.model_fields}
        return own | {f"FABULA_{name.upper()}" for name in shared}
    start: Any = get_command(trainer_app)
    return {str(option.envvar) for option in start.commands["start"].params if option.envvar}


def check_environment(documents: list[Document]) -> None:
    torch = find_spec("torch")
    assert torch is not None
    assert torch.submodule_search_locations is not None
    torchrun = (Path(torch.submodule_search_locations[0]) / "distributed" / "run.py").read_text(encoding="utf-8")
    services = of_kind(documents, "Service")
    for name, service in OURS.items():
        for variable, value in environment(containers(documents)[name]).items():
            if variable.startswith("PET_"):
                assert f'"--{variable.removeprefix("PET_").lower()}"' in torchrun, variable
            elif variable.startswith("FABULA_"):
                assert variable in known_variables(service), f"{name} reads no {variable}"
            else:
                assert variable in ("HF_TOKEN_PATH", "HF_HUB_OFFLINE"), variable
            if variable.endswith("_URL"):
                address = urlsplit(value or "")
                assert services[str(address.hostname)]["spec"]["ports"][0]["port"] == address.port
    TeacherSettings.model_validate({"teacher": environment(containers(documents)["teacher"])["FABULA_TEACHER"]})
    preset = environment(containers(documents)["student-trainer"])["FABULA_PRESET"]
    assert (ROOT / "services" / "student_trainer" / "presets" / f"{preset}.yaml").is_file()


def check_images(documents: list[Document]) -> None:
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    for name, service in OURS.items():
        container = containers(documents)[name]
        dockerfile = (ROOT / "services" / service / "Dockerfile").read_text(encoding="utf-8")
        image, _, variant = container["image"].partition(":")
        assert f"image: {image}:" in compose
        assert f"{variant}) " in dockerfile, f"{name}'s Dockerfile builds no variant {variant!r}"
        security = pods(documents)[name]["spec"]["securityContext"]
        assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in dockerfile
        for port in re.findall(r"^EXPOSE (\d+)", dockerfile, re.MULTILINE):
            assert int(port) in [opened["containerPort"] for opened in container["ports"]]
    assert containers(documents)["queue"]["image"] in compose


def check_training(documents: list[Document]) -> None:
    job = of_kind(documents, "Job")["student-trainer"]["spec"]
    variables = environment(containers(documents)["student-trainer"])
    processes = job["completions"]
    budget = of_kind(documents, "PodDisruptionBudget")["student-trainer"]["spec"]
    assert (job["completionMode"], job["parallelism"]) == ("Indexed", processes)
    assert (variables["PET_NNODES"], budget["minAvailable"]) == (str(processes), processes)
    assert variables["PET_MASTER_ADDR"] == f"student-trainer-0.{job['template']['spec']['subdomain']}"
    port = containers(documents)["student-trainer"]["ports"][0]["containerPort"]
    assert variables["PET_MASTER_PORT"] == str(port)
    grace = job["template"]["spec"]["terminationGracePeriodSeconds"]
    assert 30 < int(variables["PET_SHUTDOWN_TIMEOUT"] or 0) < grace


def check_scaling(documents: list[Document]) -> None:
    [scaled] = of_kind(documents, "ScaledObject").values()
    [authentication] = of_kind(documents, "TriggerAuthentication").values()
    spec = scaled["spec"]
    assert set(spec) <= KEDA_FIELDS
    target = of_kind(documents, "Deployment")[spec["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"], "KEDA says how many there are"
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    [trigger] = spec["triggers"]
    # With a consumerGroup KEDA counts something else.
    assert set(trigger["metadata"]) == {"address", "databaseIndex", "stream", "streamLength"}
    assert (trigger["type"], trigger["metadata"]["stream"]) == ("redis-streams", STORIES_STREAM)
    assert int(trigger["metadata"]["streamLength"]) >= 1
    queue = environment(containers(documents)["teacher"])["FABULA_REDIS_URL"] or ""
    host, _, port = trigger["metadata"]["address"].partition(":")
    assert host == f"{urlsplit(queue).hostname}.{scaled['metadata']['namespace']}.svc"
    assert (int(port), trigger["metadata"]["databaseIndex"]) == (urlsplit(queue).port, urlsplit(queue).path.strip("/"))
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    [secret] = authentication["spec"]["secretTargetRef"]
    assert secret == {"parameter": "password", "name": "fabula", "key": "redis_password"}
    assert queue.endswith(f"?password_file=/run/secrets/{secret['key']}")


CHECKS = (
    check_hardening,
    check_probes,
    check_references,
    check_services,
    check_network,
    check_environment,
    check_images,
    check_training,
    check_scaling,
)
