"""What Prometheus is told about the teacher.

Label values come from our code, the rubric and the teachers file, never from a request, so that their number is
bounded: whoever counts a request passes the route's template, not the path, and the name of a teacher that exists.

The share of the judged tokens that is padding:
`1 - rate(fabula_teacher_tokens_total[5m]) / rate(fabula_teacher_padded_tokens_total[5m])`.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from fabula_proto import Verdict, VerdictStatus

Source = Literal["http", "queue"]
Lookup = Literal[
    "hit", "miss", "unreadable", "skipped"
]  # what the cache says; it and this file do not import each other

OPENMETRICS = "application/openmetrics-text"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
STORIES = tuple(float(2**i) for i in range(11))
COVERAGE = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)  # a rubric has 10 levels at most


class _Families:
    """Every metric of ours, by name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, said: str, *labels: str) -> Counter:
            return Counter(f"fabula_teacher_{name}", said, labels, registry=registry)

        def gauge(name: str, said: str, *labels: str) -> Gauge:
            return Gauge(f"fabula_teacher_{name}", said, labels, registry=registry)

        def histogram(name: str, said: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"fabula_teacher_{name}", said, labels, buckets=buckets, registry=registry)

        self.build = Info("fabula_teacher_build", "What is running.", registry=registry)
        self.ready = gauge("ready", "1 while stories are judged, else 0.")
        self.requests = counter("http_requests_total", "HTTP requests answered.", "route", "status")
        self.request_seconds = histogram("http_request_seconds", "Time to answer an HTTP request.", SECONDS, "route")
        self.stories = counter("stories_total", "Stories answered, by how they came.", "source")
        self.lookups = counter("cache_lookups_total", "Stories looked up among remembered verdicts.", "result")
        self.cache_failures = counter("cache_failures_total", "Calls of the verdict cache that Redis did not serve.")

        one = "teacher"
        self.queued = gauge("queued_tokens", "Tokens that wait to be judged.", one)
        self.turned_away = counter("turned_away_total", "Requests that found no room: answered 429 over HTTP.", one)
        self.queue_seconds = histogram("queue_seconds", "Wait of a request before its last batch.", SECONDS, one)
        self.inference_seconds = histogram("inference_seconds", "Judging time of a request's batches.", SECONDS, one)
        self.batch_stories = histogram("batch_stories", "Stories judged in one go.", STORIES, one)
        self.batch_seconds = histogram("batch_seconds", "Time to judge one batch.", SECONDS, one)
        self.tokens = counter("tokens_total", "Tokens judged, padding left out.", one)
        self.padded_tokens = counter("padded_tokens_total", "Tokens judged, padding included.", one)
        self.verdicts = counter("verdicts_total", "Verdicts given, remembered ones included.", one, "status")
        self.coverage = histogram("coverage_ratio", "Probability on valid answers, of ok verdicts.", COVERAGE, one)
        self.scores = histogram("criterion_score", "Mean level of ok verdicts.", LEVELS, one, "criterion")
        self.flags = counter("flags_total", "Flags raised on verdicts.", one, "flag")


class Metrics:
    """One process's metrics, in a registry of their own: two teachers in one process do not meet. Thread-safe."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._families = _Families(self._registry)
        self._families.build.info({"version": metadata.version("fabula")})
        # Known label values are there from the start: the first event is then an increase that a rate can see.
        for source in get_args(Source):
            self._families.stories.labels(source)
        for result in get_args(Lookup):
            self._families.lookups.labels(result)

    def for_teacher(self, name: str, criteria: Sequence[str] = ()) -> "TeacherMetrics":
        """The metrics of one teacher, who judges by `criteria`; asked for twice, they go on counting."""
        for criterion in criteria:
            self._families.scores.labels(name, criterion)
        return TeacherMetrics(self._families, name)

    def ready(self, ready: bool) -> None:
        """Whether stories are judged now."""
        self._families.ready.set(ready)

    def request(self, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered. `route` is the template of its path, such as /runs/{run}/teachers."""
        self._families.requests.labels(route, str(status)).inc()
        self._families.request_seconds.labels(route).observe(seconds)

    def stories_in(self, source: Source, stories: int) -> None:
        """So many stories came in and have their verdicts."""
        self._families.stories.labels(source).inc(stories)

    def cache_looked_up(self, result: Lookup, stories: int) -> None:
        """See `cache.CacheObserver`."""
        self._families.lookups.labels(result).inc(stories)

    def cache_failed(self) -> None:
        """See `cache.CacheObserver`."""
        self._families.cache_failures.inc()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body of GET /metrics and its content type: OpenMetrics where the header `accept` names it, else text."""
        # Not the header itself: prometheus_client breaks on a version in it that is no number.
        encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
        return encode(self._registry), content_type


class TeacherMetrics:
    """One teacher's metrics: a `batcher.BatchObserver`, and what its verdicts say. Thread-safe."""

    def __init__(self, families: _Families, name: str) -> None:
        self._name = name
        self._queued = families.queued.labels(name)
        self._turned_away = families.turned_away.labels(name)
        self._queue_seconds = families.queue_seconds.labels(name)
        self._inference_seconds = families.inference_seconds.labels(name)
        self._batch_stories = families.batch_stories.labels(name)
        self._batch_seconds = families.batch_seconds.labels(name)
        self._tokens = families.tokens.labels(name)
        self._padded_tokens = families.padded_tokens.labels(name)
        self._verdicts = {status: families.verdicts.labels(name, status.value) for status in VerdictStatus}
        self._coverage = families.coverage.labels(name)
        self._scores = families.scores
        self._flags = families.flags

    def queued(self, tokens: int) -> None:
        """So many tokens wait now."""
        self._queued.set(tokens)

    def batch_done(self, stories: int, tokens: int, padded_tokens: int, inference_s: float) -> None:
        """A batch has its verdicts."""
        self._batch_stories.observe(stories)
        self._tokens.inc(tokens)
        self._padded_tokens.inc(padded_tokens)
        self._batch_seconds.observe(inference_s)

    def ticket_done(self, queue_s: float, inference_s: float) -> None:
        """A request has its verdicts."""
        self._queue_seconds.observe(queue_s)
        self._inference_seconds.observe(inference_s)

    def turned_away(self) -> None:
        """A request found no room."""
        self._turned_away.inc()

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """What stories were told: statuses, coverage, the criteria's means and flags."""
        for verdict in verdicts:
            self._verdicts[verdict.status].inc()
            if verdict.coverage is not None:
                self._coverage.observe(verdict.coverage)
            for criterion, score in (verdict.criteria or {}).items():
                self._scores.labels(self._name, criterion).observe(score.mean)
            for flag in verdict.flags:
                self._flags.labels(self._name, flag).inc()
