"""Trackers: each line exactly once whatever was killed, and nothing that one does can touch the run."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli import main
from services.student_trainer import config
from services.student_trainer.__main__ import app
from services.student_trainer.folder_lock import FolderLock
from services.student_trainer.run import Trainer
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import TrackingSettings
from services.student_trainer.trackers import Trackers
from services.student_trainer.trackers_lines import Follower, parse_line
from tests.story_rows import write_judged_stories
from tests.tracker_readers import tensorboard_values, trackio_values, wandb_values
from tests.trainer_helpers import TEXT, tiny_settings

PRETRAIN, UPDATES = 3, 4


def line(phase: str, step: int) -> str:
    fields: dict[str, Any] = {"phase": phase, "run": "r", "step": step, "loss": step + 0.5}
    if phase == "interact":
        fields |= {"stories": 5, "criteria_mean": {"coherence": 0.25}, "value_loss": None}
    return json.dumps(fields) + "\n"


ALARM = {"step": UPDATES, "guard": "kl", "value": 30.0, "threshold": None, "action": "note", "message": "far away"}
LINES = [line("pretrain", 20 * (i + 1)) for i in range(PRETRAIN)] + [line("interact", i) for i in range(UPDATES)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "run.yaml").write_text(config.dump(tiny_settings(), "r"))
    (folder / "metrics.jsonl").write_text("".join(LINES))
    write_judged_stories(folder / "stories", steps=1, stories=5)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return folder


def told(folder: Path, name: str, close_s: float = 60.0) -> list[str]:
    """Start and end a tracker; its warnings."""
    warnings: list[str] = []
    settings = TrackingSettings.model_validate({"trackers": [name], "close_s": close_s})
    with Trackers(folder, settings, warnings.append):
        pass
    return warnings


READERS: dict[str, Callable[[Path], Any]] = {
    "tensorboard": tensorboard_values,
    "trackio": trackio_values,
    "wandb": wandb_values,
}


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_line_is_told_once_over_kills_and_rewinds(run: Path, name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed; .venv/bin/pip install -c constraints.txt -e '.[tracking]' brings it")
    metrics = run / "metrics.jsonl"
    assert told(run, name) == []
    # The trainer was killed: it takes two updates back, does them again and two more; its tracker is killed as well.
    metrics.write_text("".join(LINES[:-2]))
    warnings: list[str] = []
    alarm = json.dumps({"phase": "alarm", "run": "r", **ALARM}) + "\n"
    with Trackers(run, TrackingSettings.model_validate({"trackers": [name]}), warnings.append) as trackers:
        metrics.write_text("".join([*LINES, line("interact", UPDATES), alarm, line("interact", UPDATES + 1)]))
        os.killpg(trackers.running[0].process.pid, signal.SIGKILL)
    assert len(warnings) == 1
    assert "killed by SIGKILL" in warnings[0]
    assert told(run, name) == []
    found = READERS[name](run)
    steps = [float(i) for i in range(UPDATES + 2)]
    assert found["pretrain/loss"] == [20.5, 40.5, 60.5]
    assert found["interact/step"] == steps
    assert found["interact/loss"] == [step + 0.5 for step in steps]
    assert found["interact/criteria_mean/coherence"] == [0.25] * len(steps)
    assert "interact/value_loss" not in found
    assert found["interact/stories"] == [5.0] * len(steps)
    assert found["alarm/text"] == ["kl: far away"]
    assert found["alarm/value"] == [30.0]
    assert found["examples"] == 1
    assert found["config"] == 16  # the student's width


BROKEN = {
    "hangs": "import threading\nthreading.Event().wait()\n",
    "crashes": "import os\nos.abort()\n",
    "raises": "raise RuntimeError('the server said\\n no')\n",
    "is missing": "raise ModuleNotFoundError(\"No module named 'wandb'\", name='wandb')\n",
}
SAID = {
    "hangs": "did not end in time and was stopped",
    "crashes": "stopped: killed by SIGABRT",
    "raises": "stopped: RuntimeError: the server said no",
    "is missing": r"No module named 'wandb'; install it with: \.venv/bin/pip install -c constraints\.txt -e '\.\[t",
}


@pytest.fixture
def broken_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a `wandb` before all others, for this process's children."""

    def put(code: str) -> None:
        package = tmp_path / "packages" / "wandb"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), *sys.path]))

    yield put
    shutil.rmtree(tmp_path / "packages", ignore_errors=True)


