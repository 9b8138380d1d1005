"""Child processes: each leads a group of its own, writes to a log, and never outlives us for long (see warden.py)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from services.local import warden
from services.local.errors import ChildFailedError, CommandError

TAIL_LINES = 15
GRACE_S = 15.0
KILL_WAIT_S = 5.0
POLL_S = 0.05


@dataclass(frozen=True)
class Child:
    """A running child, the leader of process group `pid`. `log` is none where its output goes to our own terminal.

    `poll` gives the exit status, none while it runs. `grace_s` is how long it may take to stop when asked.
    """

    name: str
    pid: int
    log: Path | None
    poll: Callable[[], int | None]
    grace_s: float = GRACE_S

    def failure(self) -> ChildFailedError:
        """What to say about a child that is gone though nobody asked it to go."""
        message = f"the {self.name} stopped by itself ({describe_exit(self.poll())})"
        if self.log is not None:
            message += f"; the end of {self.log}:\n{tail(self.log)}"
        return ChildFailedError(message)


@dataclass
class Children:
    """The children of one command. Leaving the context stops what still runs, the youngest first.

    Args:
        inherit: File descriptors that the warden keeps open until the last child has ended, such as a lock.
        hurry: Asked while a child takes its time to stop; once it says yes, the child is killed.
    """

    inherit: tuple[int, ...] = ()
    hurry: Callable[[], bool] = lambda: False
    running: list[Child] = field(default_factory=list)
    _warden: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._warden = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", warden.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            pass_fds=self.inherit,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_all()
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
            self._warden.wait()

    def start(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        grace_s: float = GRACE_S,
    ) -> Child:
        """Start `command`; its output is appended to `log`, or goes to our own where there is none.

        Raises:
            CommandError: the program cannot be started.
        """
        output = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        try:
            process = subprocess.Popen(  # noqa: S603 - our own services, arguments never pass a shell
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(f"the {name} cannot be started with {command[0]!r}: {error}", exit_code=1) from error
        finally:
            if output is not None:
                output.close()
        return self.adopt(Child(name, process.pid, log, process.poll, grace_s))

    def adopt(self, child: Child) -> Child:
        """Take on a process of ours that was started elsewhere and leads its own group."""
        self.running.append(child)
        self._tell(f"+ {child.pid}")
        return child

    def check(self, except_for: Child | None = None) -> None:
        """Raises:
        ChildFailedError: a child other than `except_for` is gone.
        """
        for child in self.running:
            if child is not except_for and child.poll() is not None:
                raise child.failure()

    def stop(self, child: Child) -> int:
        """Ask the child to stop, kill its group when it takes too long, and return its exit status."""
        if child.poll() is None:
            signal_group(child.pid, signal.SIGTERM)
        status = self._wait(child, child.grace_s, self.hurry)
        # Also what it may have left behind in its group.
        signal_group(child.pid, signal.SIGKILL)
        if status is None and (status := self._wait(child, KILL_WAIT_S)) is None:
            raise CommandError(f"the {child.name}, process {child.pid}, does not end even when killed", exit_code=1)
        self.forget(child)
        return status

    def forget(self, child: Child) -> None:
        """The child has ended and is no longer ours to watch."""
        if child in self.running:
            self.running.remove(child)
            self._tell(f"- {child.pid}")

    def stop_all(self) -> None:
        """Stop what still runs, the youngest first."""
        for child in reversed(list(self.running)):
            self.stop(child)

    @staticmethod
    def _wait(child: Child, timeout_s: float, give_up: Callable[[], bool] = lambda: False) -> int | None:
        deadline = time.monotonic() + timeout_s
        while (status := child.poll()) is None and time.monotonic() < deadline and not give_up():
            time.sleep(POLL_S)
        return status

    def _tell(self, line: str) -> None:
        if self._warden is None or self._warden.stdin is None:
            raise RuntimeError("children are started and stopped inside `with Children() as children:`")
        try:
            self._warden.stdin.write(line + "\n")
            self._warden.stdin.flush()
        except BrokenPipeError:
            # Somebody killed the warden: we still stop our children ourselves, only our own SIGKILL goes unguarded.
            return


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group that may be gone already."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def describe_exit(status: int | None) -> str:
    """`exit status 2` or `killed by SIGKILL`."""
    if status is None:
        return "still running"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def tail(log: Path | None, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented."""
    if log is None:
        return "  (it writes none)"
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as error:
        return f"  (cannot be read: {error})"
    kept = text.splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in kept) or "  (empty)"
