"""Fine-tuning goes step by step as the BabyLM 2025 pipeline's, whose losses and predictions are recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator import finetuning
from services.evaluator.adapters.encoder import load_encoder
from services.evaluator.adapters.eval_data.glue import load_glue
from services.evaluator.errors import AbandonedError, BadDataError, CheckpointError, SuiteFailedError
from services.evaluator.finetuning import Example, FineTuned, FineTuning, fine_tune
from services.evaluator.first_position import reads_only_itself
from services.evaluator.suites import glue
from services.evaluator.suites.glue import TASKS, Answers, accuracy
from tests.glue_helpers import RECORDED, save_glue_checkpoint, write_glue

CPU = torch.device("cpu")
CASES: list[dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))["cases"]
ROUNDING = 2e-6


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("glue")
    return {kind: save_glue_checkpoint(folder / kind, kind) for kind in ("gpt2", "llama", "bert")}


def examples(tmp_path: Path, task: str, split: str) -> tuple[Example, ...]:
    rows = load_glue(write_glue(tmp_path, task) / "full_eval" / "glue_filtered", task)
    assert rows is not None
    return rows.train if split == "train" else rows.valid


def tune(checkpoint: Path, tmp_path: Path, task: str = "rte", **changed: Any) -> FineTuned:
    defaults = TASKS[task]
    plan: dict[str, Any] = {
        "labels": defaults.labels,
        "batch_size": defaults.batch_size,
        "metric": defaults.metric,
        "epochs": 3,
        "seed": 42,
        "learning_rate": 3e-3,
    }
    return fine_tune(
        lambda: load_encoder(checkpoint, CPU),
        examples(tmp_path, task, "train"),
        examples(tmp_path, task, "valid"),
        FineTuning(**(plan | changed)),
        lambda: None,
    )


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}-{case['task']}" for case in CASES])
def test_losses_and_files_are_the_pipelines(case: dict[str, Any], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    task = case["task"]
    tuned = tune(checkpoints[case["kind"]], tmp_path, task, epochs=case["epochs"])
    assert tuned.losses == pytest.approx(case["losses"], abs=ROUNDING)
    labels = tuple(example.label for example in examples(tmp_path, task, "valid"))
    outcome = glue.evaluate({task: Answers(labels, tuned.predictions)}, "here", seed=0)
    assert outcome.files[f"{task}/predictions.json"] == case["predictions"]
    assert outcome.files[f"{task}/results.txt"] == case["results"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_reading_the_first_token_alone_gives_what_whole_texts_give(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tune(checkpoints[kind], tmp_path)
    monkeypatch.setattr(finetuning, "reads_only_itself", lambda model: False)
    whole = tune(checkpoints[kind], tmp_path)
    assert short.losses == pytest.approx(whole.losses, abs=ROUNDING)
    assert short.predictions == whole.predictions


@pytest.mark.parametrize(("kind", "alone"), [("gpt2", True), ("llama", True), ("bert", False)])
def test_causal_models_are_told_from_others_and_left_as_they_were(
    kind: str, alone: bool, checkpoints: dict[str, Path]
) -> None:
    model, _ = load_encoder(checkpoints[kind], CPU)
    model.train()
    before = torch.random.get_rng_state()
    assert reads_only_itself(model) is alone
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_last_token_has_read_what_the_first_has_not(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Every text of wsc begins with the same word, so the first position of a causal model cannot tell them apart."""
    assert len(set(tune(checkpoints["gpt2"], tmp_path, "wsc").predictions)) == 1
    last = tune(checkpoints["gpt2"], tmp_path, "wsc", position="last", epochs=6)
    assert len(set(last.predictions)) == 2


def test_the_last_position_is_the_last_token_of_each_text(checkpoints: dict[str, Path]) -> None:
    encoder, _ = load_encoder(checkpoints["gpt2"], CPU)
    model = finetuning.Classifier(encoder, 2, "last").eval()
    ids_BT = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    mask_BT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    alone = model(torch.tensor([[5, 6]]), torch.ones(1, 2, dtype=torch.long))
    torch.testing.assert_close(model(ids_BT, mask_BT)[1], alone[0])


