"""Streams as their senders and readers see them: publish work, read results, look at the queue."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from fabula_proto.base import Message
from fabula_proto.streams.link import Link, TransportError
from fabula_proto.streams.scripts import REQUEUE

START = "0-0"
READ_COUNT = 100

M = TypeVar("M", bound=Message)


class UnreadableEntryError(TransportError):
    """An entry of a result stream does not hold the message that its reader expects."""


@dataclass(frozen=True)
class Lag:
    """How far a group is behind. The sum is what is left to do."""

    pending: int  # delivered to a consumer and not finished
    waiting: int  # not delivered yet

    @property
    def total(self) -> int:
        """Entries not finished."""
        return self.pending + self.waiting


@dataclass(frozen=True)
class DeadLetter:
    """Work that was given up: what it was, why, and after how many deliveries."""

    id: str
    origin: str
    group: str
    error: str
    deliveries: int
    body: str  # the payload as it came; bytes that are not UTF-8 are shown as U+FFFD, and requeued as they were


def dead_stream(stream: str) -> str:
    """Name of the stream that keeps what consumers of `stream` gave up."""
    return f"{stream}:dead"


def errors_key(stream: str) -> str:
    """Name of the hash that holds the last error of each delivery of `stream` waiting to be tried again."""
    return f"{stream}:errors"


def to_body(message: Message) -> str:
    """The message as it travels.

    Raises:
        ValueError: its text holds a lone surrogate, which JSON in UTF-8 cannot carry.
    """
    try:
        return message.to_json()
    except PydanticSerializationError as error:
        raise ValueError(
            f"{type(message).__name__} cannot be written as UTF-8: {error}; replace lone surrogates first, "
            'for instance text.encode("utf-8", "replace").decode()'
        ) from error


class Streams:
    """Publishes and reads messages. Safe to share between threads.

    A connection that is lost, as while Redis restarts, is tried again for `patience_s` seconds; then, or when the
    server refuses a command, a method raises TransportError. A publish whose reply was lost is repeated and logged:
    the entry may then be there twice, and consumers answer both with one result.
    """

    def __init__(self, url: str, *, patience_s: float = 30.0):
        self.link = Link(url, patience_s=patience_s)

    def ping(self) -> None:
        """Raise TransportError at once, without trying again, when the server does not answer."""
        self.link.ping()

    def publish(self, stream: str, message: Message) -> str:
        """Append one message; returns its entry id. A message that cannot be written as UTF-8 is a ValueError."""
        return self.publish_many(stream, [message])[0]

    def publish_many(self, stream: str, messages: Sequence[Message]) -> list[str]:
        """Append messages in order and in one transaction: all of them or none. Returns their entry ids."""
        bodies = [to_body(message) for message in messages]
        return self.link.add(stream, bodies) if bodies else []

    def read(
        self, stream: str, after: str, model: type[M], block_s: float = 0.0, count: int = READ_COUNT
    ) -> list[tuple[str, M]]:
        """Messages above entry id `after` with their ids, oldest first; empty when none came within `block_s` seconds.

        The reader keeps its own place: pass the last id it saw, and START after a restart, since results that came
        while nobody listened are still there. One request may be answered twice (it was sent twice); readers drop
        a message whose key they have.

        Raises:
            UnreadableEntryError: an entry is not a `model`. Passing over it could leave the reader waiting for ever.
        """
        deadline = time.monotonic() + block_s
        while True:
            left_ms = max(0, round(1000 * (deadline - time.monotonic())))
            entries = self.link.read(stream, after, count, left_ms)
            if entries or left_ms == 0:
                break
        messages = []
        for entry in entries:
            try:
                messages.append((entry.id, model.from_json(entry.fields.get(b"body", b""))))
            except ValidationError as error:
                raise UnreadableEntryError(
                    f"entry {entry.id} of {stream} is not a {model.__name__}: {error}; if another version of fabula "
                    f"wrote it, run one version on both sides, then remove it: redis-cli XDEL {stream} {entry.id}"
                ) from error
        return messages

    def forget(self, stream: str, through_id: str) -> int:
        """Drop the entries up to and with `through_id`: they were collected. Returns how many went."""
        milliseconds, _, sequence = through_id.partition("-")
        return self.link.trim_below(stream, f"{milliseconds}-{int(sequence or 0) + 1}")

    def delete(self, stream: str) -> None:
        """Remove a stream with its groups, its dead letters and its remembered errors."""
        self.link.delete(stream, dead_stream(stream), errors_key(stream))

    def depth(self, stream: str, group: str) -> Lag:
        """How much `group` has left to do. Exact for one group a stream, since finished entries are deleted."""
        pending = self.link.pending_count(stream, group)
        return Lag(pending=pending, waiting=max(0, self.link.length(stream) - pending))

    def oldest(self, stream: str) -> float | None:
        """When the oldest entry of `stream` was sent, by the server's clock in seconds since 1970; None for none."""
        entries = self.link.scan(stream, START, 1)
        return int(entries[0].id.partition("-")[0]) / 1000 if entries else None

    def dead_count(self, stream: str) -> int:
        """How many pieces of work consumers of `stream` gave up."""
        return self.link.length(dead_stream(stream))

    def dead_letters(self, stream: str, count: int = READ_COUNT) -> list[DeadLetter]:
        """The oldest `count` pieces of work that consumers of `stream` gave up."""
        letters = []
        for entry in self.link.scan(dead_stream(stream), START, count):
            text = {name.decode(): value.decode("utf-8", errors="replace") for name, value in entry.fields.items()}
            letters.append(
                DeadLetter(
                    id=entry.id,
                    origin=text["dead:origin"],
                    group=text["dead:group"],
                    error=text["dead:error"],
                    deliveries=int(text["dead:deliveries"]),
                    body=text.get("body", ""),
                )
            )
        return letters

    def requeue(self, stream: str, letter_id: str) -> str:
        """Put a dead letter back at the end of `stream`, byte for byte; returns its new entry id.

        Raises:
            KeyError: there is no dead letter with this id.
        """
        new_id = str(self.link.script(REQUEUE, [stream, dead_stream(stream)], [letter_id]))
        if not new_id:
            raise KeyError(f"{dead_stream(stream)} has no entry {letter_id}; dead_letters({stream!r}) lists them")
        return new_id

    def close(self) -> None:
        """Close the connections."""
        self.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
