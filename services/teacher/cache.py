"""Verdicts remembered in Redis, so that a teacher does not judge the same text twice.

A key is `fabula:verdict:` and the SHA-256 of the flags' version, the teacher's identity (backend, model and revision,
rubric with its hash, mode) and the story's text, each preceded by its length: another rubric, mode or model is another
key, and no text can pass for a part of the identity. A story's id and prompt are left out, since its text alone is
judged. Neither keys nor values tell what a story says.

A value is the verdict without its story's id, as JSON without defaults, deflated. Numbers come back bit for bit.
Measured, bytes on average: 418 for three criteria of four random probabilities and a halo each (737 without zlib), 293
for the rules judge on 300 TinyStories (545 without); Redis 6.2 takes 635 for one of the former, key included.

The cache may fail without harm: while Redis is away, nothing is remembered and every story is judged.
"""

import hashlib
import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from pydantic import ValidationError

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from fabula_proto.streams import Store, TransportError
from services.teacher.flags import FLAGS_VERSION

log = logging.getLogger(__name__)

PREFIX = "fabula:verdict:"
TIMEOUT_S = 1.0  # a server that takes longer costs more than it saves
RETRY_S = 10.0

Lookup = Literal["hit", "miss", "unreadable", "skipped"]


class CacheObserver(Protocol):
    """Who counts what the cache does."""

    def cache_looked_up(self, result: Lookup, stories: int) -> None:
        """So many stories were remembered; not remembered; remembered unreadably; not looked up, as Redis is away."""
        ...

    def cache_failed(self) -> None:
        """Redis did not do what it was asked to."""
        ...


class Pause:
    """After a failure nobody tries for `retry_s`, then one caller: a server that hangs delays few requests."""

    def __init__(self, retry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_s = retry_s
        self._clock = clock
        self._lock = threading.Lock()
        self._until: float | None = None  # None while all is well

    def is_over(self) -> bool:
        """Whether the caller may try. Where it is the first one after a pause, the others wait one more."""
        with self._lock:
            if self._until is None:
                return True
            now = self._clock()
            if now < self._until:
                return False
            self._until = now + self._retry_s
            return True

    def begin(self) -> bool:
        """Trying failed; returns whether that is news."""
        with self._lock:
            news = self._until is None
            self._until = self._clock() + self._retry_s
            return news

    def end(self) -> bool:
        """Trying succeeded; returns whether that is news."""
        with self._lock:
            news = self._until is not None
            self._until = None
            return news


class VerdictCache:
    """Verdicts by teacher and text. Safe to share between threads and teachers.

    Calls block: for a server that hangs, `TIMEOUT_S` to connect and as long for the answer.

    Raises:
        ValueError: `redis_url` is not an address of a Redis server, or `ttl_s` is below 1.
    """

    def __init__(self, redis_url: str, ttl_s: int, observer: CacheObserver, *, retry_s: float = RETRY_S) -> None:
        if ttl_s < 1:
            raise ValueError(f"ttl_s {ttl_s} must be at least 1 second; without a cache, make none")
        self._store = Store(redis_url, patience_s=0.0, timeout_s=TIMEOUT_S)
        self._ttl_s = ttl_s
        self._observer = observer
        # Apart, because a server that is full still answers what it knows.
        self._reading, self._writing = Pause(retry_s), Pause(retry_s)
        self._unreadable_seen = False

    def get_many(self, identity: TeacherIdentity, stories: Sequence[Story]) -> list[Verdict | None]:
        """What `identity` said of each story before, marked as cached; None where that is not known."""
        nothing: list[Verdict | None] = [None] * len(stories)
        if not stories:
            return nothing
        if not self._reading.is_over():
            self._observer.cache_looked_up("skipped", len(stories))
            return nothing
        try:
            values = self._store.get_many(_keys(identity, stories))
        except TransportError as error:
            self._failed("verdicts are neither looked up nor remembered for now", error, self._reading, self._writing)
            self._observer.cache_looked_up("skipped", len(stories))
            return nothing
        if self._reading.end():
            log.info("verdicts are looked up again")
        verdicts = [_read(value, story.id) for value, story in zip(values, stories, strict=True)]
        self._count(values, verdicts)
        return verdicts

    def put_many(self, identity: TeacherIdentity, judged: Iterable[tuple[Story, Verdict]]) -> None:
        """Remember the verdicts that are `ok` and new; the others may come out differently next time."""
        kept = [(story, v) for story, v in judged if v.status is VerdictStatus.OK and not v.cached]
        if not kept or not self._writing.is_over():
            return
        keys = _keys(identity, [story for story, _ in kept])
        values = {key: _written(verdict) for key, (_, verdict) in zip(keys, kept, strict=True)}
        try:
            self._store.put_many(values, self._ttl_s)
        except TransportError as error:
            self._failed("verdicts are not remembered for now", error, self._writing)
            return
        if self._writing.end():
            log.info("verdicts are remembered again")

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def _failed(self, consequence: str, error: TransportError, *pauses: Pause) -> None:
        self._observer.cache_failed()
        news = [pause.begin() for pause in pauses]
        if any(news):
            log.warning("%s: %s", consequence, error)

    def _count(self, values: Sequence[bytes | None], verdicts: Sequence[Verdict | None]) -> None:
        misses = values.count(None)
        unreadable = verdicts.count(None) - misses
        counts: dict[Lookup, int] = {"hit": len(values) - misses - unreadable, "miss": misses, "unreadable": unreadable}
        for result, stories in counts.items():
            if stories:
                self._observer.cache_looked_up(result, stories)
        if unreadable and not self._unreadable_seen:
            self._unreadable_seen = True
            log.warning(
                "%d remembered verdicts are unreadable, and their stories are judged anew: another version of fabula "
                "writes to this Redis; run one version, or give each its own database (said once)",
                unreadable,
            )


def _keys(identity: TeacherIdentity, stories: Sequence[Story]) -> list[str]:
    teacher = hashlib.sha256(_with_length(FLAGS_VERSION))
    teacher.update(_with_length(json.dumps(identity.model_dump(), sort_keys=True)))
    keys = []
    for story in stories:
        digest = teacher.copy()
        digest.update(_with_length(story.text))
        keys.append(PREFIX + digest.hexdigest())
    return keys


def _with_length(text: str) -> bytes:
    encoded = text.encode("utf-8", errors="surrogatepass")
    return len(encoded).to_bytes(8, "big") + encoded


def _written(verdict: Verdict) -> bytes:
    nameless = verdict.model_copy(update={"story_id": "", "cached": True})
    return zlib.compress(nameless.model_dump_json(exclude_defaults=True).encode())


def _read(value: bytes | None, story_id: str) -> Verdict | None:
    """The verdict that `value` holds, for this story; None where it holds none."""
    if value is None:
        return None
    try:
        return Verdict.from_json(zlib.decompress(value)).model_copy(update={"story_id": story_id})
    except (zlib.error, ValidationError):
        return None
