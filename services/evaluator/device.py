"""One evaluation a device: whoever wants to measure waits for its turn."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from services.evaluator.errors import AbandonedError

LOOK_EVERY_S = 0.2


class Device:
    """What this process measures with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether something is being measured."""
        return self._lock.locked()

    @contextmanager
    def held(self, stop: threading.Event) -> Iterator[None]:
        """The device is ours for as long as the context lasts.

        Raises:
            AbandonedError: `stop` was set while we waited.
        """
        while not self._lock.acquire(timeout=LOOK_EVERY_S):
            if stop.is_set():
                raise AbandonedError("stopping before its turn came")
        try:
            yield
        finally:
            self._lock.release()
