"""Takes story batches from the queue, has them judged where HTTP's stories are judged, and answers."""

import logging
import threading
import time

from fabula_proto import (
    STORIES_STREAM,
    TEACHERS_GROUP,
    ScoredBatch,
    StoryBatch,
    TeacherIdentity,
    Verdict,
    VerdictStatus,
    scores_stream,
)
from fabula_proto.streams import Consumer, Streams, TransportError
from services.teacher import logs
from services.teacher.assignments import Assignments
from services.teacher.desk import Judged
from services.teacher.info import QueueInfo
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.metrics import Metrics
from services.teacher.registry import Registry
from services.teacher.roster import UnknownTeacherError
from services.teacher.settings import TeacherSettings

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  # how long the transport tries on its own before it says that Redis is away
RECONNECT_S = 1.0
HOLD_S = 2.0  # between two questions to a judge that is away for a while


class QueueWorker:
    """Serves the story queue until it is told to stop, with as many batches in hand as the judge has lanes.

    A batch is judged by the teacher that it names, else by those that its run asked for (see `Assignments`), else by
    the service's own. While a judge is away for a while, as when its server restarts, the batch is held and not given
    up.

    Raises:
        ValueError: `redis_url` is not an address of a Redis server.
    """

    def __init__(
        self, settings: TeacherSettings, registry: Registry, assignments: Assignments, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._streams = Streams(settings.redis_url or "", patience_s=PATIENCE_S)
        self._registry = registry
        self._assignments = assignments
        self._metrics = metrics
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._first = threading.Thread(target=self._serve, name="queue-worker-0")
        self._started = False
        self._batches = 0
        self._stories = 0
        self._held: str | None = None

    def start(self) -> None:
        """Begin to serve as soon as the own judge is there. Nothing connects before."""
        self._started = True
        self._first.start()

    def finish(self) -> None:
        """Take no further batch; returns at once."""
        self._stop.set()

    def stop(self) -> None:
        """Finish and answer the batches in hand, then end. Safe where the worker never started."""
        self.finish()
        if self._started:
            self._first.join()
        for thread in self._threads:
            thread.join()
        self._streams.close()

    def why_not_ready(self) -> str | None:
        """None when batches are being served; else the reason. Asks Redis, so it may take a moment."""
        if not self._started:
            return "the queue worker has not started yet"
        if not self._first.is_alive():
            return "the queue worker has stopped; see the teacher's log and restart it"
        if self._held is not None:
            return f"a batch of the queue is held back: {self._held}"
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

    def _serve(self) -> None:
        """The first lane: waits for the judge, then opens the other lanes and works itself."""
        lanes = 0
        while not self._stop.is_set() and not lanes:
            try:
                lanes = self._registry.own.desk(wait_s=RECONNECT_S).lanes
            except JudgeUnavailableError:
                self._stop.wait(RECONNECT_S)  # its seat has said why
        for lane in range(1, lanes):
            thread = threading.Thread(target=self._run, args=(lane,), name=f"queue-worker-{lane}")
            self._threads.append(thread)
            thread.start()
        self._run(0)

    def _run(self, lane: int) -> None:
        settings = self._settings
        consumer = Consumer(
            self._streams,
            STORIES_STREAM,
            TEACHERS_GROUP,
            settings.worker if lane == 0 else f"{settings.worker}/{lane}",
            StoryBatch,
            lease_s=settings.lease_s,
            max_deliveries=settings.max_deliveries,
        )
        while not self._stop.is_set():
            try:
                consumer.run(
                    self._answer,
                    self._stop,
                    result_stream=lambda batch: scores_stream(batch.run),
                    on_dead=self._give_up,
                )
            except TransportError as error:
                log.warning("the queue is away, trying again: %s", error)
                self._stop.wait(RECONNECT_S)

    def _answer(self, batch: StoryBatch) -> ScoredBatch:
        with logs.request(logs.clean_request_id(batch.request_id)):
            began = time.monotonic()
            judged = self._judge_or_hold(batch)
            seconds = time.monotonic() - began
            with self._lock:
                self._batches += 1
                self._stories += len(judged.verdicts)
            self._metrics.stories_in("queue", len(judged.verdicts))
            figures = {"run": batch.run, "step": batch.step, "chunk": batch.chunk, "stories": len(batch.stories)}
            times = {"queue_s": round(judged.queue_s, 4), "inference_s": round(judged.inference_s, 4)}
            log.info("batch %s judged in %.3f s", batch.key, seconds, extra={**figures, **times})
            return self._scored(batch, judged.verdicts, judged.identity, seconds)

    def _judge_or_hold(self, batch: StoryBatch) -> Judged:
        """The batch's verdicts; while a judge is away for a while, wait for it with the lease renewed.

        Raises:
            JudgeUnavailableError: the judge is away for good, or we are stopping: the batch goes back to the queue.
        """
        while True:
            try:
                panel = self._registry.panel(self._names(batch), wait_s=RECONNECT_S)
                judged = panel.admit(batch.stories, patient=True, fresh=batch.fresh).finish()
            except JudgeUnavailableError as error:
                if not error.passing or self._stop.is_set():
                    raise
                if self._held is None:
                    log.warning("batch %s is held back: %s", batch.key, error)
                self._held = str(error)
                self._stop.wait(HOLD_S)
            except UnknownTeacherError as error:
                if batch.teacher is not None:
                    return self._nobody(batch, str(error))
                raise JudgeUnavailableError(
                    f"run {batch.run!r} asked for its teachers by PUT /runs/{batch.run}/teachers, and {error}"
                ) from error
            else:
                self._held = None
                return judged

    def _names(self, batch: StoryBatch) -> tuple[str, ...]:
        return self._assignments.of(batch.run) if batch.teacher is None else (batch.teacher,)

    def _nobody(self, batch: StoryBatch, reason: str) -> Judged:
        """The answer to a batch for a teacher that nobody here has, as over HTTP at once: waiting would not help."""
        return Judged(
            verdicts=_failed(batch, reason),
            identity=self._registry.own.desk().identity,
            members={},
            queue_s=0.0,
            inference_s=0.0,
        )

    def _give_up(self, batch: StoryBatch, error: str) -> ScoredBatch:
        """The answer to a batch that could not be judged: its sender must not wait for ever."""
        try:
            identity = self._registry.panel(self._names(batch)).identity
        except (JudgeUnavailableError, UnknownTeacherError, TransportError, ValueError):
            identity = self._registry.own.desk().identity
        return self._scored(batch, _failed(batch, f"given up by the queue: {error}"), identity, 0.0)

    def _scored(
        self, batch: StoryBatch, verdicts: tuple[Verdict, ...], identity: TeacherIdentity, seconds: float
    ) -> ScoredBatch:
        return ScoredBatch(
            run=batch.run,
            step=batch.step,
            chunk=batch.chunk,
            digest=batch.digest,
            verdicts=verdicts,
            teacher=identity,
            worker=self._settings.worker,
            seconds=seconds,
            request_id=batch.request_id,
        )


def _failed(batch: StoryBatch, reason: str) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason=reason[:500]) for story in batch.stories
    )
