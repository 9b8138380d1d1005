"""Waiting for evaluations over a real Redis: queued, lost, given up."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fabula_proto import CHECKPOINTS_STREAM, EVALUATORS_GROUP, CheckpointReady, EvaluationReport
from fabula_proto.streams import Consumer, Streams
from services.local import evaluations
from services.local.errors import CommandError, Interrupted
from services.local.evaluations import ReportWait, announcement
from services.local.interrupts import Interrupts
from services.local.processes import Children
from services.local.summary import report_path
from services.student_trainer import config

NAMES = ("chck_60k", "chck_60k_rl_400")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two finished checkpoints and no report."""
    monkeypatch.setattr(evaluations, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(evaluations, "QUIET_S", 0.3)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text(config.dump(config.resolve("smoke"), "run"), encoding="utf-8")
    for name in NAMES:
        place = run / "checkpoints" / name
        place.mkdir(parents=True)
        interact = "_rl_" in name
        facts = {"stage": "interact" if interact else "pretrain", "pretraining_words": 60_000}
        facts |= {"interaction_words": 376 if interact else 0}
        (place / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    return run


@contextmanager
def evaluator(redis_url: str, handler: Callable[[CheckpointReady], EvaluationReport | None]) -> Iterator[None]:
    """A consumer of checkpoints in a thread, with one try a message."""
    stop = threading.Event()
    with Streams(redis_url) as streams:
        consumer = Consumer(
            streams, CHECKPOINTS_STREAM, EVALUATORS_GROUP, "e", CheckpointReady, max_deliveries=1, lease_s=5.0
        )
        thread = threading.Thread(target=lambda: consumer.run(handler, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def reporter(folder: Path, seen: list[str]) -> Callable[[CheckpointReady], None]:
    """Writes an (empty) report for whatever it is told of."""

    def handle(ready: CheckpointReady) -> None:
        seen.append(ready.key)
        path = report_path(folder, ready.checkpoint)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")

    return handle


def wait_for_reports(folder: Path, redis_url: str) -> None:
    with Children() as children, Interrupts() as interrupts:
        ReportWait(folder, NAMES, redis_url).wait(children, interrupts)


def test_what_is_queued_is_waited_for(folder: Path, redis_url: str) -> None:
    with Streams(redis_url) as streams:
        streams.publish_many(CHECKPOINTS_STREAM, [announcement(folder, name) for name in NAMES])
    seen: list[str] = []
    with evaluator(redis_url, reporter(folder, seen)):
        wait_for_reports(folder, redis_url)
    assert seen == ["run/chck_60k", "run/chck_60k_rl_400"]


def test_what_the_queue_lost_is_asked_for_again(folder: Path, redis_url: str) -> None:
    seen: list[str] = []
    report_path(folder, NAMES[0]).parent.mkdir(parents=True)
    report_path(folder, NAMES[0]).write_text("{}", encoding="utf-8")
    with evaluator(redis_url, reporter(folder, seen)):
        wait_for_reports(folder, redis_url)
    assert seen == ["run/chck_60k_rl_400"]


def test_what_the_evaluator_gives_up_is_said_with_its_reason(folder: Path, redis_url: str) -> None:
    def handle(ready: CheckpointReady) -> None:
        raise ValueError(f"{ready.checkpoint} has no weights")

    with evaluator(redis_url, handle), pytest.raises(CommandError, match="chck_60k has no weights") as caught:
        wait_for_reports(folder, redis_url)
    assert "evaluator.log" in str(caught.value)


def test_a_signal_ends_the_wait(folder: Path, redis_url: str) -> None:
    with Children() as children, Interrupts() as interrupts:
        interrupts.stopping = True
        with pytest.raises(Interrupted):
            ReportWait(folder, NAMES, redis_url).wait(children, interrupts)


def test_a_queue_that_is_away_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "PATIENCE_S", 0.1)
    with pytest.raises(CommandError, match="the evaluations cannot be followed"):
        wait_for_reports(folder, "redis://127.0.0.1:1/0")


def test_a_start_from_another_runs_checkpoint_is_announced_where_it_lies(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other" / "checkpoints" / "chck_1M"
    elsewhere.mkdir(parents=True)
    facts = {"stage": "pretrain", "pretraining_words": 1_000_000, "interaction_words": 0}
    (elsewhere / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    settings = config.resolve("smoke", [f"interact.start={elsewhere}"])
    (folder / "run.yaml").write_text(config.dump(settings, "run"), encoding="utf-8")
    ready = announcement(folder, "chck_1M")
    assert (ready.run, ready.path, ready.pretraining_words) == ("run", str(elsewhere), 1_000_000)
