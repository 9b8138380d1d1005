"""Metrics as Prometheus reads them, fed by hand and by a real batcher."""

import threading
from collections.abc import Callable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fabula_proto import Verdict, VerdictStatus
from services.teacher.batcher import Batcher, BatchLimits, BusyError
from services.teacher.cache import CacheObserver
from services.teacher.metrics import Metrics
from services.teacher.rubric import load_rubric
from tests.batcher_helpers import SteppedJudge, asked, verdicts_of

RUBRIC = load_rubric()
# What Prometheus 2.49 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample of ours, as `name{label=value,...}`, without buckets and creation times."""
    found = {}
    for family in parse_text(metrics.render()[0].decode()):
        for sample in family.samples:
            if sample.name.startswith("fabula_teacher_") and not sample.name.endswith(("_bucket", "_created")):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[sample.name.removeprefix("fabula_teacher_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def changed(metrics: Metrics, event: Callable[[], None]) -> dict[str, float]:
    """How much each sample grew by `event`; those that did not are left out."""
    before = samples(metrics)
    event()
    grown = {name: value - before.get(name, 0.0) for name, value in samples(metrics).items()}
    return {name: value for name, value in grown.items() if value}


def test_each_event_of_the_process_is_counted_where_it_belongs() -> None:
    metrics = Metrics()
    assert changed(metrics, lambda: metrics.ready(True)) == {"ready": 1}
    assert changed(metrics, lambda: metrics.ready(False)) == {"ready": -1}
    assert changed(metrics, lambda: metrics.stories_in("queue", 60)) == {"stories_total{source=queue}": 60}
    assert changed(metrics, lambda: metrics.request("/score", 429, 0.25)) == {
        "http_requests_total{route=/score,status=429}": 1,
        "http_request_seconds_count{route=/score}": 1,
        "http_request_seconds_sum{route=/score}": 0.25,
    }
    observer: CacheObserver = metrics
    assert changed(metrics, lambda: observer.cache_looked_up("hit", 3)) == {"cache_lookups_total{result=hit}": 3}
    assert changed(metrics, observer.cache_failed) == {"cache_failures_total": 1}


def test_what_may_happen_is_there_as_zero_before_it_happens() -> None:
    metrics = Metrics()
    metrics.for_teacher("llama", ["coherence"])
    there = samples(metrics)
    for name in (
        "stories_total{source=http}",
        "cache_lookups_total{result=skipped}",
        "turned_away_total{teacher=llama}",
        "verdicts_total{status=failed,teacher=llama}",
        "queued_tokens{teacher=llama}",
        "criterion_score_count{criterion=coherence,teacher=llama}",
    ):
        assert there[name] == 0.0


def test_verdicts_are_counted_by_status_coverage_criterion_and_flag() -> None:
    metrics = Metrics()
    teacher = metrics.for_teacher("llama")
    half = {c.name: [0, 0.5, 0.5, 0] for c in RUBRIC.criteria}
    verdicts = [
        RUBRIC.verdict("a", half, coverage=0.75, flags=("padding", "score_tail")),
        RUBRIC.zero_verdict("b", flags=("padding",)),
        Verdict(story_id="c", status=VerdictStatus.FAILED, reason="away"),
        Verdict(story_id="d", status=VerdictStatus.REFUSED, reason="too long", flags=("padding",)),
    ]
    grown = changed(metrics, lambda: teacher.verdicts(verdicts))
    scores = {
        f"criterion_score_{what}{{criterion={c.name},teacher=llama}}": value
        for c in RUBRIC.criteria
        for what, value in (("count", 2), ("sum", 1.5))
    }
    assert grown == {
        "verdicts_total{status=ok,teacher=llama}": 2,
        "verdicts_total{status=failed,teacher=llama}": 1,
        "verdicts_total{status=refused,teacher=llama}": 1,
        "coverage_ratio_count{teacher=llama}": 2,
        "coverage_ratio_sum{teacher=llama}": 1.75,
        "flags_total{flag=padding,teacher=llama}": 3,
        "flags_total{flag=score_tail,teacher=llama}": 1,
        **scores,
    }


def test_a_real_batcher_tells_what_waits_what_it_judged_and_whom_it_turned_away() -> None:
    metrics, judge = Metrics(), SteppedJudge()
    batcher = Batcher(judge, BatchLimits(batch_tokens=60, batch_stories=8, queued_tokens=60), metrics.for_teacher("w"))
    try:
        first = batcher.submit(asked("first", 10))
        judge.batch()
        second = batcher.submit(asked("second", 10, 10, 20))
        with pytest.raises(BusyError):
            batcher.submit(asked("third", 10, 20))
        assert samples(metrics)["queued_tokens{teacher=w}"] == 40
        judge.run_freely()
        assert len(verdicts_of(first)) + len(verdicts_of(second)) == 4
    finally:
        judge.run_freely()
        batcher.close()
    there = samples(metrics)
    counts = {name: value for name, value in there.items() if "seconds_sum" not in name and "{teacher=w}" in name}
    assert counts == {
        "queued_tokens{teacher=w}": 0,
        "turned_away_total{teacher=w}": 1,
        "queue_seconds_count{teacher=w}": 2,
        "inference_seconds_count{teacher=w}": 2,
        "batch_stories_count{teacher=w}": 2,
        "batch_stories_sum{teacher=w}": 4,
        "batch_seconds_count{teacher=w}": 2,
        "tokens_total{teacher=w}": 10 + 10 + 10 + 20,
        "padded_tokens_total{teacher=w}": 10 + 3 * 20,
        "coverage_ratio_count{teacher=w}": 0,
        "coverage_ratio_sum{teacher=w}": 0,
    }
    assert there["batch_seconds_sum{teacher=w}"] > 0


def test_teachers_are_apart_and_go_on_counting_under_their_name() -> None:
    metrics = Metrics()
    metrics.for_teacher("a").batch_done(1, 5, 5, 0.1)
    metrics.for_teacher("b").batch_done(1, 7, 7, 0.1)
    metrics.for_teacher("a").batch_done(1, 1, 1, 0.1)
    there = samples(metrics)
    assert (there["tokens_total{teacher=a}"], there["tokens_total{teacher=b}"]) == (6, 7)


def test_two_teacher_processes_in_one_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.stories_in("http", 3)
    assert samples(second)["stories_total{source=http}"] == 0


def test_no_event_is_lost_between_threads() -> None:
    metrics = Metrics()
    start = threading.Barrier(4, timeout=10)

    def work() -> None:
        teacher = metrics.for_teacher("a")
        start.wait()
        for _ in range(500):
            teacher.verdicts([RUBRIC.zero_verdict("a")])
            metrics.request("/score", 200, 0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = samples(metrics)
    assert there["verdicts_total{status=ok,teacher=a}"] == 2000
    assert there["http_request_seconds_sum{route=/score}"] == 1000


def filled() -> Metrics:
    """Every metric with a value."""
    metrics = Metrics()
    teacher = metrics.for_teacher('we"ird\\\n')
    teacher.verdicts([RUBRIC.zero_verdict("a", flags=("padding",))])
    teacher.batch_done(3, 40, 50, 0.2)
    teacher.ticket_done(0.1, 0.2)
    metrics.request("/runs/{run}/teachers", 200, 0.1)
    return metrics


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=zz", "text/html, text/plain;version=1.0.0"])
def test_text_is_what_anyone_gets(accept: str) -> None:
    body, content_type = filled().render(accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parse_text(body.decode())}
    assert all(family.documentation for family in families.values())
    assert {s.labels["teacher"] for s in families["fabula_teacher_batch_stories"].samples} == {'we"ird\\\n'}
    assert "version" in families["fabula_teacher_build_info"].samples[0].labels
    assert "process_cpu_seconds" in families


@pytest.mark.parametrize("accept", [PROMETHEUS, "application/openmetrics-text; version=zz"])
def test_prometheus_gets_openmetrics(accept: str) -> None:
    body, content_type = filled().render(accept)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    names = {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"fabula_teacher_verdicts", "fabula_teacher_coverage_ratio", "fabula_teacher_build"} <= names
