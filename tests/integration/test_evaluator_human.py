"""Reading times and age of acquisition from data files to the pipeline's, over checkpoints of one run."""

import json
from pathlib import Path

import pytest

from services.evaluator.errors import SuiteFailedError
from services.evaluator.evaluation import evaluate_checkpoint
from services.evaluator.request import EvaluationRequest
from services.evaluator.runners.aoa import age_of_acquisition
from services.evaluator.settings import EvaluatorSettings
from tests.evaluator_helpers import save_checkpoint, tiny_tokenizer
from tests.evaluator_models import tiny_bert
from tests.reading_tables import rows, write

CONTEXTS = {
    "fox": [{"context": "There is a"}, {"context": "The old"}],
    "garden": [{"context": "He is in the"}],
    "a": [{"context": "It is"}],
    "king": [{"context": "The old " * 40}, *({"context": f"{n} kings and a"} for n in range(12))],
}


def settings(data: Path) -> EvaluatorSettings:
    return EvaluatorSettings(eval_data=data, suites=("reading", "aoa"), torch_threads=1, worker="test", seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation_data")
    (folder / "full_eval" / "reading").mkdir(parents=True)
    write(folder / "full_eval" / "reading" / "reading_data.csv", rows(sentences=60))
    (folder / "full_eval" / "cdi_childes").mkdir()
    (folder / "full_eval" / "cdi_childes" / "cdi_childes.json").write_text(json.dumps(CONTEXTS), encoding="utf-8")
    return folder


def test_checkpoints_are_measured_and_compared_with_children(data: Path, tmp_path: Path) -> None:
    for n in (1, 2, 3, 5, 8):
        folder = save_checkpoint(tmp_path / f"chck_{n}M", context=64, seed=n)
        request = EvaluationRequest.from_folder(folder, tmp_path / "out" / folder.name)
        reading, aoa = evaluate_checkpoint(request, settings(data)).suites
        assert (reading.status, reading.results_path) == ("ok", "zero_shot/causal/reading"), reading.reason
        assert (aoa.status, aoa.results_path) == ("ok", "zero_shot/causal/AoA_word"), aoa.reason
        assert aoa.reason is not None
        assert aoa.reason.startswith("1 of 16 contexts are longer than the checkpoint's context of 64 tokens")
    written = tmp_path / "out" / "chck_2M"
    assert len((written / "reading" / "prediction.jsonl").read_text(encoding="utf-8").splitlines()) == len(rows(60))
    document = json.loads((written / "aoa" / "surprisal.json").read_text(encoding="utf-8"))
    assert {row["target_word"] for row in document["results"]} == {"fox", "garden", "king"}
    assert {row["word_count"] for row in document["results"]} == {2_000_000}
    children = tmp_path / "human_aoa.csv"
    children.write_text("word_clean,aoa\nfox,20.5\ngarden,24\nfox,30\n", encoding="utf-8")
    result = age_of_acquisition(list((tmp_path / "out").glob("*/aoa")), children)
    assert [checkpoint.words_read for checkpoint in result.checkpoints] == [n * 1_000_000 for n in (1, 2, 3, 5, 8)]
    assert {word.word: word.children for word in result.words} == {"fox": 20.5, "garden": 24.0, "king": None}
    with pytest.raises(SuiteFailedError, match="3 checkpoints differ"):
        age_of_acquisition(sorted((tmp_path / "out").glob("*/aoa"))[:3], children)


def test_a_masked_checkpoint_goes_into_its_backends_folder(data: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(add_bos=True)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.save_pretrained(tmp_path / "masked")
    tiny_bert(len(tokenizer)).save_pretrained(tmp_path / "masked")
    request = EvaluationRequest.from_folder(tmp_path / "masked", tmp_path / "out")
    reading, aoa = evaluate_checkpoint(request, settings(data)).suites
    assert (reading.status, reading.results_path) == ("ok", "zero_shot/mlm/reading"), reading.reason
    assert (aoa.status, aoa.results_path, aoa.reason) == ("ok", "zero_shot/mlm/AoA_word", None)


def test_a_student_that_is_too_small_fails_both(data: Path, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "small", context=4)
    report = evaluate_checkpoint(EvaluationRequest.from_folder(folder, tmp_path / "out"), settings(data))
    reading, aoa = report.suites
    assert (reading.status, aoa.status) == ("failed", "failed")
    assert reading.reason is not None
    assert "does not fit the checkpoint's context of 4" in reading.reason
    assert aoa.reason is not None
    assert "this suite needs a student with a context of" in aoa.reason
