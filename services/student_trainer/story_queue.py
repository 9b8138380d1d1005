"""The trainer's end of the queue: stories out, verdicts back in story order, duplicates dropped."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fabula_proto import STORIES_STREAM, ScoredBatch, StoryBatch, scores_stream
from fabula_proto.streams import Streams

BLOCK_S = 1.0

Key = tuple[int, int, str]


class NoVerdictsError(RuntimeError):
    """No teacher answered in time; the message says what was waited for."""


@dataclass(frozen=True)
class Collected:
    """The verdicts of a step's chunks, in order, and how long the teacher had nothing of this run to judge."""

    scored: list[ScoredBatch]
    wait_for_student_s: float


class Verdicts(Protocol):
    """Where verdicts come from: a teacher at the other end of a queue, or a record."""

    def send(self, batch: StoryBatch) -> None:
        """Ask for verdicts."""

    def collect(self, batches: Sequence[StoryBatch], timeout_s: float, keep_waiting: Callable[[], None]) -> Collected:
        """The verdicts for one step's `batches`, in their order."""

    def forget(self, step: int) -> None:
        """Let go of what was collected up to `step`: it has been recorded."""

    def discard(self) -> None:
        """Let go of everything that came: it shall be asked for again."""

    def paused(self, since_s: float, until_s: float) -> None:
        """The run stood still between these times, of `time.monotonic()`: the teacher did not wait for the student."""


class StoryQueue:
    """Sends a step's stories in chunks and collects their verdicts.

    A run that was killed sends the chunks of its open steps again. Verdicts that had already come back are taken from
    the stream, where they stay until their step was recorded. A verdict counts only for the very stories it judged.
    """

    def __init__(self, streams: Streams, run: str) -> None:
        self._streams = streams
        self._stream = scores_stream(run)
        self._cursor = "0"
        self._read_ids: list[str] = []  # not trimmed yet
        self._results: dict[Key, tuple[str, ScoredBatch]] = {}
        self._teacher = TeacherIdle()
        self._server_ahead_ms = 0.0  # its clock and our monotonic one

    def send(self, batch: StoryBatch) -> None:
        """Ask for verdicts, unless they are there already."""
        self._read(block_s=0.0)
        if _key(batch) not in self._results:
            sent_ms = _milliseconds(self._streams.publish(STORIES_STREAM, batch))
            self._server_ahead_ms = sent_ms - 1000 * time.monotonic()
            self._teacher.sent(_key(batch), sent_ms)

    def collect(self, batches: Sequence[StoryBatch], timeout_s: float, keep_waiting: Callable[[], None]) -> Collected:
        """The verdicts for `batches`, in their order.

        Args:
            timeout_s: longest time without any verdict arriving.
            keep_waiting: called about once a second; may raise to stop waiting.

        Raises:
            NoVerdictsError: nothing came for `timeout_s`.
        """
        wanted = [_key(batch) for batch in batches]
        last_news = time.monotonic()
        while missing := [key for key in wanted if key not in self._results]:
            if self._read(block_s=BLOCK_S):
                last_news = time.monotonic()
            elif time.monotonic() - last_news > timeout_s:
                raise NoVerdictsError(
                    f"no verdict came for {timeout_s:g} s while {len(missing)} of {len(wanted)} chunks of step "
                    f"{batches[0].step} are open; is a teacher reading {STORIES_STREAM}? See its /readyz."
                )
            keep_waiting()
        return Collected([self._results[key][1] for key in wanted], self._teacher.take(wanted))

    def forget(self, step: int) -> None:
        """Let go of what was collected up to `step`, here and in Redis; what is needed later stays."""
        self._results = {key: result for key, result in self._results.items() if key[0] > step}
        needed = {entry for entry, _ in self._results.values()}
        first = next((place for place, entry in enumerate(self._read_ids) if entry in needed), len(self._read_ids))
        if first:
            self._streams.forget(self._stream, self._read_ids[first - 1])
            del self._read_ids[:first]

    def discard(self) -> None:
        """Let go of everything that came, here and in Redis."""
        self._results.clear()
        self.forget(-1)

    def paused(self, since_s: float, until_s: float) -> None:
        """That time is not counted as the student's."""
        since_ms, until_ms = (round(1000 * at + self._server_ahead_ms) for at in (since_s, until_s))
        self._teacher.paused(since_ms, until_ms)

    def _read(self, block_s: float) -> int:
        """Take in what has arrived; how many batches that were not known before."""
        news = 0
        for entry, batch in self._streams.read(self._stream, self._cursor, ScoredBatch, block_s):
            self._cursor = entry
            self._read_ids.append(entry)
            key = (batch.step, batch.chunk, batch.digest)
            if key not in self._results:
                news += 1
                self._results[key] = (entry, batch)
                self._teacher.answered(key, _milliseconds(entry))
        return news


class TeacherIdle:
    """How long no chunk of a run was with its teacher, by the queue server's clock, in milliseconds."""

    def __init__(self) -> None:
        self._sent: dict[Key, int] = {}
        self._answered: dict[Key, int] = {}
        self._pauses: list[tuple[int, int]] = []
        self._since: int | None = None  # up to here the time is accounted for

    def sent(self, key: Key, at_ms: int) -> None:
        """A chunk went out."""
        self._sent[key] = at_ms
        if self._since is None:
            self._since = at_ms

    def answered(self, key: Key, at_ms: int) -> None:
        """Its verdicts came in."""
        if key in self._sent:
            self._answered[key] = at_ms

    def paused(self, since_ms: int, until_ms: int) -> None:
        """The run stood still on purpose: no idle time."""
        self._pauses.append((since_ms, until_ms))

    def take(self, keys: Sequence[Key]) -> float:
        """Idle seconds from where the last call stopped up to the last answer to `keys`, which are done with."""
        ends = [self._answered[key] for key in keys if key in self._answered]
        if self._since is None or not ends:
            return 0.0  # all of them had been judged before this process began
        until = max(ends)
        idle, covered = 0, self._since
        at_work = [(sent, self._answered.get(key, until)) for key, sent in self._sent.items()]
        for start, end in sorted(at_work + self._pauses):
            idle += max(0, min(start, until) - covered)
            covered = max(covered, min(end, until))
        self._since = max(self._since, until)
        self._pauses = [(start, end) for start, end in self._pauses if end > until]
        for key in keys:
            self._sent.pop(key, None)
            self._answered.pop(key, None)
        return idle / 1000


def _key(batch: StoryBatch) -> Key:
    return (batch.step, batch.chunk, batch.digest)


def _milliseconds(entry: str) -> int:
    return int(entry.partition("-")[0])
