"""The evaluator's /metrics over a real socket: runs from their folders, queues from a real Redis."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fabula_proto import CHECKPOINTS_STREAM, STORIES_STREAM, TEACHERS_GROUP, Alarm, Story, StoryBatch
from fabula_proto.streams import Consumer, Streams
from services.evaluator.app import create_app
from services.evaluator.metrics import RUNS
from services.evaluator.settings import EvaluatorSettings
from tests.evaluator_runs import step_metrics, write_run
from tests.teacher_helpers import serving

QUEUE = f"group={TEACHERS_GROUP},stream={STORIES_STREAM}"


@contextmanager
def evaluator(runs_dir: Path, **given: object) -> Iterator[httpx.Client]:
    with serving(create_app(EvaluatorSettings.model_validate({"runs_dir": runs_dir, **given}))) as client:
        yield client


def samples(client: httpx.Client) -> dict[str, float]:
    """Every sample of ours, as `name{label=value,...}` without the name's beginning."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found = {}
    for family in parse_text(answer.text):
        for sample in family.samples:
            if sample.name.startswith("fabula_"):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[sample.name.removeprefix("fabula_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def of_run(client: httpx.Client, run: str) -> dict[str, float]:
    """The samples of one run, its own label left out."""
    own = (f"run={run},", f",run={run}", f"{{run={run}}}")
    found = {}
    for name, value in samples(client).items():
        for label in own:
            if label in name:
                found[name.replace(label, "")] = value
    return found


def add_line(folder: Path, line: str) -> None:
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def batch(step: int) -> StoryBatch:
    return StoryBatch(
        run="r", step=step, chunk=0, chunks=1, policy_version=step, stories=(Story(id="0", text="A fox ran."),)
    )


def alarm(run: str) -> Alarm:
    return Alarm(run=run, step=2, guard="kl", value=30.0, threshold=25.0, action="note", message="It drifts.")


def test_a_run_shows_where_it_is_and_what_its_last_update_was_like(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "first", steps=3)
    (folder / "run.yaml").write_text("interact: {word_budget: 100_000}\npretrain: {word_budget: 1_000_000}\n")
    add_line(folder, alarm("first").to_json())
    with evaluator(tmp_path) as client:
        found = of_run(client, "first")
    changed = found.pop("run_changed_timestamp_seconds")
    assert changed == pytest.approx(folder.stat().st_mtime, abs=60)
    assert found == {
        "run_paused": 0,
        "run_finished": 0,  # chck_1M_rl_100k has no manifest yet
        "run_word_budget{phase=pretrain}": 1_000_000,
        "run_word_budget{phase=interact}": 100_000,
        "run_words{kind=pretraining}": 300,
        "run_words{kind=prompt}": 15,
        "run_words{kind=teacher}": 36,
        "run_words{kind=corpus}": 0,
        "run_words{kind=student}": 480,
        "run_alarms{action=note}": 1,
        "run_alarms{action=pause}": 0,
        "run_alarms{action=stop}": 0,
        "run_suites{status=ok}": 3,
        "run_suites{status=failed}": 1,
        "run_suites{status=skipped}": 1,
        "run_unreadable": 0,
        "run_pretraining_loss_nats": 2.0,
        "run_updates": 3,
        "run_score": 4.0,
        "run_criterion_score{criterion=readability}": pytest.approx(1.2),
        "run_criterion_score{criterion=coherence}": 2.0,
        "run_reward": pytest.approx(0.34),
        "run_kl_nats": pytest.approx(0.4),
        "run_kl_coefficient": 0.2,
        "run_entropy_nats": 3.0,
        "run_story_words": 40.0,
        "run_stories{status=ok}": 3,
        "run_stories{status=failed}": 1,
        "run_update_seconds{part=write}": 1.0,
        "run_update_seconds{part=wait_for_teacher}": 0.5,
        "run_update_seconds{part=learn}": 1.0,
        "run_teacher_idle_seconds": 0.0,
        "checkpoint_score{checkpoint=chck_1M,suite=blimp,unit=accuracy}": 0.6,
        "checkpoint_score{checkpoint=chck_1M,suite=storytelling,unit=points}": 6.0,
        "checkpoint_score{checkpoint=chck_1M,suite=reading,unit=percent}": 1.25,
    }


def test_what_changes_in_a_folder_shows_at_the_next_look(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "first", steps=1)
    (folder / "run.yaml").write_text("interact: {word_budget: 100_000}\n")
    with evaluator(tmp_path) as client:
        before = of_run(client, "first")
        add_line(folder, step_metrics("first", 1).to_json())
        add_line(folder, '{"torn')
        (folder / "PAUSED").touch()
        (folder / "checkpoints" / "chck_1M_rl_100k" / "manifest.json").write_text("{}")
        os.utime(folder / "checkpoints")
        after = of_run(client, "first")
        (folder / "run.yaml").write_text("[")
        broken = of_run(client, "first")
        shutil.rmtree(folder)
        assert of_run(client, "first") == {}
    changed = {name: value for name, value in after.items() if value != before[name]}
    del changed["run_changed_timestamp_seconds"]
    assert changed == {
        "run_updates": 2,
        "run_score": 3.5,
        "run_criterion_score{criterion=readability}": pytest.approx(1.1),
        "run_reward": pytest.approx(0.32),
        "run_kl_nats": pytest.approx(0.2),
        "run_words{kind=teacher}": 24,
        "run_words{kind=student}": 320,
        "run_paused": 1,
        "run_finished": 1,
        "run_unreadable": 1,
    }
    assert broken["run_unreadable"] == 2
    assert "run_word_budget{phase=interact}" not in broken


def test_only_the_runs_that_changed_last_are_told(tmp_path: Path) -> None:
    for number in range(RUNS + 2):
        folder = write_run(tmp_path / f"run-{number}", steps=0)
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (number, number))
    with evaluator(tmp_path) as client:
        told = {name.split("run=")[1].rstrip("}") for name in samples(client) if name.startswith("run_updates")}
    assert told == {f"run-{number}" for number in range(2, RUNS + 2)}


def test_both_queues_show_what_waits_what_is_in_hand_and_what_was_given_up(redis_url: str, tmp_path: Path) -> None:
    taken, done = threading.Event(), threading.Event()
    stop = threading.Event()

    def work(message: StoryBatch) -> None:
        if message.step == 0:
            raise ValueError("a batch that nobody can judge")
        taken.set()
        assert done.wait(30)

    with Streams(redis_url) as streams, evaluator(tmp_path, redis_url=redis_url, worker="e") as client:
        empty = samples(client)
        sent_ms = [int(streams.publish(STORIES_STREAM, batch(step)).partition("-")[0]) for step in range(4)]
        consumer = Consumer(streams, STORIES_STREAM, TEACHERS_GROUP, "w", StoryBatch, max_deliveries=1)
        worker = threading.Thread(target=consumer.run, args=(work, stop))
        worker.start()
        assert taken.wait(30)
        found = samples(client)
        stop.set()
        done.set()
        worker.join(30)
    assert empty["queue_up"] == 1
    assert empty[f"queue_entries{{{QUEUE.replace(',', ',state=waiting,')}}}"] == 0
    assert not any(name.startswith("queue_oldest") for name in empty)
    queues = {name: value for name, value in found.items() if name.startswith("queue_") and STORIES_STREAM in name}
    assert queues == {
        f"queue_entries{{group={TEACHERS_GROUP},state=waiting,stream={STORIES_STREAM}}}": 2,
        f"queue_entries{{group={TEACHERS_GROUP},state=pending,stream={STORIES_STREAM}}}": 1,
        f"queue_oldest_timestamp_seconds{{{QUEUE}}}": sent_ms[1] / 1000,
        f"queue_dead_letters{{{QUEUE}}}": 1,
    }
    assert any(CHECKPOINTS_STREAM in name for name in found)
    assert (found["evaluator_checkpoints_total"], found["evaluator_busy"]) == (0, 0)
    assert found["evaluator_jobs{state=waiting}"] == 0


def test_without_redis_the_rest_is_told_and_the_queue_is_down(tmp_path: Path) -> None:
    write_run(tmp_path / "first", steps=1)
    with evaluator(tmp_path, redis_url="redis://127.0.0.1:9/0") as client:
        found = samples(client)
    assert found["queue_up"] == 0
    assert not any(name.startswith(("queue_entries", "queue_oldest", "queue_dead")) for name in found)
    assert found["run_updates{run=first}"] == 1


def test_prometheus_can_read_it_and_its_linter_finds_no_fault(redis_url: str, tmp_path: Path) -> None:
    write_run(tmp_path / "first", steps=2)
    with evaluator(tmp_path, redis_url=redis_url) as client:
        text = client.get("/metrics").text
        openmetrics = client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(openmetrics.text)}  # type: ignore[no-untyped-call]
    assert {"fabula_evaluator_build", "fabula_run_score", "fabula_queue_entries"} <= set(families)
    assert all(family.documentation for family in families.values())
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool to lint the names: Debian's package `prometheus` has it")
    ours = "".join(line for line in text.splitlines(keepends=True) if "fabula_" in line)
    lint = subprocess.run([promtool, "check", "metrics"], input=ours, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
