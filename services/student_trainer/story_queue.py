"""The trainer's end of the queue: stories out, verdicts back in story order, duplicates dropped."""

import time
from collections.abc import Callable, Sequence

from fabula_proto import STORIES_STREAM, ScoredBatch, StoryBatch, scores_stream
from fabula_proto.streams import Streams

BLOCK_S = 1.0


class NoVerdictsError(RuntimeError):
    """No teacher answered in time; the message says what was waited for."""


class StoryQueue:
    """Sends a step's stories in chunks and collects their verdicts.

    A run that was killed sends the chunks of its step again. Verdicts that had already come back are taken from the
    stream, where they stay until their step was recorded; a verdict counts only for the very stories that it judged.
    """

    def __init__(self, streams: Streams, run: str) -> None:
        self._streams = streams
        self._stream = scores_stream(run)
        self._cursor = "0"
        self._results: dict[tuple[int, int, str], ScoredBatch] = {}

    def send(self, batch: StoryBatch) -> None:
        """Ask for verdicts, unless they are there already."""
        self._read(block_s=0.0)
        if _key(batch) not in self._results:
            self._streams.publish(STORIES_STREAM, batch)

    def collect(
        self, batches: Sequence[StoryBatch], timeout_s: float, keep_waiting: Callable[[], None]
    ) -> list[ScoredBatch]:
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
        return [self._results[key] for key in wanted]

    def forget(self, step: int) -> None:
        """Let go of what was collected up to `step`, here and in Redis: it has been recorded."""
        self._results = {key: batch for key, batch in self._results.items() if key[0] > step}
        if not self._results:
            self._streams.forget(self._stream, self._cursor)

    def _read(self, block_s: float) -> int:
        """Take in what has arrived; how many batches that were not known before."""
        news = 0
        for entry, batch in self._streams.read(self._stream, self._cursor, ScoredBatch, block_s):
            self._cursor = entry
            key = (batch.step, batch.chunk, batch.digest)
            news += key not in self._results
            self._results.setdefault(key, batch)
        return news


def _key(batch: StoryBatch) -> tuple[int, int, str]:
    return (batch.step, batch.chunk, batch.digest)
