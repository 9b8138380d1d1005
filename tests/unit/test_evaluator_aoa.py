"""Age of acquisition: the pipeline's own arithmetic, recorded; files of checkpoints; what cannot be used."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.evaluator.acquisition import acquired_at, agreement, said_at
from services.evaluator.adapters.aoa_data import load_children, load_contexts
from services.evaluator.engine import LogProbabilityEngine
from services.evaluator.errors import BadDataError, SuiteFailedError
from services.evaluator.runners.aoa import age_of_acquisition
from services.evaluator.suites import aoa
from tests.evaluator_helpers import SHARED, brute_force, no_progress, tiny_gpt2, tiny_tokenizer

CDI = SHARED / "eval" / "cdi_childes"
WORDS_READ = (1e6, 2e6, 3e6, 5e6, 8e6, 1e7, 2e7, 5e7, 1e8)
CURVES = {
    "ball": (3.0, 7.3),
    "dog": (2.5, 7.05),
    "tiger": (4.0, 7.6),
    "think": (2.0, 6.9),
    "scarf": (9.0, 7.0),
    "moon": (3.0, 7.2),
    "nowhere": (3.0, 7.0),
}
CHILDREN = {"ball": 18.0, "dog": 20.5, "tiger": 24.0, "think": 27.5, "nowhere": 60.0, "scarf": 22.0}
MONTHS = range(16, 31)
# What the pipeline's AoAEvaluator made of the same curves (evaluation_pipeline/utils.py, scipy 1.17).
THEIR_MODEL = {
    "ball": 6.981485725800566,
    "dog": 6.75926764692543,
    "tiger": 7.2270913622964,
    "think": 6.602321489270661,
    "scarf": 6.969215839855198,
}
THEIR_CHILDREN = {
    "ball": 18.023630784418938,
    "dog": 20.466489578208986,
    "tiger": 23.997559760841206,
    "think": 27.53189310689192,
    "scarf": 22.007226830893128,
}


def surprisal(word: str, words_read: float, context: int) -> float:
    (low, middle), at = CURVES[word], math.log10(words_read)
    falling = 18 / (1 + math.exp(3.0 * (at - middle)))
    return low - 9.0 + falling + 0.3 * math.sin(7 * at + list(CURVES).index(word) + 2 * context)


def checkpoints(words_read: Sequence[float] = WORDS_READ) -> list[aoa.Checkpoint]:
    return [aoa.Checkpoint(f"chck_{int(words / 1e6)}M", int(words), 16_000) for words in words_read]


def write_run(folder: Path, words_read: Sequence[float] = WORDS_READ) -> list[Path]:
    """What the evaluations of several checkpoints leave behind, last checkpoint first."""
    folders = []
    for checkpoint in reversed(checkpoints(words_read)):
        scores = {(word, c): surprisal(word, checkpoint.words_read, c) for word in CURVES for c in range(3)}

        class Known:
            def score(self, items: Sequence[Any], _done: Any, scores: dict[Any, float] = scores) -> list[Any]:
                return [(-scores[item.uid, int(item.candidates[0].context)],) for item in items]

        contexts = aoa.Contexts(dict.fromkeys(CURVES, ("0", "1", "2")), "here")
        outcome = aoa.evaluate(contexts, checkpoint, "model", Known(), set(), 0, no_progress)
        folders.append(folder / checkpoint.step / "aoa")
        folders[-1].mkdir(parents=True)
        for name, text in outcome.files.items():
            (folders[-1] / name).write_text(text, encoding="utf-8")
    return folders


def write_shares(file: Path) -> Path:
    def share(word: str, age: int) -> str:
        k = list(CHILDREN).index(word)
        value = 1 / (1 + math.exp(-0.35 * (age - CHILDREN[word]))) + 0.01 * math.sin(age + k)
        return "" if (word, age) == ("dog", 17) else f"{round(value, 4)}"

    rows = [["word", *map(str, MONTHS)], *([word, *(share(word, age) for age in MONTHS)] for word in CHILDREN)]
    file.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_ages_and_their_correlation_are_the_pipelines(tmp_path: Path) -> None:
    result = age_of_acquisition(write_run(tmp_path), write_shares(tmp_path / "cdi_human.csv"))
    assert [c.step for c in result.checkpoints][:3] == ["chck_1M", "chck_2M", "chck_3M"]
    assert {w.word: w.pipeline for w in result.words if w.word in THEIR_MODEL} == pytest.approx(THEIR_MODEL, abs=1e-3)
    found = {w.word: w.children for w in result.words if w.children is not None}
    assert found == pytest.approx(THEIR_CHILDREN, abs=1e-3)
    assert result.without_children() == ("moon", "nowhere")
    assert result.pipeline is not None
    assert result.pipeline.n == 5
    assert result.pipeline.r == pytest.approx(-0.3256649687967932, abs=1e-4)
    assert result.pipeline.p == pytest.approx(0.5928012047671761, abs=1e-4)
    assert result.pipeline.low <= result.pipeline.r <= result.pipeline.high


def test_the_papers_age_is_halfway_from_chance_to_the_lowest_surprisal() -> None:
    """A falling sigmoid without noise, from chance at the left: halfway down is its middle, but for what is cut off."""
    words_read = [10.0 ** (5 + k / 4) for k in range(17)]
    chance = math.log(16_000)
    for middle in (6.2, 7.0, 7.9):
        surprisals = [chance - 6 / (1 + math.exp(-6 * (math.log10(w + 1) - middle))) for w in words_read]
        low = min(surprisals)
        expected = middle - math.log(6 / ((chance - low) / 2) - 1) / 6
        assert acquired_at(words_read, surprisals, chance) == pytest.approx(expected, abs=1e-6)
    curve = aoa.Curve("dog", tuple((value, value + 0.5, math.nan) for value in surprisals))
    marks = [aoa.Checkpoint("c", int(w), 16_000) for w in words_read]
    (word,) = aoa.fit(marks, [curve], {"dog": 20.0}).words
    means = [value + 0.25 for value in surprisals]
    assert word.paper == pytest.approx(acquired_at([int(w) for w in words_read], means, chance))


def test_a_word_without_a_curve_has_no_age() -> None:
    words_read = list(WORDS_READ)
    rising = [5.0 + math.log10(w) for w in words_read]
    assert acquired_at(words_read, rising, 12.6) is None
    assert acquired_at(words_read, [3.0] * 9, 12.6) is None
    assert acquired_at(words_read[:3], [9.0, 6.0, 3.0], 12.6) is None
    assert acquired_at(words_read, [math.nan] * 9, 12.6) is None
    already = [3.0 + 0.2 / (1 + math.exp(3 * (math.log10(w) - 7))) for w in words_read]
    assert acquired_at(words_read, already, 12.6) is None  # it had crossed the threshold before it was measured
    assert said_at([16, 17], [0.1, 0.9]) is None
    assert said_at(list(MONTHS), [0.1] * 15) is None


def test_a_correlation_needs_three_words_that_differ() -> None:
    assert agreement([1.0, 2.0], [1.0, 2.0], 0) is None
    assert agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], 0) is None
    found = agreement([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0], 0)
    assert found is not None
    assert found.n == 5
    assert found.r == pytest.approx(0.8)
    assert -1 <= found.low < found.r < found.high <= 1 + 1e-12


def test_too_few_checkpoints_fail(tmp_path: Path) -> None:
    folders = write_run(tmp_path, WORDS_READ[:4])
    with pytest.raises(SuiteFailedError, match=r"4 checkpoints differ .* needs at least 5"):
        age_of_acquisition(folders, write_shares(tmp_path / "cdi_human.csv"))


def test_surprisals_equal_one_text_at_a_time_and_files_are_the_pipelines() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_gpt2(len(tokenizer), context=64)
    texts = {"fox": (" The old ", "There is a"), "unfortunately": ("In the garden,",), "alligator": ()}
    contexts = aoa.Contexts(texts, "here")
    assert [item.candidates[0].text for item in contexts.items()] == [
        "The old fox",
        "There is a fox",
        "In the garden, unfortunately",
    ]
    engine = LogProbabilityEngine(model, tokenizer)
    mark = aoa.Checkpoint("chck_1M", 1_000_000, len(tokenizer))
    outcome = aoa.evaluate(contexts, mark, "model", engine, {1}, 0, no_progress)
    document = json.loads(outcome.files["surprisal.json"])
    assert document["metadata"] == {
        "model_name": "model",
        "use_bos_only": False,
        "total_steps": 1,
        "completed_steps": 1,
    }
    expected = [-row[0] for row in brute_force(model, tokenizer, contexts.items())]
    surprisals = [row.pop("surprisal") for row in document["results"]]
    assert surprisals[0::2] == pytest.approx(expected[0::2], abs=1e-4)
    assert math.isnan(surprisals[1])
    assert document["results"][0] == {
        "step": "chck_1M",
        "word_count": 1_000_000,
        "target_word": "fox",
        "context_id": 0,
        "context": " The old ",
    }
    assert outcome.measures["surprisal"].value == pytest.approx((expected[0] + expected[2]) / 2, abs=1e-4)
    assert outcome.measures["surprisal"].n == 2
    both = json.loads(aoa.merged([document, {"results": [{**document["results"][0], "step": "chck_2M"}]}], "run"))
    assert both["metadata"]["total_steps"] == both["metadata"]["completed_steps"] == 2
    assert [row["step"] for row in both["results"]] == ["chck_1M"] * 3 + ["chck_2M"]
    with pytest.raises(SuiteFailedError, match="none of 3 contexts"):
        aoa.evaluate(contexts, mark, "model", engine, {0, 1, 2}, 0, no_progress)


@pytest.mark.skipif(not CDI.is_dir(), reason=f"needs the words and contexts in {CDI}")
def test_the_babylm_files_can_be_read() -> None:
    contexts = load_contexts(CDI / "cdi_childes.json")
    assert (len(contexts.words), len(contexts.items())) == (504, 8005)
    children = load_children(CDI / "human_aoa.csv")
    assert children["about"] == pytest.approx(33.56541793707104)
    assert len(set(contexts.words) & children.keys()) == 446


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a readable JSON file"),
        ("[]", "an object of words"),
        ("{}", "an object of words"),
        ('{"dog": 1}', "found dog: 1; expected a list of contexts"),
        ('{"dog": [{"text": "a"}]}', r"found dog\[0\] = .* a non-empty text"),
        ('{"dog": [{"context": " "}]}', r"found dog\[0\] = .* a non-empty text"),
        ('{"dog": []}', "1 words without a context"),
        ('{"a": [{"context": "It is"}]}', "1 words without a context"),
    ],
)
def test_what_is_wrong_with_contexts_is_said(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "cdi_childes.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadDataError, match=expected):
        load_contexts(file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found nothing; expected columns word_clean"),
        ("word,age\ndog,3\n", "found word, age; expected columns"),
        ("word_clean,aoa\ndog,young\n", "line 2: found aoa = 'young'"),
        ("word_clean,aoa\n,20\n", "line 2: found word_clean = ''"),
        ("word_clean,aoa\ndog,NA\n", "1 rows without an age"),
        ("word,16,17\ndog,0.1\n", "line 2: found 17 = None"),
    ],
)
def test_what_is_wrong_with_childrens_ages_is_said(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "human_aoa.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadDataError, match=expected):
        load_children(file)


def test_what_is_wrong_with_measured_checkpoints_is_said(tmp_path: Path) -> None:
    folders = write_run(tmp_path)
    children = write_shares(tmp_path / "cdi_human.csv")
    whole = (folders[2] / "surprisal.json").read_text(encoding="utf-8")
    rows = json.loads(whole)["results"]
    for text, expected in (
        (json.dumps({"results": rows[1:]}), "1 contexts that differ from .*chck_1M"),
        (json.dumps({"results": [{"target_word": "dog"}]}), "KeyError"),
        (whole[:-30], "a readable JSON file"),
    ):
        (folders[2] / "surprisal.json").write_text(text, encoding="utf-8")
        with pytest.raises(BadDataError, match=expected):
            age_of_acquisition(folders, children)
    with pytest.raises(BadDataError, match=r"checkpoint\.json"):
        age_of_acquisition([*folders[:2], tmp_path], children)
