"""What a service answers to a message, ready to travel."""

import logging
from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

from fabula_proto.base import Message
from fabula_proto.streams.client import to_body

log = logging.getLogger("fabula.streams")


class Work(Protocol):
    """A message that a consumer takes: `key` is the same for two requests that ask for the same work."""

    @property
    def key(self) -> str:
        """Identifies the work."""

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read it back."""


W = TypeVar("W", bound=Work)
ResultStream = str | Callable[[W], str]


class Answers(Generic[W]):
    """What a service does with a message, and where its answers go."""

    def __init__(
        self,
        handler: Callable[[W], Message | None],
        result_stream: ResultStream[W] | None,
        on_dead: Callable[[W, str], Message | None] | None,
    ):
        self.handler = handler
        self._result_stream = result_stream
        self._on_dead = on_dead

    def prepare(self, message: W, result: Message | None) -> tuple[str, str | None]:
        """Body and stream of an answer; an empty body where there is none."""
        if result is None:
            return "", None
        if self._result_stream is None:
            raise ValueError(f"the handler returned a {type(result).__name__}, and run() was given no result_stream")
        stream = self._result_stream if isinstance(self._result_stream, str) else self._result_stream(message)
        return to_body(result), stream

    def last_words(self, message: W | None, error_text: str) -> tuple[str, str | None]:
        """Body and stream of what the sender of a message that is given up hears."""
        if message is None or self._on_dead is None:
            return "", None
        try:
            return self.prepare(message, self._on_dead(message, error_text))
        except Exception:
            # As with the handler: a fault here must not keep the message from the dead letters.
            log.exception("on_dead failed for %s; its sender gets no answer", message.key)
            return "", None
