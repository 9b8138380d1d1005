"""Small parts of the `fabula` command: signals, locks, ports, the doctor, help, scores."""

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from services.local import doctor, http, ports, scoring
from services.local.errors import CommandError, Interrupted
from services.local.house import House
from services.local.interrupts import Interrupts
from services.local.plan import Request, make_plan
from services.local.processes import Children
from services.local.runlock import RunLock
from services.local.services import worker_name
from services.local.sessions import Stopwatch
from services.redis_server import find_server
from services.teacher.spec import BACKENDS

FOX = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FABULA_")}
    command = [sys.executable, "-m", "services.cli", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_next_wait(number: signal.Signals) -> None:
    with Interrupts() as interrupts:
        interrupts.sleep(0.0)
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted):
            interrupts.sleep(60.0)
        assert not interrupts.insisted


def test_one_ctrl_c_passed_on_twice_is_one_and_a_later_one_insists() -> None:
    with Interrupts() as interrupts:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.stopping
        assert not interrupts.insisted
        interrupts.first_ctrl_c -= 1.0  # a second ago
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.insisted


def test_a_lock_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    waits: list[float] = []
    with (
        RunLock(tmp_path, waits.append, print),
        pytest.raises(CommandError, match=f"in use by process {os.getpid()}"),
        RunLock(tmp_path, waits.append, print),
    ):
        pass
    with RunLock(tmp_path, waits.append, print):
        pass
    assert waits == []


def test_a_lock_waits_for_the_children_of_one_who_died(tmp_path: Path) -> None:
    said: list[str] = []
    # Another process holds the lock and the file names one that is gone, as a warden does after its parent's death.
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); f.write('999999999'); f.flush();"
        " print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "up.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        closing = holder.stdin

        def sleep(_: float) -> None:
            closing.close()
            holder.wait()

        with RunLock(tmp_path, sleep, said.append):
            pass
    assert len(said) == 1
    assert "was killed" in said[0]


def test_a_taken_port_is_not_free() -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        assert not ports.is_free(server.getsockname()[1])
    assert ports.is_free(ports.any_free())


def test_the_doctor_finds_what_the_tests_run_with(tmp_path: Path) -> None:
    findings = {finding.subject: finding for finding in doctor.examine(tmp_path / "runs", "rules:")}
    for subject in ("Python", "torch", "packages", "runs folder", "teacher"):
        assert findings[subject].status == "ok", findings[subject]
    assert findings["Redis server"].status == ("ok" if find_server() else "missing")
    assert not (tmp_path / "runs").exists()


def test_the_doctor_names_a_cure_for_everything_it_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(doctor, "NEEDED", ("no_such_package",))
    monkeypatch.setattr(doctor, "find_server", lambda: None)
    monkeypatch.setattr(doctor, "DISK_FLOOR_GB", float("inf"))
    with socket.create_server((ports.HOST, 0)) as server:
        monkeypatch.setattr(doctor, "EVALUATOR_PORT", server.getsockname()[1])
        findings = list(doctor.examine(tmp_path / "file" / "runs", f"transformers:{tmp_path}"))
    missing = {finding.subject for finding in findings if finding.status == "missing"}
    assert missing == {"packages", "Redis server", "runs folder", "teacher"}
    assert all(finding.cure for finding in findings if finding.status != "ok")
    assert any("taken" in finding.found for finding in findings)

    out = io.StringIO()
    assert doctor.doctor(tmp_path / "file" / "runs", "rules:", Console(file=out, width=200)) == 1
    assert "3 needed things are missing" in out.getvalue()


def test_the_doctor_on_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    absent = [f for f in doctor.examine(tmp_path, "transformers:some/model") if f.subject == "teacher"]
    assert [f.status for f in absent] == ["warn"]
    assert "hf download some/model" in absent[0].cure
    assert "HF_TOKEN" in absent[0].cure
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    present = [f for f in doctor.examine(tmp_path, "transformers:some/model") if f.subject == "teacher"]
    assert [f.status for f in present] == ["ok"]


