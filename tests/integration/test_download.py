"""`fabula download` from a Hub on a real socket: what it takes, how it goes on, what it says."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from services.local.needed import Source, sources_of
from services.local.plan import Request
from tests.download_helpers import BIG, CHUNK, fabula, published, serving
from tests.hub_server import READER, WRITER, Blob, Commit, Hub, Repo
from tests.wire.serving import WireServer


@pytest.fixture
def hub() -> Hub:
    """Two models, one of them gated, and evaluation data."""
    model = {"model.safetensors": Blob(BIG, lfs=True), "config.json": Blob(b"{}", lfs=False)}
    data = {"fast_eval/blimp_fast/agreement.jsonl": Blob(b"{}", lfs=False)}
    return Hub(
        repos={"me/teacher": published(model), "me/large": published(model, gated=True), "me/data": published(data)}
    )


@pytest.fixture
def server(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    with serving(hub, monkeypatch) as server:
        yield server


def ranges(server: WireServer, name: str) -> list[str | None]:
    """What each GET of a file asked for."""
    asked = [r for r in server.controls.requests if r.method == "GET" and r.path.endswith(name)]
    return [request.headers.get("range") for request in asked]


LARGE = ("--preset", "smoke", "--teacher", "transformers:me/large")


def test_a_connection_that_breaks_is_taken_up_within_the_file(
    hub: Hub, server: WireServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.cuts = [2 * CHUNK]
    assert fabula(monkeypatch, *LARGE, "--to", tmp_path / "to") == 0
    assert ranges(server, "model.safetensors") == [None, f"bytes={2 * CHUNK}-"]
    assert [path.read_bytes() for path in tmp_path.rglob("model.safetensors")] == [BIG]


def test_downloads_into_one_folder_add_up_and_a_newer_commit_takes_the_older_ones_place(
    hub: Hub, server: WireServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def download(teacher: str) -> dict[str, str]:
        assert fabula(monkeypatch, "--preset", "smoke", "--teacher", f"transformers:{teacher}", "--to", tmp_path) == 0
        assert fabula(monkeypatch, "--verify", tmp_path) == 0
        return {one["repository"]: one["commit"] for one in json.loads((tmp_path / "sources.json").read_text())}

    first, large = hub.repos["me/teacher"].branches["main"], hub.repos["me/large"].branches["main"]
    assert download("me/teacher") == {"me/teacher": first.id}
    capsys.readouterr()
    assert download("me/large") == {"me/teacher": first.id, "me/large": large.id}
    assert "9 files" in capsys.readouterr().out  # two of each model, refs and trees, and sources.json
    newer = Commit("other weights", first, first.files | {"model.safetensors": Blob(BIG[:CHUNK], lfs=True)})
    hub.repos["me/teacher"] = Repo(private=False, branches={"main": newer})
    assert download("me/teacher") == {"me/teacher": newer.id, "me/large": large.id}
    assert f"models--me--teacher/snapshots/{first.id}" not in (tmp_path / "SHA256SUMS").read_text()


def by_itself(url: str, to: Path, *before: str) -> tuple[list[str], dict[str, str]]:
    """The command of a process of its own, with small pieces, and its environment."""
    script = (
        "import signal\n"
        "import huggingface_hub.constants as constants\n"
        f"constants.DOWNLOAD_CHUNK_SIZE = {CHUNK}\n"
        "from services.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where a shell began us with &
        "main()\n"
    )
    command = [*before, sys.executable, "-c", script, "download", *LARGE, "--to", str(to)]
    return command, {**os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1"}


def test_another_process_goes_on_where_one_was_stopped_or_killed(hub: Hub, server: WireServer, tmp_path: Path) -> None:
    command, env = by_itself(server.url, tmp_path / "to")
    hub.cuts = [-2 * CHUNK, -CHUNK]
    for number, there in ((signal.SIGINT, 2 * CHUNK), (signal.SIGKILL, 3 * CHUNK)):
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            while not any(path.stat().st_size == there for path in tmp_path.rglob("*.partial")):
                assert child.poll() is None, child.stderr.read()
                time.sleep(0.01)
            child.send_signal(number)
            said = child.stderr.read()
        if number is signal.SIGINT:
            assert child.returncode == 130
            assert said == "fabula: stopped; what is there stays, and the same command goes on\n"
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ranges(server, "model.safetensors") == [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert [path.read_bytes() for path in tmp_path.rglob("model.safetensors")] == [BIG]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_disk_that_fills_up_is_said(hub: Hub, server: WireServer, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no unshare here that may mount a small disk")
    hub.repos["me/large"] = published({"model.safetensors": UnderstatedBlob(BIG, lfs=True)})
    mount = 'mount -t tmpfs -o size=128k none "$0" && exec "$@"'
    command, env = by_itself(server.url, tmp_path / "to", "unshare", "-rm", "sh", "-c", mount, str(tmp_path))
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "the disk is full ([Errno 28] No space left on device); make room" in done.stderr


class UnderstatedBlob(Blob):
    """The room for it seems to be there."""

    def entry(self, path: str) -> dict[str, object]:
        return super().entry(path) | {"size": 1}


def test_a_file_that_is_not_what_the_hub_lists_is_named_and_fetched_again(
    hub: Hub,
    server: WireServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    to = tmp_path / "to"
    blob = hub.repos["me/large"].branches["main"].files["model.safetensors"]
    partial = to / "hub" / "models--me--large" / "blobs" / f"{blob.sha256}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * CHUNK)  # as a disk that lost what was written
    assert fabula(monkeypatch, *LARGE, "--to", to) == 1
    assert "me/large: model.safetensors had other contents" in capsys.readouterr().err
    assert fabula(monkeypatch, "--verify", to) == 2
    assert "SHA256SUMS cannot be read" in capsys.readouterr().err
    assert fabula(monkeypatch, *LARGE, "--to", to) == 0
    assert fabula(monkeypatch, "--verify", to) == 0
    (weights,) = to.rglob("model.safetensors")
    weights.write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
    next(to.rglob("config.json")).unlink()
    capsys.readouterr()
    assert fabula(monkeypatch, "--verify", to) == 1
    error = capsys.readouterr().err
    assert "model.safetensors has another SHA-256" in error
    assert "config.json is missing" in error


def test_what_stands_in_the_way_is_said(
    hub: Hub,
    server: WireServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def error(*options: object, to: Path = tmp_path / "to") -> str:
        assert fabula(monkeypatch, "--preset", "smoke", "--to", to, *options) in (1, 2)
        return capsys.readouterr().err

    monkeypatch.setenv("HF_TOKEN", READER)
    assert f"me/large is gated: agree to its terms at {server.url}/me/large and set HF_TOKEN" in error(*LARGE[2:])
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "is gated" in error(*LARGE[2:])
    assert f"there is no model at {server.url}/me/absent" in error("--teacher", "transformers:me/absent")
    assert "has no such revision" in error("--eval-data", "hub:me/data@v9")
    assert "hub:OWNER/NAME" in error("--eval-data", "hub:data")
    assert "is no name of a repository" in error("--teacher", "transformers:me/a b")
    hub.repos["me/empty"] = published({"README.md": Blob(b"words", lfs=False)})
    assert "holds nothing to read: none of its 1 files" in error("--teacher", "transformers:me/empty")
    assert not (tmp_path / "to").exists()
    monkeypatch.setenv("HF_TOKEN", WRITER)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in error(*LARGE[2:], to=tmp_path / "file" / "to")
    huge = HugeBlob(b"", lfs=True)
    hub.repos["me/huge"] = published({"model.safetensors": huge})
    assert "free; make room" in error("--teacher", "transformers:me/huge")
    server.controls.fail(1, 500)
    assert "500" in error(*LARGE[2:])
    server.stop()
    away = error(*LARGE[2:])
    assert "could not be fetched" in away
    assert "Connection refused" in away
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset it" in error(*LARGE[2:])


class HugeBlob(Blob):
    """More than any disk has."""

    def entry(self, path: str) -> dict[str, object]:
        return super().entry(path) | {"size": 10**18}


def test_what_is_not_on_the_hub_is_named_and_a_teachers_file_counts_whole(
    server: WireServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "tales.txt").write_text("One.\n\nTwo.\n")
    (tmp_path / "teachers.yaml").write_text(
        "teachers:\n  a: {judge: 'transformers:me/teacher'}\n  b: {judge: 'transformers:me/large'}\n"
        "  c: {judge: 'vllm:http://there:8000'}\n"
    )
    monkeypatch.setenv("FABULA_TEACHERS_FILE", str(tmp_path / "teachers.yaml"))
    to = ("--to", tmp_path / "to", "--dry-run")
    local = ("--corpus", tmp_path / "tales.txt", "--eval-data", tmp_path)
    assert fabula(monkeypatch, "--preset", "smoke", "--teacher", "a", *local, *to) == 0
    said = capsys.readouterr().out
    assert "me/teacher" in said
    assert "me/large" in said
    assert f"corpus: {tmp_path / 'tales.txt'}" in said
    assert f"evaluation data: the folder {tmp_path}" in said
    assert "vllm:http://there:8000" in said
    monkeypatch.delenv("FABULA_TEACHERS_FILE")
    assert fabula(monkeypatch, "--preset", "smoke", *to) == 0
    assert "reads nothing from the Hub" in capsys.readouterr().out


def test_what_the_paper_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABULA_TEACHERS_FILE", raising=False)
    monkeypatch.setenv("FABULA_TEACHER_REVISION", "v2")
    paper = Request(Path("runs"), preset="paper", teacher="transformers:")
    assert sources_of(paper)[0] == [
        Source("teacher", "meta-llama/Llama-3.1-8B-Instruct", "v2"),
        Source("corpus", "nilq/babylm-100M"),
    ]
    taught = replace(paper, teacher="rules:", overrides=("student.init=me/student", "pretrain.word_budget=0"))
    assert sources_of(taught)[0] == [Source("student", "me/student")]


def test_of_several_copies_of_the_weights_one_is_chosen() -> None:
    model = Source("teacher", "me/it")
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    beside = ["config.json", "model.safetensors.index.json", "merges.txt", "tokenizer.model", "LICENSE", "README.md"]
    other = ["consolidated.safetensors", "pytorch_model.bin", "original/params.json", "onnx/model.onnx", "model.gguf"]
    assert model.chosen([*other, *beside, *shards]) == [*shards, *beside]
    assert model.chosen(["pytorch_model.bin", "config.json"]) == ["pytorch_model.bin", "config.json"]
