"""One `fabula up` a run at a time, also while an earlier one's children are still ending."""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from services.local.errors import CommandError
from services.student_trainer.folder_lock import sign, try_lock

WAIT_S = 60.0


class RunLock:
    """Holds `<run folder>/up.lock`. Our warden inherits it, so a killed `up` holds it until its children are gone.

    Args:
        sleep: How to wait; it may raise to give up.
        say: Told once when there is something to wait for.
    """

    def __init__(self, folder: Path, sleep: Callable[[float], None], say: Callable[[str], None]) -> None:
        self._path = folder / "up.lock"
        self._sleep = sleep
        self._say = say
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The open lock file, for a process that shall hold it with us."""
        return self._descriptor

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CommandError(
                f"the run folder {self._path.parent} cannot be written: {error}; choose another place with --runs-dir"
            ) from error
        waited_s = 0.0
        while not try_lock(self._descriptor):
            holder = self._holder()
            if holder is not None or waited_s > WAIT_S:
                who = f"process {holder}" if holder is not None else "processes of an `up` that was killed"
                os.close(self._descriptor)
                raise CommandError(
                    f"the run in {self._path.parent} is in use by {who}; wait for it to end, stop it, or start "
                    "another run with --run NAME"
                )
            if not waited_s:
                self._say("An earlier `up` of this run was killed; its processes are still ending ...")
            self._sleep(0.5)
            waited_s += 0.5
        sign(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _holder(self) -> int | None:
        """The `up` that holds the lock, none where that process is gone and only its children are left."""
        try:
            pid = int(os.pread(self._descriptor, 20, 0))
            os.kill(pid, 0)
        except (ValueError, ProcessLookupError):
            return None
        except PermissionError:
            pass
        return pid
