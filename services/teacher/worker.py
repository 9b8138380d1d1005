"""Takes story batches from the queue, has them judged in the same room as HTTP's stories, and answers."""

import logging
import threading
import time

from fabula_proto import (
    STORIES_STREAM,
    TEACHERS_GROUP,
    ScoredBatch,
    StoryBatch,
    Verdict,
    VerdictStatus,
    scores_stream,
)
from fabula_proto.streams import Consumer, Streams, TransportError
from services.teacher.info import QueueInfo
from services.teacher.room import JudgeRoom

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  # how long the transport tries on its own before it says that Redis is away
RECONNECT_S = 1.0


class QueueWorker:
    """A thread that serves the story queue until it is told to stop. Nothing connects before `start`.

    Raises:
        ValueError: `redis_url` is not an address of a Redis server.
    """

    def __init__(self, redis_url: str, name: str, *, lease_s: float, max_deliveries: int) -> None:
        self._streams = Streams(redis_url, patience_s=PATIENCE_S)
        self._consumer = Consumer(
            self._streams,
            STORIES_STREAM,
            TEACHERS_GROUP,
            name,
            StoryBatch,
            lease_s=lease_s,
            max_deliveries=max_deliveries,
        )
        self._name = name
        self._room: JudgeRoom | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-worker")
        self._batches = 0
        self._stories = 0

    def start(self, room: JudgeRoom) -> None:
        """Begin to serve, with `room` to judge in."""
        self._room = room
        self._thread.start()

    def finish(self) -> None:
        """Take no further batch; returns at once."""
        self._stop.set()

    def stop(self) -> None:
        """Finish and answer the batch in hand, then end. Safe where the worker never started."""
        self.finish()
        if self._room is not None:
            self._thread.join()
        self._streams.close()

    def why_not_ready(self) -> str | None:
        """None when batches are being served; else the reason. Asks Redis, so it may take a moment."""
        if self._room is None:
            return "the queue worker has not started yet"
        if not self._thread.is_alive():
            return "the queue worker has stopped; see the teacher's log and restart it"
        try:
            self._streams.ping()
        except TransportError as error:
            return str(error)
        return None

    def info(self) -> QueueInfo:
        """What the worker did so far, and whether it can work now."""
        reason = self.why_not_ready()
        return QueueInfo(
            enabled=True, connected=reason is None, batches=self._batches, stories=self._stories, reason=reason
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._consumer.run(
                    self._answer,
                    self._stop,
                    result_stream=lambda batch: scores_stream(batch.run),
                    on_dead=self._give_up,
                )
            except TransportError as error:
                log.warning("the queue is away, trying again: %s", error)
                self._stop.wait(RECONNECT_S)

    def _answer(self, batch: StoryBatch) -> ScoredBatch:
        room = self._served_room()
        began = time.monotonic()
        verdicts = room.judge(batch.stories)
        self._batches += 1
        self._stories += len(verdicts)
        return self._scored(batch, verdicts, time.monotonic() - began)

    def _give_up(self, batch: StoryBatch, error: str) -> ScoredBatch:
        """The answer to a batch that could not be judged: its sender must not wait for ever."""
        reason = f"given up by the queue: {error}"[:500]
        verdicts = [Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason=reason) for story in batch.stories]
        return self._scored(batch, verdicts, 0.0)

    def _scored(self, batch: StoryBatch, verdicts: list[Verdict], seconds: float) -> ScoredBatch:
        return ScoredBatch(
            run=batch.run,
            step=batch.step,
            chunk=batch.chunk,
            digest=batch.digest,
            verdicts=tuple(verdicts),
            teacher=self._served_room().identity,
            worker=self._name,
            seconds=seconds,
        )

    def _served_room(self) -> JudgeRoom:
        if self._room is None:
            raise RuntimeError("the queue worker has no room to judge in; call start(room) first")
        return self._room