def test_help_needs_neither_torch_nor_a_web_framework() -> None:
    code = (
        "import sys, services.cli, services.local.up, services.local.doctor; "
        "print([m for m in ('torch', 'transformers', 'fastapi', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    shown = run("--help")
    assert shown.returncode == 0
    for command in ("up", "score", "pretrain", "interact", "evaluate", "doctor", "report"):
        assert f"\n  {command} " in shown.stdout
        assert run(command, "--help").returncode == 0


def test_the_help_names_every_kind_of_teacher() -> None:
    shown = run("up", "--help").stdout
    assert [backend for backend in BACKENDS if f"{backend}:" not in shown] == []


def test_after_a_wrong_setting_nobody_is_told_to_repeat_the_command(tmp_path: Path) -> None:
    plan = make_plan(Request(tmp_path, preset="smoke", teacher="rules:"))
    with Interrupts() as interrupts, Children() as children, pytest.raises(CommandError) as caught:
        # Without a queue the trainer refuses at once, as it does with a wrong setting.
        House(plan, Console(file=io.StringIO()), interrupts, children, Stopwatch()).train("interact", None)
    assert caught.value.exit_code == 2
    assert "change the setting" in str(caught.value)
    assert "continues" not in str(caught.value)


def test_a_story_is_scored_here(tmp_path: Path) -> None:
    table = run("score", FOX)
    assert table.returncode == 0
    for word in ("readability", "coherence", "creativity", "total", "reward", "rules"):
        assert word in table.stdout
    (tmp_path / "fox.txt").write_text(FOX, encoding="utf-8")
    from_file = run("score", "--json", "--file", str(tmp_path / "fox.txt"))
    from_input = run("score", "--json", "-", text=FOX)
    assert from_file.stdout == from_input.stdout
    assert '"status": "ok"' in from_file.stdout


def test_an_empty_story_scores_nothing_and_says_why() -> None:
    response = scoring.score_here("rules:", [""])
    out = io.StringIO()
    scoring.show(response, [""], Console(file=out, width=100))
    assert response.verdicts[0].total == 0
    assert "(empty)" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", FOX, "--teacher", "oracle:"], "unknown backend"),
        (["score", FOX, "--teacher", "rules:", "--url", "http://localhost:1"], "give one of them"),
        (["score", FOX, "--url", "http://127.0.0.1:1"], "no teacher answers at http://127.0.0.1:1"),
        (["score", FOX, "--url", "localhost:9"], "'localhost:9' lacks http:// at its start; write http://localhost:9"),
        (["score", "--file", "/no/such"], "cannot be read"),
    ],
)
def test_a_story_that_cannot_be_scored_is_said(arguments: list[str], message: str) -> None:
    answer = run(*arguments)
    assert answer.returncode in (1, 2)
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def test_a_problem_document_is_passed_on() -> None:
    with server(503, b'{"title": "Not ready", "status": 503, "detail": "the judge is being built"}') as url:
        answer = http.readiness(url)
        assert (answer.ready, answer.answered, answer.reason) == (False, True, "the judge is being built")
        with pytest.raises(CommandError, match="answered 503: the judge is being built"):
            http.score(url, [FOX])


def test_a_server_that_is_no_teacher_is_said() -> None:
    with server(200, b"<html>") as url:
        assert http.readiness(url).ready
        with pytest.raises(CommandError, match="does not speak Fabula's protocol"):
            http.score(url, [FOX])
    assert not http.readiness(url).answered


def test_another_service_on_our_port_is_not_ours() -> None:
    with server(200, b'{"worker": "somebody"}') as url:
        assert http.readiness(url, "somebody").ready
        answer = http.readiness(url, "ours")
    assert not answer.ready
    assert answer.reason == "somebody answers there"


def test_runs_of_one_name_in_two_folders_have_workers_of_their_own(tmp_path: Path) -> None:
    """Two `up`s of the same settings side by side: neither takes the other's teacher for its own."""
    names = {worker_name("teacher", tmp_path / place / "smoke-1") for place in ("a", "b")}
    assert len(names) == 2
    assert worker_name("teacher", tmp_path / "a" / "smoke-1") in names
