"""Child processes: small real programs, started, stopped, abandoned."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.local.errors import ChildFailedError, CommandError
from services.local.processes import Child, Children, describe_exit, tail
from services.local.warden import is_running

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
POLITE = """
import signal, sys, time
def saved(*_):
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, saved)
print("up", flush=True)
time.sleep(600)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def start_and_wait(children: Children, name: str, code: str, log: Path, grace_s: float = 15.0) -> Child:
    child = children.start(name, python(code), log, grace_s=grace_s)
    wait_for(lambda: "up" in log.read_text(encoding="utf-8"))
    return child


def test_a_child_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    with Children() as children:
        child = start_and_wait(children, "trainer", POLITE, tmp_path / "log")
        assert children.stop(child) == 130
    assert "saved" in (tmp_path / "log").read_text(encoding="utf-8")
    assert not is_running(child.pid)


def test_a_child_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    with Children() as children:
        child = start_and_wait(children, "teacher", STUBBORN, tmp_path / "log", grace_s=0.2)
        assert children.stop(child) == -signal.SIGKILL
    assert not is_running(child.pid)


def test_a_second_ctrl_c_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    with Children(hurry=lambda: True) as children:
        child = start_and_wait(children, "teacher", STUBBORN, tmp_path / "log", grace_s=500.0)
        assert children.stop(child) == -signal.SIGKILL


def test_children_stop_youngest_first_also_after_an_error(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = """
import signal, sys, time
def stop(*_):
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2])
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(600)
"""

    def fail_with_three_running() -> None:
        with Children() as children:
            for name in "abc":
                log = tmp_path / name
                children.start(name, [*python(code), str(order), name], log)
                wait_for(lambda log=log: log.exists() and "up" in log.read_text(encoding="utf-8"))  # type: ignore[misc]
            raise CommandError("something else went wrong")

    with pytest.raises(CommandError, match="something else"):
        fail_with_three_running()
    assert order.read_text(encoding="utf-8") == "cba"


def test_a_child_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "teacher.log"
    with Children() as children:
        child = children.start("teacher", python("import sys; sys.exit('no weights in /models')"), log)
        wait_for(lambda: child.poll() is not None)
        with pytest.raises(ChildFailedError, match=r"the teacher stopped by itself \(exit status 1\)") as caught:
            children.check()
        assert "no weights in /models" in str(caught.value)
        assert caught.value.exit_code == 1


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    with Children() as children, pytest.raises(CommandError, match="teacher cannot be started with '/no/such'"):
        children.start("teacher", ["/no/such"], tmp_path / "log")


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    parent = f"import subprocess, time; print(subprocess.Popen({python(SLEEPER)!r}).pid, flush=True); time.sleep(600)"
    log = tmp_path / "log"
    with Children() as children:
        children.start("trainer", python(parent), log)
        wait_for(lambda: "up" in log.read_text(encoding="utf-8"))
        grandchild = int(next(line for line in log.read_text(encoding="utf-8").splitlines() if line != "up"))
    wait_for(lambda: is_gone(grandchild))


def is_gone(pid: int) -> bool:
    """Whether the process is gone or a zombie that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_children_of_a_killed_parent_end_soon(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from services.local.processes import Children
with Children() as children:
    polite = children.start("trainer", {python(POLITE)!r}, Path({str(tmp_path / "polite")!r}))
    sleeper = children.start("teacher", {python(SLEEPER)!r}, Path({str(tmp_path / "sleeper")!r}))
    print(polite.pid, sleeper.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        wait_for(lambda: "up" in (tmp_path / "polite").read_text(encoding="utf-8"))
        os.kill(parent.pid, signal.SIGKILL)
    wait_for(lambda: all(is_gone(pid) for pid in pids))
    assert "saved" in (tmp_path / "polite").read_text(encoding="utf-8")


def test_signals_to_our_own_group_do_not_reach_the_children(tmp_path: Path) -> None:
    with Children() as children:
        child = start_and_wait(children, "teacher", SLEEPER, tmp_path / "log")
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


def test_exit_statuses_in_words() -> None:
    assert describe_exit(2) == "exit status 2"
    assert describe_exit(-signal.SIGKILL) == "killed by SIGKILL"


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {i}" for i in range(100)), encoding="utf-8")
    assert tail(log, lines=2) == "  line 98\n  line 99"
    log.write_bytes(b"")
    assert tail(log) == "  (empty)"
    assert "cannot be read" in tail(tmp_path / "none")
