"""Evaluations on demand: real sockets, a real process that is killed, a real Redis beside them."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fabula_proto import CHECKPOINTS_STREAM, REPORTS_STREAM, EvaluationJob, EvaluationOrder, EvaluationReport, Problem
from fabula_proto.streams import START, Streams
from services.evaluator.adapters.job_store import JobStore
from services.evaluator.job_worker import MOST_STARTS
from services.evaluator.orders import JOBS
from tests.evaluator_helpers import save_checkpoint
from tests.integration.test_evaluator_service import evaluator, process, ready
from tests.teacher_helpers import WordJudge, teacher

Jobs = Callable[[str, str], EvaluationJob]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "r" / "checkpoints" / "chck_1M")
    (tmp_path / "r" / "run.yaml").write_text("preset: smoke\ninteract: {prompt: The fox}\n")
    return tmp_path


@pytest.fixture
def busy() -> Iterator[tuple[WordJudge, str]]:
    """A teacher that lets an evaluation wait for its verdicts until its gate is opened."""
    judge = WordJudge()
    judge.gate.clear()
    with teacher(judge) as server:
        yield judge, str(server.base_url)
        judge.gate.set()


def ask(client: httpx.Client, **order: object) -> EvaluationJob:
    answer = client.post("/evaluations", json={"checkpoint": "r/chck_1M", **order})
    assert answer.status_code == 202, answer.text
    job = EvaluationJob.from_json(answer.content)
    assert answer.headers["Location"] == f"/evaluations/{job.id}"
    return job


def look(client: httpx.Client, job: EvaluationJob) -> EvaluationJob:
    return EvaluationJob.from_json(client.get(f"/evaluations/{job.id}").raise_for_status().content)


def until(client: httpx.Client, job: EvaluationJob, *states: str) -> EvaluationJob:
    deadline = time.monotonic() + 120
    while (seen := look(client, job)).state not in states:
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.05)
    return seen


def test_an_evaluation_is_noted_measured_and_told(runs: Path) -> None:
    with evaluator(runs) as client:
        job = ask(client, suites=["blimp", "supplement"], seed=3)
        assert (job.state, job.starts) == ("waiting", 0)
        done = until(client, job, "done", "failed")
        listed = client.get("/evaluations").json()["evaluations"]
        assert client.delete(f"/evaluations/{job.id}").status_code == 409
        twice = until(client, ask(client, suites=["blimp"], seed=3), "done")
        assert [j["id"] for j in client.get("/evaluations", params={"limit": 1}).json()["evaluations"]] == [twice.id]
        assert client.get("/evaluations", params={"state": "waiting"}).json() == {"evaluations": []}
    assert [(result.suite, result.status) for result in done.results] == [
        ("blimp", "ok"),
        ("blimp_supplement", "skipped"),
    ]
    assert [j["id"] for j in listed] == [job.id]
    assert twice.results == done.results[:1]  # finished before: taken from disk, seconds and all
    report = EvaluationReport.from_json(Path(done.report or "").read_bytes())
    assert Path(done.report or "") == runs / "r" / "evaluations" / "chck_1M" / "report.json"
    assert report.suites[0] == done.results[0]


def test_a_bare_curl_is_understood(runs: Path) -> None:
    with evaluator(runs) as client:
        body, form = '{"checkpoint": "r/chck_1M", "suites": ["blimp"]}', "application/x-www-form-urlencoded"
        answer = client.post("/evaluations", content=body, headers={"Content-Type": form})
        assert answer.status_code == 202
        assert until(client, EvaluationJob.from_json(answer.content), "done").report


def test_one_runs_the_others_wait_in_order_and_can_be_cancelled(runs: Path, busy: tuple[WordJudge, str]) -> None:
    judge, url = busy
    with evaluator(runs, teacher_url=url, max_new_tokens=60) as client:
        first = ask(client, suites=["blimp", "stories"], stories=4)
        second, third = ask(client, suites=["entity"]), ask(client, suites=["blimp"], seed=1)
        assert judge.entered.wait(60)
        running = look(client, first)
        assert (running.state, [r.suite for r in running.results]) == ("running", ["blimp"])  # partial scores
        assert running.progress is not None
        assert running.progress.suite == "storytelling"
        assert [(look(client, j).state, look(client, j).position) for j in (second, third)] == [
            ("waiting", 0),
            ("waiting", 1),
        ]
        cancelled = EvaluationJob.from_json(client.delete(f"/evaluations/{second.id}").content)
        assert (cancelled.state, cancelled.position) == ("cancelled", None)
        client.delete(f"/evaluations/{first.id}")
        assert until(client, first, "cancelled").report is None
        assert until(client, third, "done").results[0].status == "ok"
        assert look(client, second).state == "cancelled"
    kept = sorted(path.name for path in (runs / "r" / "evaluations" / "chck_1M").iterdir())
    assert kept == ["blimp", "report.json"]


def test_a_worker_that_dies_loses_no_job_and_repeats_no_finished_suite(runs: Path, busy: tuple[WordJudge, str]) -> None:
    judge, url = busy
    options = ["--runs-dir", str(runs), "--teacher-url", url]
    with process(*options) as (started, address), httpx.Client(base_url=address) as client:
        job = ask(client, suites=["blimp", "stories"], stories=4)
        waiting = ask(client, suites=["entity"])
        assert judge.entered.wait(120)
        started.kill()
        started.wait()
    blimp = runs / "r" / "evaluations" / "chck_1M" / "blimp" / "result.json"
    before = os.stat(blimp)
    judge.gate.set()
    with process(*options) as (_, address), httpx.Client(base_url=address) as client:
        done, other = until(client, job, "done"), until(client, waiting, "done")
    assert done.starts == 2
    assert [(r.suite, r.status) for r in (*done.results, *other.results)] == [
        ("blimp", "ok"),
        ("storytelling", "ok"),
        ("entity_tracking", "ok"),
    ]
    after = os.stat(blimp)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_measuring_anew_is_taken_up_where_it_was(runs: Path, busy: tuple[WordJudge, str]) -> None:
    judge, url = busy
    options = ["--runs-dir", str(runs), "--teacher-url", url]
    blimp = runs / "r" / "evaluations" / "chck_1M" / "blimp" / "result.json"
    with process(*options) as (started, address), httpx.Client(base_url=address) as client:
        until(client, ask(client, suites=["blimp"]), "done")
        first = blimp.stat().st_mtime_ns
        job = ask(client, suites=["blimp", "stories"], stories=4, again=True)
        assert judge.entered.wait(120)
        started.kill()
        started.wait()
    second = blimp.stat().st_mtime_ns
    assert second > first
    judge.gate.set()
    with process(*options) as (_, address), httpx.Client(base_url=address) as client:
        assert [r.status for r in until(client, job, "done").results] == ["ok", "ok"]
    assert blimp.stat().st_mtime_ns == second


def test_the_queue_and_the_jobs_share_one_device(runs: Path, busy: tuple[WordJudge, str], redis_url: str) -> None:
    judge, url = busy
    save_checkpoint(runs / "r" / "checkpoints" / "chck_2M", seed=1)
    with (
        Streams(redis_url) as streams,
        evaluator(runs, teacher_url=url, redis_url=redis_url, stories=4, max_new_tokens=60) as client,
    ):
        job = ask(client, suites=["stories"])
        assert judge.entered.wait(60)
        streams.publish(CHECKPOINTS_STREAM, ready(runs, "chck_2M"))
        while client.get("/info").json()["queue"]["working_on"] != "r/chck_2M":
            time.sleep(0.05)
        assert client.get("/info").json()["queue"]["total"] == 0  # taken, and waiting for its turn
        judge.gate.set()
        assert until(client, job, "done").results[0].status == "ok"
        ((_, report),) = streams.read(REPORTS_STREAM, START, EvaluationReport, block_s=60.0)
    assert [suite.status for suite in report.suites] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"checkpoint": "r/chck_9M"}, "the run r has no checkpoint 'chck_9M'; it has chck_1M"),
        ({"checkpoint": "/etc"}, "ALLOWED_DIRS"),
        ({"checkpoint": "RUNS/r"}, "no config.json"),
        ({"checkpoint": "a\x00b"}, "give a path"),
        ({"suites": ["blimps"]}, "unknown suites ['blimps']; known are blimp"),
        ({"data": "/nowhere"}, "is outside the folders"),
        ({"data": "RUNS/nowhere"}, "no folder"),
        ({"data": "hub:me/data"}, "start it with --eval-data hub:me/data"),
        ({"stories": 0}, "body.stories"),
        ({"storys": 3}, "body.storys"),
    ],
)
def test_an_order_that_cannot_be_made_is_refused(runs: Path, order: dict[str, object], says: str) -> None:
    given = {key: value.replace("RUNS", str(runs)) if isinstance(value, str) else value for key, value in order.items()}
    with evaluator(runs) as client:
        answer = client.post("/evaluations", json={"checkpoint": "r/chck_1M", **given})
        assert client.get("/evaluations").json() == {"evaluations": []}
    assert answer.status_code == 422
    assert says in Problem.from_json(answer.content).detail


def test_an_order_learns_nothing_of_what_lies_beside_the_runs(runs: Path) -> None:
    inner = runs / "r" / "inner"
    inner.mkdir()
    with evaluator(inner) as client:
        answer = client.post("/evaluations", json={"checkpoint": "../chck_9M"})
    assert answer.status_code == 422
    assert "is outside the folders" in answer.text
    assert "chck_1M" not in answer.text


def test_a_checkpoint_elsewhere_is_measured_where_its_folder_is_allowed(
    runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = save_checkpoint(tmp_path_factory.mktemp("models") / "mine")
    with evaluator(runs, allowed_dirs=[elsewhere.parent], suites=["blimp"]) as client:
        done = until(client, ask(client, checkpoint=str(elsewhere)), "done")
        assert Path(done.report or "") == runs / ".evaluations" / done.id / "report.json"
        assert [run["run"] for run in client.get("/api/runs").json()["runs"]] == ["r"]  # no run was made of it
        (elsewhere / "model.safetensors").write_bytes(b"cut")
        failed = until(client, ask(client, checkpoint=str(elsewhere)), "failed")
    assert "cannot be loaded" in (failed.reason or "")
    assert failed.report is None


@pytest.mark.parametrize("job_id", ["20261122T051500123456-0123abcd", "x", "x%2F..%2F..%2Fetc"])
def test_an_unknown_evaluation_is_a_problem(runs: Path, job_id: str) -> None:
    with evaluator(runs) as client:
        for answer in (client.get(f"/evaluations/{job_id}"), client.delete(f"/evaluations/{job_id}")):
            assert answer.status_code in (404, 405)
            assert Problem.from_json(answer.content).status == answer.status_code


def test_a_job_that_killed_its_process_again_and_again_is_given_up(runs: Path) -> None:
    store = JobStore(runs / JOBS)
    job = store.submit(EvaluationOrder(checkpoint="r/chck_1M", suites=("blimp",)))
    store.save(job.model_copy(update={"state": "running", "starts": MOST_STARTS}))
    with evaluator(runs) as client:
        failed = until(client, job, "failed")
    assert "died 4 times over it" in (failed.reason or "")
