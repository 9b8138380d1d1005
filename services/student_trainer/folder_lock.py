"""Lock files: the system lets go of a lock when its holder ends, however it ends. One trainer a run folder."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

TRAINER_LOCK = "trainer.lock"
TRIES, PAUSE_S = 10, 0.1  # `fabula runs` touches the lock for a moment when it looks


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, for us alone; whether nobody else has it. It goes with the descriptor."""
    return _flock(descriptor, fcntl.LOCK_EX)


def sign(descriptor: int) -> None:
    """Write into a lock file of ours who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock file; looking takes it for a moment, beside others who look."""
    try:
        with path.open("rb") as lock:
            return not _flock(lock.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
        sign(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _try(self, again: int) -> bool:
        time.sleep(PAUSE_S if again else 0)
        return try_lock(self._descriptor)
