"""deploy/kubernetes, rendered: by the API's schemas, and against the code, the images and itself."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis

from fabula_proto import STORIES_STREAM, TEACHERS_GROUP, ScoredBatch, StoryBatch
from fabula_proto.streams import Streams
from services.student_trainer.folder_lock import FolderLock
from tests.integration.streams_helpers import all_done, answer, batch, running, teacher, wait_until
from tests.kubernetes import NAME, OVERLAYS, Document, containers, of_kind, render
from tests.kubernetes_checks import (
    CHECKS,
    KEDA,
    ROOT,
    check_environment,
    check_hardening,
    check_images,
    check_network,
    check_probes,
    check_references,
    check_scaling,
    check_schemas,
    check_services,
    check_training,
)

KEDA_PACKAGE = "@kubernetes-models/keda"


@pytest.fixture(params=OVERLAYS)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    """What an overlay renders to."""
    return render(request.param)


def test_every_document_is_what_the_api_takes(documents: list[Document]) -> None:
    check_schemas(documents)
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(set(names)) == len(names)
    for document in documents:
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "fabula"


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_the_parts_fit(documents: list[Document], check: Callable[[list[Document]], None]) -> None:
    check(documents)


def changed(documents: list[Document], kind: str, name: str, path: str, value: object) -> list[Document]:
    """The documents with one value put at a JSON Pointer such as spec/template; None removes it."""
    found: Any = of_kind(documents, kind)[name]
    parts = [part.replace("~1", "/") for part in path.split("/")]
    *parents, last = [int(part) if part.isdigit() else part for part in parts]
    for part in parents:
        found = found[part]
    if value is None:
        del found[last]
    else:
        found[last] = value
    return documents


POD = "spec/template/spec"
MISTAKES: tuple[tuple[Callable[[list[Document]], None], str, str, str, object], ...] = (
    (check_schemas, "Deployment", "teacher", "spec/replcas", 3),
    (check_schemas, "NetworkPolicy", "queue", "spec/ingress/0/ports/0/protocol", 6),
    (check_hardening, "Job", "student-trainer", f"{POD}/containers/0/securityContext/readOnlyRootFilesystem", False),
    (check_hardening, "StatefulSet", "queue", f"{POD}/securityContext/runAsUser", 0),
    (check_hardening, "Deployment", "evaluator", f"{POD}/containers/0/resources/limits/memory", None),
    (check_probes, "Deployment", "teacher", f"{POD}/containers/0/readinessProbe/httpGet/path", "/ready"),
    (check_probes, "Deployment", "evaluator", f"{POD}/containers/0/livenessProbe", None),
    (check_references, "Deployment", "teacher", "spec/selector/matchLabels/app.kubernetes.io~1name", "x"),
    (check_references, "Job", "student-trainer", f"{POD}/volumes/1/persistentVolumeClaim/claimName", "run"),
    (check_services, "Service", "gateway", "spec/ports/0/targetPort", 8002),
    (check_services, "Service", "teacher", "spec/clusterIP", None),
    (check_network, "NetworkPolicy", "queue", "spec/ingress/0/ports/0/port", 6380),
    (check_network, "NetworkPolicy", "to-queue", "spec/egress/0/to/0/podSelector/matchLabels", {NAME: "teacher"}),
    (check_network, "NetworkPolicy", "nobody", "spec/egress", [{}]),
    (check_environment, "Deployment", "teacher", f"{POD}/containers/0/env/0/name", "FABULA_JUDGE"),
    (check_environment, "Deployment", "evaluator", f"{POD}/containers/0/env/0/value", "redis://redis:6379/0"),
    (check_images, "Deployment", "teacher", f"{POD}/securityContext/runAsUser", 1000),
    (check_images, "Deployment", "evaluator", f"{POD}/containers/0/image", "fabula-evaluator:rocm"),
    (check_training, "Job", "student-trainer", "spec/parallelism", 3),
    (check_scaling, "ScaledObject", "teacher", "spec/triggers/0/metadata/stream", "fabula:story"),
    (check_scaling, "ScaledObject", "teacher", "spec/triggers/0/metadata/consumerGroup", TEACHERS_GROUP),
    (check_scaling, "ScaledObject", "teacher", "spec/triggers/0/metadata/address", "queue:6379"),
)


@pytest.mark.parametrize(
    ("check", "kind", "name", "path", "value"),
    MISTAKES,
    ids=[f"{m[0].__name__}-{m[2]}-{m[3].split('/')[-1]}" for m in MISTAKES],
)
def test_a_mistake_is_found(
    check: Callable[[list[Document]], None], kind: str, name: str, path: str, value: object
) -> None:
    documents = render("cpu")
    check(documents)
    with pytest.raises((AssertionError, KeyError, ValueError, kubernetes_validate.ValidationError)):
        check(changed(documents, kind, name, path, value))


def test_the_scaled_object_is_what_keda_takes(documents: list[Document]) -> None:
    package = ROOT / "node_modules" / KEDA_PACKAGE
    if shutil.which("node") is None or not package.is_dir():
        pytest.skip(
            f"no schema of KEDA: needs node, and `npm install --no-save {KEDA_PACKAGE}` in the repository's root"
        )
    script = f"""
        const read = await import('node:fs');
        for (const document of JSON.parse(read.readFileSync(0))) {{
            const model = (await import(`{KEDA_PACKAGE}/keda.sh/v1alpha1/${{document.kind}}`))[document.kind];
            new model(document).validate();
        }}"""
    custom = [document for document in documents if document["apiVersion"] == KEDA]

    def validated(given: list[Document]) -> int:
        command = ["node", "--input-type=module", "--eval", script]
        return subprocess.run(
            command, input=json.dumps(given), cwd=ROOT, capture_output=True, text=True, check=False
        ).returncode

    assert [document["kind"] for document in custom] == ["ScaledObject", "TriggerAuthentication"]
    assert validated(custom) == 0
    assert validated(changed(custom, "ScaledObject", "teacher", "spec/minReplicaCount", "one")) == 1


def test_the_trainers_probe_sees_whether_a_run_is_held(documents: list[Document], tmp_path: Path) -> None:
    program, *rest = containers(documents)["student-trainer"]["livenessProbe"]["exec"]["command"]
    command = [sys.executable, *(part.replace("/runs", str(tmp_path)) for part in rest)]
    assert program == "python"

    def well() -> bool:
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0

    (tmp_path / "r").mkdir()
    assert not well()
    with FolderLock(tmp_path / "r"):
        assert well()
    assert not well()


def test_the_streams_length_is_what_the_group_has_to_do(redis_url: str) -> None:
    """What KEDA counts. Here XINFO's own lag is null on Redis 7.0: a later entry is done, an earlier one in hand."""
    release, held = threading.Event(), threading.Semaphore(0)

    def handler(asked: StoryBatch) -> ScoredBatch:
        if asked.step != 1:
            held.release()
            assert release.wait(30)
        return answer(asked)

    with (
        Streams(redis_url) as streams,
        redis.Redis.from_url(redis_url) as client,
        running(teacher(streams, "t0"), handler),
    ):
        streams.publish_many(STORIES_STREAM, [batch(step) for step in range(5)])
        assert held.acquire(timeout=30)  # batch 0 is in hand
        with running(teacher(streams, "t1"), handler):
            assert held.acquire(timeout=30)  # batch 1 is done, and 2 in hand
            lag = streams.depth(STORIES_STREAM, TEACHERS_GROUP)
            length = client.xlen(STORIES_STREAM)
            release.set()
        assert (lag.pending, lag.waiting) == (2, 2)
        assert length == lag.total
        wait_until(lambda: all_done(streams))
        assert client.xlen(STORIES_STREAM) == 0
