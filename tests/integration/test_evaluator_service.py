"""The evaluator as a service: HTTP over a real socket, checkpoints over a real Redis, signals to a real process."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fabula_proto import (
    CHECKPOINTS_STREAM,
    EVALUATORS_GROUP,
    PROBLEM_MEDIA_TYPE,
    REPORTS_STREAM,
    CheckpointReady,
    EvaluationReport,
    Problem,
)
from fabula_proto.streams import START, Streams
from services.evaluator.app import create_app
from services.evaluator.settings import EvaluatorSettings
from tests.evaluator_helpers import save_checkpoint
from tests.evaluator_runs import write_run
from tests.teacher_helpers import WordJudge, serving, teacher

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"torch_threads": 1, "max_new_tokens": 10, "stories": 6, "suites": ["blimp", "storytelling"]}


@contextmanager
def evaluator(runs_dir: Path, **given: object) -> Iterator[httpx.Client]:
    settings = EvaluatorSettings.model_validate({"runs_dir": runs_dir, "worker": "test", **QUICK, **given})
    with serving(create_app(settings)) as client:
        yield client


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[httpx.Client]:
    write_run(tmp_path / "first", steps=3)
    with evaluator(tmp_path) as client:
        yield client


def ready(runs_dir: Path, name: str = "chck_1M") -> CheckpointReady:
    return CheckpointReady(
        run="r",
        checkpoint=name,
        path=str(runs_dir / "r" / "checkpoints" / name),
        stage="pretrain",
        pretraining_words=1_000_000,
        interaction_words=0,
    )


def reports(streams: Streams, wait_s: float = 60.0) -> list[EvaluationReport]:
    return [report for _, report in streams.read(REPORTS_STREAM, START, EvaluationReport, block_s=wait_s)]


def test_probes_info_and_page(pages: httpx.Client) -> None:
    assert pages.get("/livez").json() == {"status": "alive"}
    assert pages.get("/readyz").status_code == 200
    info = pages.get("/info").json()
    assert (info["eval_data"], info["queue"]) == ("generated", None)
    page = pages.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page.text)


def test_runs_over_http(pages: httpx.Client) -> None:
    assert [r["run"] for r in pages.get("/api/runs").json()["runs"]] == ["first"]
    detail = pages.get("/api/runs/first").json()
    assert detail["reports"][0]["suites"][0]["measures"]["accuracy"]["value"] == 0.6
    metrics = pages.get("/api/runs/first/metrics", params={"points": 2}).json()
    assert [len(metrics["interact"]), metrics["interact_lines"]] == [2, 3]
    stories = pages.get("/api/runs/first/stories", params={"step": 1, "limit": 2, "offset": 1}).json()
    assert [s["index"] for s in stories["stories"]] == [1, 2]
    assert stories["stories"][0]["text"].startswith("Story 1 of step 1")


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/runs/absent", 404, "no run 'absent'"),
        ("/api/runs/..%2f..%2fetc", 404, "is not served here"),
        ("/api/runs/%2e%2e/metrics", 404, ""),
        ("/api/runs/first/stories?step=9", 404, "its steps: 0 to 2"),
        ("/api/runs/first/stories?step=one", 422, "query.step"),
        ("/api/runs/first/stories?limit=100000", 422, "query.limit"),
        ("/api/runs/first/metrics?points=1", 422, "query.points"),
        ("/nowhere", 404, "there are GET /"),
    ],
)
def test_errors_are_problem_documents(pages: httpx.Client, path: str, status: int, says: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM_MEDIA_TYPE
    problem = Problem.from_json(answer.content)
    assert says in problem.detail
    assert problem.status == status


def test_a_wrong_method_is_a_problem_too(pages: httpx.Client) -> None:
    answer = pages.post("/api/runs")
    assert (answer.status_code, answer.headers["content-type"]) == (405, PROBLEM_MEDIA_TYPE)


def test_a_checkpoint_from_the_queue_is_measured_and_reported(redis_url: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "r" / "checkpoints" / "chck_1M")
    (tmp_path / "r" / "run.yaml").write_text("preset: smoke\ninteract: {prompt: The fox}\n")
    with (
        Streams(redis_url) as streams,
        teacher(WordJudge()) as judge,
        evaluator(tmp_path, redis_url=redis_url, teacher_url=str(judge.base_url)) as client,
    ):
        streams.publish(CHECKPOINTS_STREAM, ready(tmp_path))
        (report,) = reports(streams)
        info = client.get("/info").json()["queue"]
        assert client.get("/readyz").status_code == 200
        assert streams.depth(CHECKPOINTS_STREAM, EVALUATORS_GROUP).total == 0
        shown = client.get("/api/runs/r").json()["reports"]
    assert [s.status for s in report.suites] == ["ok", "ok"]
    assert report.stories[0].prompt == "The fox"
    assert (info["finished"], info["last_error"], info["working_on"]) == (1, None, None)
    assert [EvaluationReport.model_validate(r) for r in shown] == [report]


def test_a_damaged_checkpoint_is_reported_as_failed_and_the_next_one_measured(redis_url: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "r" / "checkpoints" / "chck_1M")
    broken = save_checkpoint(tmp_path / "r" / "checkpoints" / "chck_2M")
    (broken / "config.json").write_text("{", encoding="utf-8")
    unfinished = save_checkpoint(tmp_path / "r" / "checkpoints" / "chck_3M")
    (unfinished / "manifest.json").unlink()
    names = ("chck_2M", "chck_3M", "chck_1M")
    with Streams(redis_url) as streams, evaluator(tmp_path, redis_url=redis_url, suites=["blimp"]):
        streams.publish_many(CHECKPOINTS_STREAM, [ready(tmp_path, name) for name in names])
        found: dict[str, EvaluationReport] = {}
        after = START
        while len(found) < len(names):
            entries = streams.read(REPORTS_STREAM, after, EvaluationReport, block_s=60.0)
            assert entries, f"no report came; there are {sorted(found)}"
            after = entries[-1][0]
            found |= {report.checkpoint: report for _, report in entries}
    status = {name: report.suites[0].status for name, report in found.items()}
    assert status == {"chck_1M": "ok", "chck_2M": "failed", "chck_3M": "failed"}
    assert "chck_2M cannot be loaded" in (found["chck_2M"].suites[0].reason or "")
    assert "has no manifest.json" in (found["chck_3M"].suites[0].reason or "")


def test_without_a_queue_server_the_pages_serve_and_readiness_says_why(tmp_path: Path) -> None:
    with evaluator(tmp_path, redis_url="redis://127.0.0.1:9/0") as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == PROBLEM_MEDIA_TYPE
        assert client.get("/api/runs").json() == {"runs": []}


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m services.evaluator` and the address it printed."""
    settings = {"FABULA_EVALUATOR_TORCH_THREADS": "1", "FABULA_EVALUATOR_NICENESS": "0"}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **settings}
    command = [sys.executable, "-m", "services.evaluator", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment, text=True) as started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            address = re.search(r"http://[\d.]+:\d+", line)
            assert address is not None, line
            yield started, address[0]
        finally:
            started.kill()


