"""The glue suite as a whole: which tasks are there, what is written, what a stop costs."""

import json
from pathlib import Path
from typing import Any

import pytest

from fabula_proto import SuiteResult
from services.evaluator.errors import AbandonedError
from services.evaluator.evaluation import evaluate_checkpoint
from services.evaluator.progress import Progress
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings
from tests.glue_helpers import save_glue_checkpoint, write_glue


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_glue_checkpoint(tmp_path_factory.mktemp("runner") / "chck_1M", "gpt2")


def settings(data: Path, **changed: object) -> EvaluatorSettings:
    given: dict[str, Any] = {"suites": ("glue",), "eval_data": data, "torch_threads": 1, "device": "cpu"}
    return EvaluatorSettings(**(given | {"glue_epochs": 2} | changed))


def measure(checkpoint: Path, data: Path, output: Path, *, again: bool = False, **changed: object) -> SuiteResult:
    request = EvaluationRequest.from_folder(checkpoint, output).model_copy(update={"again": again})
    return evaluate_checkpoint(request, settings(data, **changed)).suites[0]


def test_tasks_without_files_are_named_and_the_others_measured(checkpoint: Path, tmp_path: Path) -> None:
    data = write_glue(write_glue(tmp_path / "data", "rte"), "mrpc")
    result = measure(checkpoint, data, tmp_path / "out", glue_tasks=("mrpc", "rte", "qqp", "boolq"))
    assert result.status == "ok", result.reason
    assert result.reason == "qqp, boolq left out, for lack of files; the average is over mrpc, rte"
    assert result.results_path == "finetune"
    folder = tmp_path / "out" / "glue"
    written = json.loads((folder / "rte" / "predictions.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in written["rte"]["predictions"]] == [f"rte_{i}" for i in range(30)]
    printed = (folder / "mrpc" / "results.txt").read_text(encoding="utf-8").split("\n")
    assert [line.split(": ")[0] for line in printed] == ["accuracy", "f1", "mcc"]
    assert float(printed[1].split(": ")[1]) == result.measures["mrpc/f1"].value


def test_a_stop_loses_only_the_task_in_hand(checkpoint: Path, tmp_path: Path) -> None:
    data = write_glue(write_glue(tmp_path / "data", "rte"), "mrpc")
    steps = 2 * (70 // 32 + 1)  # of each task
    request = EvaluationRequest.from_folder(checkpoint, tmp_path / "out")
    seen: list[int] = []

    def stop_in_the_second(progress: Progress) -> None:
        if progress.total == 2 * steps:
            seen.append(progress.done)
            if progress.done == steps + 1:
                raise AbandonedError("stop")

    with pytest.raises(AbandonedError):
        evaluate_checkpoint(request, settings(data), stop_in_the_second)
    assert seen == list(range(1, steps + 2))
    seen.clear()
    report = evaluate_checkpoint(request, settings(data), lambda p: seen.append(p.done) if p.total > 1 else None)
    assert seen == list(range(steps + 1, 2 * steps + 1)), "mrpc was taken from the disk"
    assert report.suites[0].measures == measure(checkpoint, data, tmp_path / "other").measures


def test_another_seed_or_changed_rows_are_not_taken_from_the_disk(checkpoint: Path, tmp_path: Path) -> None:
    data, kept = write_glue(tmp_path / "data", "rte"), tmp_path / "out" / ".glue"
    measure(checkpoint, data, tmp_path / "out")
    assert len(list(kept.iterdir())) == 1
    measure(checkpoint, data, tmp_path / "out", seed=1)
    assert len(list(kept.iterdir())) == 2
    (data / "full_eval" / "glue_filtered" / "rte.train.jsonl").write_text(
        (write_glue(tmp_path / "more", "rte", train=80) / "full_eval" / "glue_filtered" / "rte.train.jsonl").read_text()
    )
    measure(checkpoint, data, tmp_path / "out")
    assert len(list(kept.iterdir())) == 3
    only = next(kept.iterdir())
    only.write_text("{", encoding="utf-8")
    assert measure(checkpoint, data, tmp_path / "out", again=True).status == "ok"


def test_bfloat16_is_another_measurement_near_the_first(checkpoint: Path, tmp_path: Path) -> None:
    data = write_glue(tmp_path / "data", "rte")
    whole = measure(checkpoint, data, tmp_path / "out")
    half = measure(checkpoint, data, tmp_path / "out", dtype="bfloat16")
    assert len(list((tmp_path / "out" / ".glue").iterdir())) == 2
    assert abs(half.measures["accuracy"].value - whole.measures["accuracy"].value) <= 0.2


def test_no_data_is_skipped_and_bad_rows_fail_before_anything_is_learned(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "full_eval" / "glue_filtered").mkdir(parents=True)
    result = measure(checkpoint, tmp_path / "data", tmp_path / "out")
    assert result.status == "skipped"
    assert "of boolq, mnli, mrpc, multirc, qqp, rte, wsc; the BabyLM 2025 evaluation_data is at" in str(result.reason)
    data = write_glue(write_glue(tmp_path / "data", "mrpc"), "rte")
    (data / "full_eval" / "glue_filtered" / "rte.valid.jsonl").write_text('{"label": 0}\n', encoding="utf-8")
    result = measure(checkpoint, data, tmp_path / "out")
    assert result.status == "failed"
    assert "rte.valid.jsonl, line 1: found sentence1 = None" in str(result.reason)
    assert not (tmp_path / "out" / ".glue").exists()


def test_unknown_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown GLUE tasks \['cola'\]"):
        settings(tmp_path, glue_tasks=("cola",))
