"""Trackers follow a run without being able to touch it: each is a process of its own that reads the run's records.

The loop neither calls a tracker nor waits for one: it writes metrics.jsonl and stories/ as it does anyway. So a
package that is missing, hangs, crashes or meddles with signals and random state costs a warning, and nothing is
dropped in a queue: what a tracker misses it reads later.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from services.student_trainer.settings import TrackingSettings
from services.student_trainer.trackers_backends import tracking_folder

ALARM_AFTER_S = 5.0  # a tracker whose trainer is gone ends itself; the trainer comes first, for it ends the whole group


class RunningTracker:
    """One tracker's process, and the thread that says once what became of it."""

    def __init__(self, folder: Path, name: str, close_s: float, warn: Callable[[str], None]) -> None:
        self.name = name
        self.log = tracking_folder(folder) / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "services.student_trainer.trackers_process", str(folder), name]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(close_s + ALARM_AFTER_S)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._warn = warn
        self._late = False
        self._watch = threading.Thread(target=self._report, daemon=True)
        self._watch.start()

    def ask_to_end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def wait(self, seconds: float) -> bool:
        """Whether it ends well in that time; when it takes longer it is killed, with whatever it started."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._late = True
            os.killpg(self.process.pid, signal.SIGKILL)
        self._watch.join()
        return self.process.returncode == 0

    def _report(self) -> None:
        status = self.process.wait()
        if self._late:
            self._warn(f"tracker {self.name} did not end in time and was stopped; what it said: {self.log}")
        elif status:
            why = _last_line(self.log) if status == 1 else _exit(status)
            self._warn(f"tracker {self.name} stopped: {why}; what it said: {self.log}")


class Trackers:
    """The settings' trackers, from entering to leaving; `warn` is told, once each, of those that fail.

    Leaving takes at most `close_s` seconds. Nothing here raises.
    """

    def __init__(self, folder: Path, settings: TrackingSettings, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._settings = settings
        self._warn = warn
        self.running: list[RunningTracker] = []

    def __enter__(self) -> Self:
        for name in self._settings.trackers:
            try:
                self.running.append(RunningTracker(self._folder, name, self._settings.close_s, self._warn))
            except OSError as error:
                self._warn(f"tracker {name} cannot be started: {error}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> bool:
        """Have the trackers send the rest and end; whether all did."""
        deadline = time.monotonic() + self._settings.close_s
        for tracker in self.running:
            tracker.ask_to_end()
        ended = [tracker.wait(deadline - time.monotonic()) for tracker in self.running]
        self.running = []
        return all(ended)


def _exit(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1].strip().rstrip(".") if lines else ""
