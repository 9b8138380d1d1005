"""What Prometheus is told: the evaluator's own work, both queues, and the runs whose folders it reads.

The trainer serves nothing and needs no port; what it records shows here. The queues show here because the evaluator
is one and goes on when the last teacher is gone. All of it is looked up when Prometheus asks.
"""

import threading
from collections.abc import Iterator
from importlib import metadata
from typing import get_args

from prometheus_client import CollectorRegistry, GCCollector, Metric, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fabula_proto import CHECKPOINTS_STREAM, EVALUATORS_GROUP, STORIES_STREAM, TEACHERS_GROUP, JobState
from fabula_proto.streams import Streams, TransportError
from services.evaluator.adapters.job_store import JobStore
from services.evaluator.adapters.run_folder import RunFolders
from services.evaluator.device import Device
from services.evaluator.errors import EvaluatorError
from services.evaluator.run_metrics import run_families
from services.evaluator.views import RunDetail, RunMetrics
from services.evaluator.worker import QueueWorker

OPENMETRICS = "application/openmetrics-text"
QUEUES = ((STORIES_STREAM, TEACHERS_GROUP), (CHECKPOINTS_STREAM, EVALUATORS_GROUP))
RUNS = 10
"""The runs that changed last; a folder of hundreds would be hundreds of labels for ever."""


class Metrics:
    """One process's metrics, in a registry of their own.

    Raises:
        ValueError: `redis_url` is no address of a Redis server.
    """

    def __init__(
        self, runs: RunFolders, store: JobStore, device: Device, worker: QueueWorker | None, redis_url: str | None
    ) -> None:
        self._streams = Streams(redis_url, patience_s=0.0) if redis_url is not None else None
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._registry.register(_Work(store, device, worker))
        self._registry.register(_Runs(runs))
        if self._streams is not None:
            self._registry.register(_Queues(self._streams))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body of GET /metrics and its content type: OpenMetrics where the header `accept` names it, else text."""
        # Not the header itself: prometheus_client breaks on a version in it that is no number.
        encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
        return encode(self._registry), content_type

    def close(self) -> None:
        """Close the connection to the queue."""
        if self._streams is not None:
            self._streams.close()


class _Work(Collector):
    """What this process measures."""

    def __init__(self, store: JobStore, device: Device, worker: QueueWorker | None) -> None:
        self._store = store
        self._device = device
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("fabula_evaluator_build", "What is running.", {"version": metadata.version("fabula")})
        yield GaugeMetricFamily("fabula_evaluator_busy", "1 while a checkpoint is measured.", self._device.busy)
        if self._worker is not None:
            said = "Checkpoints of the queue with a report, since the start."
            yield CounterMetricFamily("fabula_evaluator_checkpoints", said, self._worker.info().finished)
        jobs = GaugeMetricFamily("fabula_evaluator_jobs", "Evaluations that were asked for.", labels=["state"])
        states = [job.state for job in self._store.all()]
        for state in get_args(JobState):
            jobs.add_metric([state], states.count(state))
        yield jobs


class _Queues(Collector):
    """How far the groups are behind. Without Redis only that it is away."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        labels = ["stream", "group"]
        said = "Entries that are not finished; pending: a consumer has them in hand."
        entries = GaugeMetricFamily("fabula_queue_entries", said, labels=[*labels, "state"])
        said = "When the oldest of them was sent, in Unix time."
        oldest = GaugeMetricFamily("fabula_queue_oldest_timestamp_seconds", said, labels=labels)
        dead = GaugeMetricFamily("fabula_queue_dead_letters", "Entries that were given up.", labels=labels)
        up = True
        try:
            for queue in QUEUES:
                lag = self._streams.depth(*queue)
                entries.add_metric([*queue, "waiting"], lag.waiting)
                entries.add_metric([*queue, "pending"], lag.pending)
                if (sent := self._streams.oldest(queue[0])) is not None:
                    oldest.add_metric(queue, sent)
                dead.add_metric(queue, self._streams.dead_count(queue[0]))
        except TransportError:
            up = False
        yield GaugeMetricFamily("fabula_queue_up", "1 when Redis answers.", up)
        if up:
            yield from (entries, oldest, dead)


class _Runs(Collector):
    """The runs that changed last. A folder is read again only when something in it has changed."""

    def __init__(self, runs: RunFolders) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, RunDetail, RunMetrics]] = {}

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            self._known = dict(self._look())
            known = {run: (detail, metrics) for run, (_, detail, metrics) in self._known.items()}
        yield from run_families(known)

    def _look(self) -> Iterator[tuple[str, tuple[float, RunDetail, RunMetrics]]]:
        for summary in self._runs.summaries()[:RUNS]:
            known = self._known.get(summary.run)
            if known is None or known[0] != summary.updated_at:
                try:
                    known = summary.updated_at, self._runs.detail(summary.run), self._runs.metrics(summary.run)
                except (EvaluatorError, OSError):
                    continue  # removed a moment ago
            yield summary.run, known
