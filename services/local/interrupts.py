"""Signals as a number that loops look at. A handler that raised could strike between a fork and its bookkeeping."""

import signal
import time
from types import FrameType, TracebackType
from typing import Any, Self

from services.local.errors import Interrupted

POLL_S = 0.1
SAME_CTRL_C_S = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Notes SIGINT, SIGTERM and SIGHUP while it is entered.

    `insisted`: Ctrl-C came again. Two within half a second are one: a terminal, a shell and `make` may each pass it on.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.insisted = False
        self.first_ctrl_c = float("inf")
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises:
        Interrupted: a signal has arrived.
        """
        if self.stopping:
            raise Interrupted

    def sleep(self, seconds: float = POLL_S) -> None:
        """Wait, and check before and after.

        Raises:
            Interrupted: a signal has arrived.
        """
        self.check()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
            self.check()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        if number == signal.SIGINT:
            now = time.monotonic()
            self.first_ctrl_c = min(self.first_ctrl_c, now)
            self.insisted = self.insisted or now - self.first_ctrl_c > SAME_CTRL_C_S