def test_sigterm_abandons_the_work_which_another_evaluator_finishes(redis_url: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "r" / "checkpoints" / "chck_1M")
    judge = WordJudge()
    judge.gate.clear()  # the first evaluator is caught while it waits for the teacher
    with Streams(redis_url) as streams, teacher(judge) as server:
        options = ["--redis-url", redis_url, "--runs-dir", str(tmp_path), "--stories", "4"]
        options += ["--teacher-url", str(server.base_url)]
        streams.publish(CHECKPOINTS_STREAM, ready(tmp_path))
        with process(*options) as (first, address):
            assert judge.entered.wait(120), "the stories never reached the teacher"
            busy = httpx.get(f"{address}/info").json()["queue"]
            assert (busy["working_on"], busy["suite"]) == ("r/chck_1M", "storytelling")
            first.send_signal(signal.SIGTERM)
            assert first.wait(30) == 0
        kept = [path.name for path in (tmp_path / "r" / "evaluations" / "chck_1M").iterdir()]
        assert sorted(kept) == ["blimp", "entity_tracking"]  # finished; the suite in hand left nothing
        assert streams.depth(CHECKPOINTS_STREAM, EVALUATORS_GROUP).total == 1
        judge.gate.set()
        with evaluator(tmp_path, redis_url=redis_url, teacher_url=str(server.base_url)):
            (report,) = reports(streams)
    assert report.checkpoint == "chck_1M"
    assert (tmp_path / "r" / "evaluations" / "chck_1M" / "report.json").is_file()


def test_a_mistake_on_the_command_line_is_explained() -> None:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.evaluator", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}, check=False
        )

    wrong = run("--stories", "0")
    assert wrong.returncode == 2
    assert "stories: Input should be greater than or equal to 1" in wrong.stderr
    suites = run(FABULA_EVALUATOR_SUITES='["blimps"]')
    assert suites.returncode == 2
    assert "unknown suites ['blimps']; known are blimp" in suites.stderr
    port = run("--port", "70000")
    assert port.returncode == 2
    assert "a port is a number from 0 to 65535" in port.stderr
