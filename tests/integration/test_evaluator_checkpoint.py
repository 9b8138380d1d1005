"""One checkpoint measured from end to end: real model, real files, a real teacher behind a real socket."""

import json
import os
import resource
import shutil
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from fabula_proto import EvaluationReport, SuiteResult
from services.evaluator.adapters.checkpoint import load_checkpoint
from services.evaluator.errors import AbandonedError, CheckpointError
from services.evaluator.evaluation import evaluate_checkpoint
from services.evaluator.progress import Progress
from services.evaluator.request import EvaluationRequest
from services.evaluator.runners import RUNNERS
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.writing import write_stories
from tests.evaluator_helpers import no_progress, save_checkpoint
from tests.teacher_helpers import WordJudge, teacher


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("runs") / "r" / "checkpoints" / "chck_2M_rl_5k")


def settings(**given: object) -> EvaluatorSettings:
    return EvaluatorSettings.model_validate({"torch_threads": 1, "worker": "test", **given})


def suites(report: EvaluationReport) -> dict[str, SuiteResult]:
    return {suite.suite: suite for suite in report.suites}


def test_a_checkpoint_is_measured_on_generated_items_and_by_a_teacher(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with teacher(WordJudge()) as client:
        given = settings(
            teacher_url=str(client.base_url), stories=12, max_new_tokens=20, story_batch=5, teacher_chunk=5
        )
        report = evaluate_checkpoint(EvaluationRequest.from_folder(checkpoint, tmp_path / "out"), given, seen.append)
    by_name = suites(report)
    assert {name: s.status for name, s in by_name.items()} == {
        "blimp": "ok",
        "entity_tracking": "ok",
        "storytelling": "ok",
    }
    assert by_name["blimp"].source == by_name["entity_tracking"].source == "generated"
    assert by_name["blimp"].measures["accuracy"].n == 480
    assert by_name["storytelling"].measures["total"].n == 12
    assert by_name["storytelling"].teacher is not None
    assert (report.pretraining_words, report.interaction_words, report.stage) == (2_000_000, 5_000, "interact")
    assert EvaluationReport.from_json((tmp_path / "out" / "report.json").read_bytes()) == report
    stories = json.loads((tmp_path / "out" / "storytelling" / "stories.json").read_text(encoding="utf-8"))
    assert [s["text"] for s in stories["stories"]][:3] == [s.text for s in report.stories][:3]
    predictions = json.loads((tmp_path / "out" / "blimp" / "predictions.json").read_text(encoding="utf-8"))
    assert len(predictions["article_a_an"]["predictions"]) == 40
    assert [p.suite for p in seen if p.done == p.total and p.done > 1] == ["blimp", "entity_tracking", "storytelling"]
    assert sorted(p.name for p in (tmp_path / "out").rglob(".*")) == []


def test_measuring_twice_gives_the_same_numbers(checkpoint: Path, tmp_path: Path) -> None:
    request = EvaluationRequest.from_folder(checkpoint, tmp_path)
    first, second = (evaluate_checkpoint(request, settings(suites=["blimp", "entity_tracking"])) for _ in range(2))
    assert [s.measures for s in first.suites] == [s.measures for s in second.suites]


def test_a_suite_that_fails_leaves_the_others_alone(checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "fast_eval"
    (data / "supplement_fast").mkdir(parents=True)
    good = '{"sentence_good": "The fox was old.", "sentence_bad": "The fox were old."}\n'
    (data / "supplement_fast" / "hypernym.jsonl").write_text(good, encoding="utf-8")
    (data / "blimp_fast").mkdir()
    (data / "blimp_fast" / "causative.jsonl").write_text(good + "oops\n", encoding="utf-8")
    given = settings(eval_data=data, teacher_url="http://127.0.0.1:9", teacher_patience_s=0)
    by_name = suites(evaluate_checkpoint(EvaluationRequest.from_folder(checkpoint, tmp_path / "out"), given))
    assert by_name["blimp_supplement"].status == "ok"
    assert by_name["blimp"].status == "failed"
    assert "causative.jsonl, line 2: found oops" in (by_name["blimp"].reason or "")
    assert by_name["entity_tracking"].status == "skipped"
    assert by_name["storytelling"].status == "failed"
    assert "start the teacher" in (by_name["storytelling"].reason or "")


def test_a_suite_that_does_not_fit_the_memory_leaves_the_others_alone(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_bench: object) -> NoReturn:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setitem(RUNNERS, "entity_tracking", full)
    given = settings(suites=["entity_tracking", "blimp"])
    by_name = suites(evaluate_checkpoint(EvaluationRequest.from_folder(checkpoint, tmp_path), given))
    assert by_name["blimp"].status == "ok"
    assert by_name["entity_tracking"].status == "failed"
    assert "lower token_budget or story_batch" in (by_name["entity_tracking"].reason or "")
    assert "20 GiB" in (by_name["entity_tracking"].reason or "")


def test_a_wrong_folder_fails_what_needed_it(checkpoint: Path, tmp_path: Path) -> None:
    given = settings(eval_data=tmp_path / "absent", suites=["blimp", "storytelling"])
    blimp, stories = evaluate_checkpoint(EvaluationRequest.from_folder(checkpoint, tmp_path / "out"), given).suites
    assert (blimp.status, stories.status) == ("failed", "skipped")
    assert "no folder" in (blimp.reason or "")
    assert "--teacher-url" in (stories.reason or "")


def test_stopping_keeps_the_finished_suites_and_nothing_half_done(checkpoint: Path, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.suite == "entity_tracking" and progress.done:
            raise AbandonedError("stopping")

    request, given = EvaluationRequest.from_folder(checkpoint, tmp_path / "out"), settings(suites=["blimp", "entity"])
    with pytest.raises(AbandonedError):
        evaluate_checkpoint(request, given, stop)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["blimp"]
    seen: list[str] = []
    report = evaluate_checkpoint(request, given, lambda progress: seen.append(progress.suite))
    assert "blimp" not in seen
    assert [(s.suite, s.status) for s in report.suites] == [("blimp", "ok"), ("entity_tracking", "ok")]
    seen.clear()
    assert suites(evaluate_checkpoint(request, given, lambda p: seen.append(p.suite))) == suites(report)
    assert seen == []
    again = request.model_copy(update={"again": True})
    evaluate_checkpoint(again, settings(suites=["blimp"]), lambda p: seen.append(p.suite))
    assert {"loading", "blimp"} == set(seen)


def test_a_suite_is_measured_again_where_something_it_depends_on_changed(checkpoint: Path, tmp_path: Path) -> None:
    request, seen = EvaluationRequest.from_folder(checkpoint, tmp_path / "out"), set[str]()

    def measured(**given: object) -> set[str]:
        seen.clear()
        evaluate_checkpoint(request, settings(**given), lambda progress: seen.add(progress.suite))
        return seen - {"loading"}

    assert measured(suites=["blimp"], seed=1) == {"blimp"}
    assert measured(suites=["blimp"], seed=1, stories=3, worker="another") == set()
    assert measured(suites=["blimp"], seed=2) == {"blimp"}
    with teacher(WordJudge()) as client:
        stories = {"teacher_url": str(client.base_url), "stories": 4, "max_new_tokens": 8, "seed": 2}
        assert measured(suites=["storytelling"], **stories) == {"storytelling"}
    with teacher(WordJudge()) as client:  # another address, the same teacher
        assert measured(suites=["storytelling"], **stories | {"teacher_url": str(client.base_url)}) == set()
    report = EvaluationReport.from_json((tmp_path / "out" / "report.json").read_bytes())
    assert [s.suite for s in report.suites] == ["blimp", "storytelling"]  # what is not asked for now stays
    assert len(report.stories) == 4
    failed = evaluate_checkpoint(request, settings(suites=["storytelling"], seed=3))  # no teacher this time
    assert [(s.suite, s.status) for s in failed.suites] == [("blimp", "ok"), ("storytelling", "skipped")]
    kept = EvaluationReport.from_json((tmp_path / "out" / "report.json").read_bytes())
    assert suites(kept) == suites(report)  # what was measured is not hidden
    config = checkpoint / "config.json"
    os.utime(config)
    assert measured(suites=["storytelling"]) == {"storytelling"}
    assert [s.suite for s in evaluate_checkpoint(request, settings(suites=["blimp"])).suites] == ["blimp"]


def test_results_that_cannot_be_written_fail_their_suite_and_leave_nothing_half_done(
    checkpoint: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a disk that is full."""
    given = settings(suites=["blimp", "entity"])
    evaluate_checkpoint(EvaluationRequest.from_folder(checkpoint, tmp_path / "whole"), given)
    sizes = {p.relative_to(tmp_path / "whole"): p.stat().st_size for p in (tmp_path / "whole").rglob("*.json")}
    largest = max(sizes, key=lambda path: sizes[path])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[largest] - 1, hard))
    try:
        report = evaluate_checkpoint(EvaluationRequest.from_folder(checkpoint, tmp_path / "out"), given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    failed = [suite for suite in report.suites if suite.status == "failed"]
    assert [suite.suite for suite in failed] == [largest.parts[0]]
    assert "cannot be written" in (failed[0].reason or "")
    left = {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").iterdir()}
    assert left == {"report.json", "blimp", "entity_tracking"} - {largest.parts[0]}


def test_items_longer_than_the_context_fail_their_suite_or_are_said_to_be_left_out(tmp_path: Path) -> None:
    short = save_checkpoint(tmp_path / "short", context=40)
    (tmp_path / "data" / "supplement_fast").mkdir(parents=True)
    row = '{"sentence_good": "The fox was old.", "sentence_bad": "The fox were old."}\n'
    far = '{"sentence_good": "GOOD", "sentence_bad": "The fox were old."}\n'.replace("GOOD", "The fox ran. " * 20)
    (tmp_path / "data" / "supplement_fast" / "hypernym.jsonl").write_text(20 * row + far, encoding="utf-8")
    (boxes,) = evaluate_checkpoint(
        EvaluationRequest.from_folder(short, tmp_path / "out"), settings(suites=["entity_tracking"])
    ).suites
    assert boxes.status == "failed"
    assert "are longer than the checkpoint's context of 40 tokens" in (boxes.reason or "")
    (partial,) = evaluate_checkpoint(
        EvaluationRequest.from_folder(short, tmp_path / "out"),
        settings(suites=["blimp_supplement"], eval_data=tmp_path / "data"),
    ).suites
    assert (partial.status, partial.measures["accuracy"].n) == ("ok", 20)
    assert "1 of 21 items are longer" in (partial.reason or "")


@pytest.mark.parametrize(
    "damage", ["no config", "cut config", "new kind", "cut weights", "nan", "lost tensor", "foreign tokenizer"]
)
def test_a_damaged_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "damaged"))
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "cut config":
        (folder / "config.json").write_text('{"model_type":', encoding="utf-8")
    elif damage == "new kind":
        (folder / "config.json").write_text('{"model_type": "zork"}', encoding="utf-8")
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "nan":
        tensors["transformer.h.0.mlp.c_fc.weight"][0, 0] = torch.nan
        save_file(tensors, weights, metadata={"format": "pt"})
    elif damage == "lost tensor":
        del tensors["transformer.h.1.mlp.c_fc.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    else:
        big = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        big["model"]["vocab"] |= {f"extra{i}": 600 + i for i in range(50)}
        (folder / "tokenizer.json").write_text(json.dumps(big), encoding="utf-8")
    with pytest.raises(CheckpointError, match=str(folder)):
        load_checkpoint(folder)


def test_the_same_seed_writes_the_same_stories_and_leaves_the_random_state_alone(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    before = torch.random.get_rng_state()

    def write(seed: int) -> list[str]:
        stories = write_stories(
            loaded.model,
            loaded.tokenizer,
            "Once",
            stories=7,
            seed=seed,
            max_new_tokens=12,
            batch_size=3,
            done=no_progress,
        )
        assert all(s.tokens <= 12 and s.words == len(s.text.split()) for s in stories)
        assert not any("</s>" in s.text or "<pad>" in s.text for s in stories)
        return [s.text for s in stories]

    assert write(1) == write(1)
    assert write(1) != write(2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_prompt_that_leaves_no_room_is_refused(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match="do not fit the checkpoint's context of 256"):
        write_stories(loaded.model, loaded.tokenizer, "Once", stories=1, seed=0, max_new_tokens=256, done=no_progress)


def test_the_stories_are_those_of_plain_generate(checkpoint: Path) -> None:
    """The first batch equals `generate` as anybody would call it, so a reader can repeat it."""
    loaded = load_checkpoint(checkpoint)
    ours = write_stories(
        loaded.model, loaded.tokenizer, "The fox", stories=4, seed=5, max_new_tokens=10, done=no_progress
    )
    torch.manual_seed(5)
    inputs = loaded.tokenizer(["The fox"] * 4, return_tensors="pt")
    theirs = loaded.model.generate(  # type: ignore[operator]
        inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=True, top_k=0, max_new_tokens=10
    )
    length = inputs["input_ids"].shape[1]
    texts = [str(loaded.tokenizer.decode(row[length:], skip_special_tokens=True)).strip() for row in theirs]
    assert [s.text for s in ours] == texts


def test_a_teacher_that_refuses_is_quoted(checkpoint: Path, tmp_path: Path) -> None:
    with teacher(WordJudge(), max_stories=2) as client:
        assert isinstance(client, httpx.Client)
        given = settings(suites=["storytelling"], teacher_url=str(client.base_url), stories=4, max_new_tokens=8)
        (result,) = evaluate_checkpoint(EvaluationRequest.from_folder(checkpoint, tmp_path), given).suites
    assert result.status == "failed"
    assert "answered 413: 4 stories in one request; at most 2" in (result.reason or "")
