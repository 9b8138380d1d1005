"""One trainer a run folder: a lock that the system lets go of when the process ends, however it ends."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

TRAINER_LOCK = "trainer.lock"
TRIES, PAUSE_S = 10, 0.1  # `fabula runs` touches the lock for a moment when it looks


class FolderInUseError(RuntimeError):
    """Another trainer works in the folder; the message names it."""


class FolderLock:
    """Holds `<run folder>/trainer.lock` from entering to leaving.

    Raises:
        FolderInUseError: on entering, where another process holds it.
        OSError: on entering, where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRAINER_LOCK
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not any(self._try(again) for again in range(TRIES)):
            holder = os.pread(self._descriptor, 20, 0).decode(errors="replace") or "?"
            os.close(self._descriptor)
            raise FolderInUseError(
                f"process {holder} trains in {self._path.parent} already; wait for it to end, stop it, or use another "
                "run folder"
            )
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _try(self, again: int) -> bool:
        time.sleep(PAUSE_S if again else 0)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
