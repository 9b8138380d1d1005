"""Takes checkpoints from the queue, measures them one at a time in a thread of its own, and publishes the reports."""

import logging
import threading
from pathlib import Path

from fabula_proto import (
    CHECKPOINTS_STREAM,
    EVALUATORS_GROUP,
    REPORTS_STREAM,
    CheckpointReady,
    EvaluationReport,
)
from fabula_proto.streams import Consumer, Streams, TransportError
from services.evaluator.device import Device
from services.evaluator.errors import AbandonedError, CheckpointError
from services.evaluator.progress import Progress
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.views import WorkerInfo

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  # how long the transport tries on its own before it says that Redis is away
RECONNECT_S = 1.0
DRAIN_S = 20.0  # one batch or one round of writing ends well within


class QueueWorker:
    """A thread that serves the checkpoint queue until it is told to stop. Nothing connects before `start`.

    Raises:
        ValueError: `settings.redis_url` is none or no address of a Redis server.
    """

    def __init__(self, settings: EvaluatorSettings, device: Device) -> None:
        if settings.redis_url is None:
            raise ValueError("a queue worker needs redis_url, such as redis://localhost:6379/0")
        self._settings = settings
        self._device = device
        self._streams = Streams(settings.redis_url, patience_s=PATIENCE_S)
        self._consumer = Consumer(
            self._streams,
            CHECKPOINTS_STREAM,
            EVALUATORS_GROUP,
            settings.worker,
            CheckpointReady,
            lease_s=settings.lease_s,
            max_deliveries=settings.max_deliveries,
        )
        self._stop = threading.Event()
        # Daemon: a teacher that hangs must not keep a process alive that was told to go; its work is delivered again.
        self._thread = threading.Thread(target=self._run, name="evaluations", daemon=True)
        self._working_on: str | None = None
        self._progress = Progress("", 0, 0)
        self._finished = 0
        self._last_error: str | None = None

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def finish(self) -> None:
        """Abandon what is in hand at the next opportunity and take nothing more; returns at once."""
        self._stop.set()

    def stop(self) -> None:
        """Finish and wait for the thread, `DRAIN_S` seconds at most. Safe where the worker never started."""
        self.finish()
        if self._thread.ident is not None:
            self._thread.join(DRAIN_S)
            if self._thread.is_alive():
                log.warning("%s is still busy and is left behind; it will be delivered again", self._working_on)
        self._streams.close()

    def why_not_ready(self) -> str | None:
        """None when checkpoints are being served; else the reason. Asks Redis, so it may take a moment."""
        if self._thread.ident is None:
            return "the queue worker has not started yet"
        if self._stop.is_set() or not self._thread.is_alive():
            return "the queue worker has stopped; see the evaluator's log and restart it"
        try:
            self._streams.ping()
        except TransportError as error:
            return str(error)
        return None

    def info(self) -> WorkerInfo:
        """What is in hand and what was done so far."""
        progress, working_on = self._progress, self._working_on
        return WorkerInfo(
            alive=self._thread.is_alive(),
            working_on=working_on,
            suite=progress.suite if working_on else None,
            done=progress.done if working_on else 0,
            total=progress.total if working_on else 0,
            finished=self._finished,
            last_error=self._last_error,
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._consumer.run(self._evaluate, self._stop, result_stream=REPORTS_STREAM)
            except TransportError as error:
                self._last_error = str(error)
                log.warning("the queue is away (%s); trying again", error)
                self._stop.wait(RECONNECT_S)

    def _evaluate(self, ready: CheckpointReady) -> EvaluationReport:
        # Here, not above: torch takes seconds and hundreds of megabytes, which pages and OpenAPI do not need.
        from services.evaluator.evaluation import evaluate_checkpoint, failed_report

        request = EvaluationRequest.from_ready(ready, self._settings.runs_dir)
        self._working_on = ready.key
        log.info("measuring %s", ready.key)
        try:
            if not (Path(ready.path) / "manifest.json").is_file():
                raise CheckpointError(f"{ready.path} has no manifest.json, so it is not complete; save it again")
            with self._device.held(self._stop):
                report = evaluate_checkpoint(request, self._settings, self._watch)
        except CheckpointError as error:
            self._last_error = str(error)
            log.warning("%s cannot be measured: %s", ready.key, error)
            report = failed_report(request, self._settings, str(error))
        finally:
            self._working_on = None
        self._finished += 1
        log.info("measured %s in %.1f s", ready.key, report.seconds)
        return report

    def _watch(self, progress: Progress) -> None:
        self._progress = progress
        if self._stop.is_set():
            raise AbandonedError(f"stopping; {self._working_on} is left for another delivery")
