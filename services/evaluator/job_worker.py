"""Measures the evaluations that were asked for over HTTP, one at a time, the oldest first, in a thread of its own."""

import logging
import threading
from datetime import UTC, datetime

from fabula_proto import EvaluationJob, JobProgress, SuiteResult
from services.evaluator.adapters.job_store import JobStore, finished
from services.evaluator.device import Device
from services.evaluator.errors import AbandonedError, EvaluatorError
from services.evaluator.orders import order_settings, request_for
from services.evaluator.progress import Progress
from services.evaluator.settings import EvaluatorSettings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0  # for jobs of another process that died
DRAIN_S = 20.0  # one batch or one round of writing ends well within
MOST_STARTS = 4


class JobWorker:
    """A thread that measures what waits in the store until it is told to stop."""

    def __init__(self, store: JobStore, settings: EvaluatorSettings, device: Device) -> None:
        self._store = store
        self._settings = settings
        self._device = device
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._running: str | None = None
        self._progress: JobProgress | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def wake(self) -> None:
        """Something new is in the store."""
        self._wake.set()

    def finish(self) -> None:
        """Leave what is in hand for the next start and take nothing more; returns at once."""
        self._stop.set()
        self._wake.set()

    def stop(self) -> None:
        """Finish and wait for the thread, `DRAIN_S` seconds at most."""
        self.finish()
        if self._thread.ident is not None:
            self._thread.join(DRAIN_S)

    def progress(self, job_id: str) -> JobProgress | None:
        """How far a job is, where it is ours and runs."""
        return self._progress if self._running == job_id else None

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                if not self._one():
                    self._wake.wait(LOOK_EVERY_S)
            except (EvaluatorError, OSError) as error:  # the store cannot be written: it may be possible later
                log.warning("the evaluations that wait cannot be worked on (%s); trying again", error)
                self._stop.wait(LOOK_EVERY_S)

    def _one(self) -> bool:
        """Measure the oldest job that nobody works on; whether there was one."""
        for job in self._store.all():
            if job.state not in ("waiting", "running") or self._stop.is_set():
                continue
            with self._store.claimed(job.id) as ours:
                if ours is not None and ours.state in ("waiting", "running"):
                    self._work(ours)
                    return True
        return False

    def _work(self, job: EvaluationJob) -> None:
        if self._store.is_cancelled(job.id):
            self._store.save(finished(job, "cancelled"))
            return
        if job.starts >= MOST_STARTS:
            reason = f"the evaluator died {job.starts} times over it; see its log, and try fewer suites or more memory"
            self._store.save(finished(job, "failed", reason=reason))
            return
        try:
            with self._device.held(self._stop):
                self._measure(job)
        except AbandonedError:
            if self._store.is_cancelled(job.id):
                self._store.save(finished(self._store.get(job.id), "cancelled"))
            else:
                self._store.save(self._store.get(job.id).model_copy(update={"state": "waiting", "starts": job.starts}))

    def _measure(self, job: EvaluationJob) -> None:
        kept = job.results if job.order.again else ()
        started = {"state": "running", "started_at": datetime.now(UTC), "starts": job.starts + 1, "results": kept}
        job = job.model_copy(update=started)
        self._store.save(job)
        self._running, self._progress = job.id, JobProgress(suite="loading", done=0, total=1)
        # Here, not above: torch takes seconds and hundreds of megabytes, which pages and OpenAPI do not need.
        from services.evaluator.evaluation import evaluate_checkpoint

        log.info("measuring %s for evaluation %s", job.order.checkpoint, job.id)
        results: list[SuiteResult] = []

        def keep(result: SuiteResult) -> None:
            results.append(result)
            self._store.save(job.model_copy(update={"results": tuple(results)}))

        def watch(progress: Progress) -> None:
            self._progress = JobProgress(suite=progress.suite, done=progress.done, total=progress.total)
            if self._stop.is_set() or self._store.is_cancelled(job.id):
                raise AbandonedError(f"evaluation {job.id} is stopping")

        try:
            settings = order_settings(job.order, self._settings)
            request = request_for(job, settings)
            evaluate_checkpoint(request, settings, watch, keep)
        except AbandonedError:
            raise
        except EvaluatorError as error:
            log.warning("evaluation %s failed: %s", job.id, error)
            self._store.save(finished(job, "failed", reason=str(error), results=tuple(results)))
            return
        except Exception as error:  # the thread's edge: one faulty suite must not end the service
            log.exception("evaluation %s failed by a fault of the evaluator", job.id)
            reason = f"a fault of the evaluator ({type(error).__name__}: {error}); see its log"
            self._store.save(finished(job, "failed", reason=reason, results=tuple(results)))
            return
        finally:
            self._running = self._progress = None
        report = str(request.output / "report.json")
        self._store.save(finished(job, "done", results=tuple(results), report=report))
        log.info("measured %s for evaluation %s", job.order.checkpoint, job.id)