def test_the_best_epoch_counts_and_the_earliest_of_equals(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    scores = iter([0.5, 0.7, 0.7, 0.1])
    seen: list[tuple[int, ...]] = []

    def metric(labels: Any, predictions: Any) -> float:
        seen.append(tuple(predictions))
        return next(scores)

    tuned = tune(checkpoints["gpt2"], tmp_path, epochs=4, metric=metric)
    assert tuned.epoch == 2
    assert tuned.predictions == seen[1]
    assert len(tuned.losses) == 4 * (70 // 32)


def test_the_same_seed_repeats_and_leaves_the_random_state(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    first = tune(checkpoints["gpt2"], tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert tune(checkpoints["gpt2"], tmp_path) == first
    assert tune(checkpoints["gpt2"], tmp_path, seed=1).losses != first.losses


def test_texts_are_cut_at_the_checkpoints_context(checkpoints: dict[str, Path]) -> None:
    long = [Example("fox " * 90, "owl", i % 2) for i in range(32)]
    plan = FineTuning(labels=2, batch_size=32, epochs=1, metric=accuracy, seed=0, position="last")
    tuned = fine_tune(lambda: load_encoder(checkpoints["gpt2"], CPU), long, long, plan, lambda: None)
    assert len(tuned.predictions) == 32


def test_stopping_in_the_middle(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise AbandonedError("stop")

    rows = examples(tmp_path, "rte", "train")
    plan = FineTuning(labels=2, batch_size=32, epochs=5, metric=accuracy, seed=0)
    with pytest.raises(AbandonedError):
        fine_tune(lambda: load_encoder(checkpoints["gpt2"], CPU), rows, rows, plan, stop)
    assert calls == 4
    assert plan.steps(len(rows), len(rows)) == 5 * (2 + 2)


def test_what_cannot_be_learned_from_is_said(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = examples(tmp_path, "rte", "train")[:31]
    plan = FineTuning(labels=2, batch_size=32, epochs=1, metric=accuracy, seed=0)
    with pytest.raises(SuiteFailedError, match="31 training rows do not fill one batch of 32"):
        fine_tune(lambda: load_encoder(checkpoints["gpt2"], CPU), rows, rows, plan, lambda: None)

    def broken() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = load_encoder(checkpoints["gpt2"], CPU)
        with torch.no_grad():
            next(model.parameters()).fill_(float("inf"))
        return model, tokenizer

    def too_large() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        raise torch.OutOfMemoryError("tried to allocate 1 GiB")

    with pytest.raises(SuiteFailedError, match="does not fit on cpu: tried to allocate 1 GiB"):
        fine_tune(too_large, rows * 2, rows, plan, lambda: None)
    with pytest.raises(SuiteFailedError, match="the loss became nan"):
        fine_tune(broken, rows * 2, rows, plan, lambda: None)
    empty = [Example("", "", 0)] * 32
    with pytest.raises(CheckpointError, match="makes no token of a text"):
        fine_tune(lambda: load_encoder(checkpoints["gpt2"], CPU), empty, empty, plan, lambda: None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sentence1": "a", "sentence2": "b", "label": 2}, r"label = 2; expected a whole number from 0 to 1"),
        ({"sentence1": "a", "sentence2": "b", "label": True}, r"label = True"),
        ({"sentence1": "a", "label": 0}, r"sentence2 = None; expected a string"),
        ({"sentence1": 3, "sentence2": "b", "label": 0}, r"sentence1 = 3"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    place = write_glue(tmp_path, "rte") / "full_eval" / "glue_filtered"
    with (place / "rte.train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(BadDataError, match=message) as caught:
        load_glue(place, "rte")
    assert "line 71" in str(caught.value)
