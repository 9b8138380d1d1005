"""A worker's side of a stream: take work, hold a lease on it, answer it once, give up what cannot be done.

1. A delivery is leased for `lease_s` and the lease is renewed while the handler works. A consumer that dies stops
   renewing, and another takes the delivery over. Expired leases are found by XPENDING IDLE and taken by XCLAIM:
   unlike XAUTOCLAIM that says how often an entry was delivered, has no cursor to lose, and on 6.2 does not hide
   which entry was deleted.
2. The result, the acknowledgement and the removal of the request are one script. See `scripts` for what "once" means.
3. A handler that raises is tried again after a backoff, by whichever consumer is free; after `max_deliveries` the
   request becomes a dead letter, and so does, at once, one that cannot be parsed.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic

from pydantic import ValidationError

from fabula_proto.base import Message
from fabula_proto.streams.answers import Answers, ResultStream, W
from fabula_proto.streams.client import Streams, dead_stream, errors_key
from fabula_proto.streams.link import Entry, GroupMissingError, Pending, TransportError
from fabula_proto.streams.scripts import BURY, COMPLETE, LEAVE, RENEW, RETRY_LATER, SKIP_IF_DONE

log = logging.getLogger("fabula.streams")

BLOCK_S = 1.0  # how long a stop may go unnoticed
CLAIM_COUNT = 10
KEEP_MARK_S = 7 * 24 * 3600  # a done mark guards against late duplicates, which come within leases, not weeks
ERROR_CHARS = 2000


class Consumer(Generic[W]):
    """One member of a consumer group; handles one message at a time. Several may share a stream, each in its thread.

    Arguments:
        streams: where the messages are.
        name: unique among living members. A stable one (such as teacher-0) lets a member that was killed and started
            again continue with its own delivery at once, without waiting for the lease to run out.
        lease_s: time after which a delivery that nobody renews is anybody's.
        max_deliveries: how often a message is tried before it becomes a dead letter.
        backoff_s: wait before the second try; doubles each time, never more than a lease.

    One group a stream: what a group has finished is deleted.
    """

    def __init__(
        self,
        streams: Streams,
        stream: str,
        group: str,
        name: str,
        model: type[W],
        *,
        lease_s: float = 30.0,
        max_deliveries: int = 5,
        backoff_s: float = 0.5,
    ):
        if lease_s <= 0 or backoff_s <= 0 or max_deliveries < 1:
            raise ValueError(
                f"lease_s {lease_s} and backoff_s {backoff_s} must be positive and max_deliveries {max_deliveries} at "
                "least 1; the defaults are 30, 0.5 and 5"
            )
        self._link = streams.link
        self.stream, self.group, self.name, self.model = stream, group, name, model
        self.lease_s, self.max_deliveries, self.backoff_s = lease_s, max_deliveries, backoff_s
        self._own: deque[Pending] = deque()

    def run(
        self,
        handler: Callable[[W], Message | None],
        stop: threading.Event,
        *,
        result_stream: ResultStream[W] | None = None,
        on_dead: Callable[[W, str], Message | None] | None = None,
    ) -> None:
        """Handle messages until `stop` is set; a delivery in hand is finished first. Returns within about a second.

        `handler` returns the result to publish, or None. `result_stream` is its stream's name, or says it for a
        message. `on_dead` is given a message that is given up and the error, and returns what to answer its sender,
        who would wait for ever otherwise.

        Raises:
            TransportError: Redis stayed away too long. What was in hand is redelivered when its lease has run out.
        """
        answers = Answers(handler, result_stream, on_dead)
        joined = False
        try:
            while not stop.is_set():
                try:
                    if not joined:
                        self._join()
                        joined = True
                    delivery = self._next(stop)
                except GroupMissingError as error:
                    log.warning("%s: %s", self.name, error)
                    joined = False
                    continue
                if delivery is not None:
                    self._work(delivery[0], delivery[1], answers)
            self._link.script(LEAVE, [self.stream], [self.group, self.name], patience_s=0.0)
        except TransportError as error:
            if not stop.is_set():
                raise
            log.warning("%s stops while Redis is away: %s", self.name, error)

    def _join(self) -> None:
        self._link.ensure_group(self.stream, self.group)
        # What a consumer of this name had in hand when it died: nobody else works on it.
        mine = self._link.pending(self.stream, self.group, idle_ms=0, count=CLAIM_COUNT, consumer=self.name)
        self._own = deque(mine)

    def _next(self, stop: threading.Event) -> tuple[Entry, int] | None:
        """The next delivery and how often it was delivered, this time included; None when nothing came."""
        while self._own:
            if taken := self._take(self._own.popleft(), idle_ms=0):
                return taken
        lease_ms = _ms(self.lease_s)
        for expired in self._link.pending(self.stream, self.group, idle_ms=lease_ms, count=CLAIM_COUNT):
            if taken := self._take(expired, idle_ms=lease_ms):
                log.info("%s takes over %s, delivery %d", self.name, taken[0].id, taken[1])
                return taken
        block_ms = _ms(min(BLOCK_S, self.lease_s / 2, self.backoff_s))
        entry = self._link.read_group(self.stream, self.group, self.name, block_ms, stop)
        return (entry, 1) if entry else None

    def _take(self, pending: Pending, *, idle_ms: int) -> tuple[Entry, int] | None:
        entry = self._link.claim(self.stream, self.group, self.name, pending.id, idle_ms)
        return (entry, pending.deliveries + 1) if entry else None

    def _work(self, entry: Entry, deliveries: int, answers: Answers[W]) -> None:
        try:
            message = self.model.from_json(entry.fields.get(b"body", b""))
        except ValidationError as error:
            self._bury(entry, deliveries, f"not a {self.model.__name__}: {error}", None, answers)
            return
        keys = [self.stream, errors_key(self.stream), self._mark(message)]
        if self._link.script(SKIP_IF_DONE, keys, [self.group, entry.id]):
            log.info("%s (%s) was answered before; skipped", message.key, entry.id)
            return
        if deliveries > self.max_deliveries:
            last = self._link.hash_field(errors_key(self.stream), entry.id)
            why = last or "none remembered: its consumers died or hung"
            error_text = f"delivered {self.max_deliveries} times and never finished; last error: {why}"
            self._bury(entry, deliveries - 1, error_text, message, answers)
            return
        try:
            with self._lease(entry.id):
                result = answers.handler(message)
                body, results = answers.prepare(message, result)
        except Exception as error:
            # A worker's outermost edge: whatever a handler raises, the next message must not pay for it.
            log.warning("%s (%s) failed, delivery %d", message.key, entry.id, deliveries, exc_info=True)
            self._failed(entry, deliveries, f"{type(error).__name__}: {error}", message, answers)
            return
        published = self._link.script(
            COMPLETE, [*keys, results or self.stream], [self.group, entry.id, body, KEEP_MARK_S]
        )
        log.info("%s (%s) done, result %s", message.key, entry.id, published or "none or published before")

    def _failed(self, entry: Entry, deliveries: int, error_text: str, message: W, answers: Answers[W]) -> None:
        if deliveries >= self.max_deliveries:
            self._bury(entry, deliveries, error_text, message, answers)
            return
        wait_s = min(self.lease_s, self.backoff_s * 2 ** (deliveries - 1))
        self._link.script(
            RETRY_LATER,
            [self.stream, errors_key(self.stream)],
            [self.group, entry.id, self.name, _ms(self.lease_s - wait_s), error_text[:ERROR_CHARS]],
        )

    def _bury(self, entry: Entry, deliveries: int, error_text: str, message: W | None, answers: Answers[W]) -> None:
        body, results = answers.last_words(message, error_text)
        mark = self._mark(message) if message is not None else f"{self.stream}:done"
        letter = self._link.script(
            BURY,
            [self.stream, errors_key(self.stream), mark, results or self.stream, dead_stream(self.stream)],
            [self.group, entry.id, body, KEEP_MARK_S, self.name, error_text[:ERROR_CHARS], deliveries],
        )
        log.error(
            "%s gave up %s after %d deliveries, dead letter %s: %s",
            self.name,
            entry.id,
            deliveries,
            letter or "none, another consumer has it",
            error_text,
        )

    @contextmanager
    def _lease(self, entry_id: str) -> Iterator[None]:
        """Renew the lease on one delivery, three times a lease, while the block runs."""
        finished = threading.Event()

        def renew() -> None:
            while not finished.wait(self.lease_s / 3):
                try:
                    held = self._link.script(RENEW, [self.stream], [self.group, entry_id, self.name], patience_s=0.0)
                except TransportError as error:
                    log.warning("lease on %s not renewed: %s", entry_id, error)
                    continue
                if not held:
                    # Not fatal: whoever finishes first answers, and the other's result is dropped.
                    log.warning("%s lost its lease on %s, perhaps it was suspended", self.name, entry_id)
                    return

        thread = threading.Thread(target=renew, name=f"lease-{entry_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()

    def _mark(self, message: W) -> str:
        return f"{self.stream}:done:{self.group}:{message.key}"


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))