@pytest.mark.parametrize("how", sorted(BROKEN))
def test_a_broken_tracker_costs_one_warning(
    run: Path, broken_wandb: Callable[[str], None], how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    broken_wandb(BROKEN[how])
    warnings = told(run, "wandb", close_s=60.0 if how != "hangs" else 0.5)
    assert len(warnings) == 1, warnings
    assert re.search(SAID[how], warnings[0]), warnings
    assert str(run / "tracking" / "wandb.log") in warnings[0]
    assert capfd.readouterr() == ("", "")


WITH_A_PROCESS = """
import os, subprocess, sys, threading
pipe = os.open(os.environ["PIPE"], os.O_WRONLY)
subprocess.Popen([sys.executable, "-S", "-c", "import threading; threading.Event().wait()"], pass_fds=[pipe])
os.write(pipe, b"x")
threading.Event().wait()
"""


def test_what_a_hanging_tracker_started_is_ended_with_it(
    run: Path, broken_wandb: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_wandb(WITH_A_PROCESS)
    monkeypatch.setenv("PIPE", str(run / "pipe"))
    os.mkfifo(run / "pipe")
    settings = TrackingSettings(trackers=("wandb",), close_s=0.1)
    warnings: list[str] = []
    with Trackers(run, settings, warnings.append):
        pipe = (run / "pipe").open("rb")
        assert pipe.read(1) == b"x"
    with pipe:
        assert pipe.read() == b""  # it ends when nobody can write any more
    assert len(warnings) == 1


def test_a_wandb_server_that_never_answers_costs_one_warning(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("wandb") is None:
        pytest.skip("wandb is not installed; .venv/bin/pip install -c constraints.txt -e '.[tracking]' brings it")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        [warning] = told(run, "wandb", close_s=1.0)
    assert "did not end in time" in warning


def prepared(path: Path, tracking: dict[str, Any]) -> RunFolder:
    """A tiny pretraining that has not begun."""
    settings = tiny_settings().model_dump(mode="json")
    settings["corpus"] |= {"source": str(path.with_name("corpus.txt"))}
    settings["pretrain"] |= {"word_budget": 200, "log_every": 1, "batch_size": 2}
    settings["tracking"] = tracking
    path.mkdir()
    (path / "run.yaml").write_text(config.dump(config.parse(settings), path.name))
    return RunFolder(path)


def test_a_hanging_tracker_changes_no_bit_of_a_run(tmp_path: Path, broken_wandb: Callable[[str], None]) -> None:
    (tmp_path / "corpus.txt").write_text("\n\n".join(f"{TEXT} {number}" for number in range(40)))
    broken_wandb("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + BROKEN["hangs"])
    silent = Trainer(prepared(tmp_path / "silent", {}), threading.Event(), False, None).pretrain()
    told = prepared(tmp_path / "told", {"trackers": ["wandb"], "close_s": 0.5})
    command = [sys.executable, "-m", "services.student_trainer", "pretrain", str(told.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tracker wandb did not end in time") == 1
    assert (told.checkpoints / silent.name / "model.safetensors").read_bytes() == (
        silent / "model.safetensors"
    ).read_bytes()


def test_a_tracker_ends_with_a_trainer_that_is_killed(run: Path, broken_wandb: Callable[[str], None]) -> None:
    broken_wandb(BROKEN["hangs"])
    command = [sys.executable, "-m", "services.student_trainer.trackers_process", str(run), "wandb", "0.2"]
    (run / "tracking").mkdir()
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        assert process.stdin is not None
        process.stdin.close()  # as the system does with the trainer's end of the pipe
        assert process.wait(60) == -signal.SIGALRM
    finally:
        process.kill()
        process.wait()


def test_the_command_tells_a_finished_run(
    run: Path, broken_wandb: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def track(*options: str) -> object:
        monkeypatch.setattr(sys, "argv", ["fabula", "track", str(run), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    assert track() == 2
    assert "run.yaml names none" in capsys.readouterr().err
    assert track("--to", "mlflow") == 2
    assert "trackers mlflow: give one or more of tensorboard, trackio, wandb" in capsys.readouterr().err
    broken_wandb(BROKEN["raises"])
    assert track("--to", "wandb") == 1
    assert "the server said no" in capsys.readouterr().err
    with FolderLock(run):
        assert track("--to", "wandb") == 2
    assert "is at work" in capsys.readouterr().err


def test_one_trainer_a_folder(run: Path, request: pytest.FixtureRequest) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        request.addfinalizer(partial(signal.signal, number, signal.getsignal(number)))  # the trainer sets its own
    with FolderLock(run):
        refused = CliRunner().invoke(app, ["pretrain", str(run)])
    assert refused.exit_code == 2
    assert f"process {os.getpid()} trains in {run} already" in refused.output
    with FolderLock(run):
        pass


def test_lines(tmp_path: Path) -> None:
    text = '{"phase": "interact", "run": "r", "step": 3, "a": 1, "b": {"c": 2, "d": null}, "e": [4], "ok": true}'
    found = parse_line(9, text)
    assert (found.number, found.phase, found.step) == (9, "interact", 3)
    assert found.scalars == {"interact/step": 3, "interact/a": 1, "interact/b/c": 2, "interact/ok": 1}
    assert parse_line(1, '{"phase": "pretrain", "step": 1, "loss": NaN}').scalars == {"pretrain/step": 1}
    with pytest.raises(ValueError, match=r"line 2 of metrics\.jsonl has no phase and step"):
        parse_line(2, '{"phase": "pretrain"}')
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path, read_before=1)
    assert list(follower.unread()) == []
    path.write_text(LINES[0] + LINES[1] + LINES[2][:-5])
    assert [line.number for line in follower.unread()] == [2]
    path.write_text("".join(LINES[:3]))
    assert [line.step for line in follower.unread()] == [60]
    path.write_text(LINES[0])
    assert list(follower.unread()) == []
    path.write_text("".join(LINES[:4]))
    assert [line.number for line in follower.unread()] == [4]
