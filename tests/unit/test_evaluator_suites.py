"""What suites make of scores: the official pipeline's own predictions reproduce its own reports."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fabula_proto import CriterionScore, ScoreResponse, Story, TeacherIdentity, Verdict, VerdictStatus
from services.evaluator.adapters.eval_data import load_entity_tracking
from services.evaluator.engine import ItemsDone
from services.evaluator.errors import SuiteFailedError
from services.evaluator.generated.minimal_pairs import PARADIGMS, minimal_pairs
from services.evaluator.items import Item, ItemSet, minimal_pair
from services.evaluator.statistics import Tally, macro_accuracy, pooled
from services.evaluator.suites import blimp, entity_tracking, storytelling
from services.evaluator.suites.storytelling import Written
from services.evaluator.texts import distinct, own_bigrams
from services.evaluator.writing import WrittenStory
from tests.evaluator_helpers import SHARED, no_progress

REFERENCE = SHARED / "reference" / "mamba-1024" / "main" / "zero_shot" / "causal"
needs_reference = pytest.mark.skipif(
    not (REFERENCE.is_dir() and (SHARED / "eval").is_dir()),
    reason=f"the official pipeline's output for one model is not in {REFERENCE}",
)


class KnownAnswers:
    """A scorer that prefers the completion that somebody else's predictions name."""

    def __init__(self, predictions: dict[str, Any]) -> None:
        self._preds = {uid: [p["pred"] for p in rows["predictions"]] for uid, rows in predictions.items()}

    def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
        seen: dict[str, int] = {}
        scores = []
        for item in items:
            position = seen[item.uid] = seen.get(item.uid, -1) + 1
            wanted = self._preds[item.uid][position]
            scores.append(tuple(float(c.completion == wanted) for c in item.candidates))
        done(len(items), len(items))
        return scores


def printed(folder: Path) -> dict[str, float]:
    """`name: value` lines of a report by the pipeline."""
    text = (folder / "best_temperature_report.txt").read_text(encoding="utf-8")
    values = {name: float(value) for name, value in re.findall(r"^([\w/-]+): ([\d.]+)$", text, flags=re.MULTILINE)}
    average = re.search(r"### AVERAGE ACCURACY\n([\d.]+)", text)
    assert average is not None
    return values | {"AVERAGE": float(average[1])}


@needs_reference
def test_entity_tracking_reproduces_the_pipelines_report_from_its_predictions() -> None:
    folder = REFERENCE / "entity_tracking" / "entity_tracking"
    predictions = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    outcome = entity_tracking.evaluate(load_entity_tracking(SHARED / "eval"), KnownAnswers(predictions), 0, no_progress)
    report = printed(folder)
    for ops in range(6):
        assert round(100 * outcome.measures[f"regular/{ops}_ops"].value, 2) == report[f"regular_{ops}_ops"]
    assert round(100 * outcome.measures["regular"].value, 2) == report["regular"]
    written = json.loads(outcome.files["predictions.json"])
    assert written == {uid: rows for uid, rows in predictions.items() if uid.startswith("regular")}


@needs_reference
@pytest.mark.parametrize("suite", ["supplement_filtered", "blimp_filtered"])
def test_averages_over_paradigms_are_the_pipelines(suite: str) -> None:
    """The gold answers of the full sets are not at hand: its accuracies by paradigm stand in for them."""
    report = printed(REFERENCE / "blimp" / suite)
    fields = {"supplement", "syntax", "semantics", "morphology", "syntax/semantics"}
    text = (REFERENCE / "blimp" / suite / "best_temperature_report.txt").read_text(encoding="utf-8")
    uids = re.findall(r"^([\w-]+): ", text.split("### UID")[1].split("### LING")[0], flags=re.MULTILINE)
    tallies = {uid: Tally(round(report[uid] * 100), 10_000) for uid in uids}
    assert 100 * macro_accuracy(tallies, 0).value == pytest.approx(report["AVERAGE"], abs=0.006)
    if suite == "supplement_filtered":
        predictions = json.loads((REFERENCE / "blimp" / suite / "predictions.json").read_text(encoding="utf-8"))
        counts = {uid: len(rows["predictions"]) for uid, rows in predictions.items()}
        exact = [Tally(round(report[uid] / 100 * counts[uid]), counts[uid]) for uid in uids]
        assert round(100 * pooled(exact).accuracy, 2) == report["supplement"]
        assert fields & set(report) == {"supplement"}


def test_entity_tracking_averages_operations_then_splits() -> None:
    def boxes(split: str, ops: int, total: int) -> list[Item]:
        groups = (("split", split), ("ops", str(ops)))
        return [minimal_pair(f"{split}_{ops}_ops", "right.", "wrong.", groups)] * total

    items = boxes("regular", 0, 4) + boxes("regular", 1, 2) + boxes("ambiref", 0, 2)
    answers = ["right."] * 3 + ["wrong."], ["right.", "wrong."], ["wrong.", "wrong."]
    uids = ("regular_0_ops", "regular_1_ops", "ambiref_0_ops")
    predictions = {uid: {"predictions": [{"pred": p} for p in row]} for uid, row in zip(uids, answers, strict=True)}
    outcome = entity_tracking.evaluate(ItemSet(tuple(items), "here"), KnownAnswers(predictions), 0, no_progress)
    assert outcome.measures["regular"].value == pytest.approx((0.75 + 0.5) / 2)
    assert outcome.measures["accuracy"].value == pytest.approx(((0.75 + 0.5) / 2 + 0.0) / 2)
    assert outcome.measures["ambiref/0_ops"].value == 0.0


def test_blimp_reports_fields_and_paradigms_and_writes_predictions() -> None:
    class GoodAtAgreement:
        def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
            return [(0.0, -1.0) if dict(i.groups)["field"] == "agreement" else (-1.0, 0.0) for i in items]

    outcome = blimp.evaluate(minimal_pairs(0, 10), GoodAtAgreement(), 0, no_progress)
    share = sum(field == "agreement" for field, _ in PARADIGMS.values()) / len(PARADIGMS)
    assert outcome.measures["accuracy"].value == pytest.approx(share)
    assert (outcome.measures["field/agreement"].value, outcome.measures["field/syntax"].value) == (1.0, 0.0)
    assert outcome.measures["paradigm/article_a_an"].n == 10
    first = json.loads(outcome.files["predictions.json"])["article_a_an"]["predictions"][0]
    assert first["id"] == "article_a_an_0"
    choices = json.loads(outcome.files["choices.json"])
    assert {uid: choices[uid] for uid in PARADIGMS} == {
        uid: [0 if field == "agreement" else 1] * 10 for uid, (field, _) in PARADIGMS.items()
    }


TEACHER = TeacherIdentity(
    backend="test", model="m", revision="r", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="rules"
)


class LengthJudge:
    """Scores a story by its number of words, 0 to 3; fails on stories that say BROKEN."""

    def judge(self, stories: Sequence[Story]) -> ScoreResponse:
        return ScoreResponse(verdicts=tuple(self._one(story) for story in stories), teacher=TEACHER)

    def _one(self, story: Story) -> Verdict:
        if "BROKEN" in story.text:
            return Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason="it says BROKEN")
        level = min(3, len(story.text.split()))
        score = CriterionScore.from_probabilities([float(i == level) for i in range(4)])
        criteria = {"readability": score, "coherence": score}
        return Verdict(
            story_id=story.id,
            status=VerdictStatus.OK,
            criteria=criteria,
            total=2.0 * level,
            reward=level / 3,
            coverage=1.0,
        )


def written(*texts: str) -> Written:
    stories = tuple(WrittenStory(t, len(t.split()), len(t.split()) + 1, i % 2 == 0, 6.0) for i, t in enumerate(texts))
    return Written(stories, "Once", 7)


def test_storytelling_means_come_from_ok_verdicts_alone() -> None:
    outcome = storytelling.evaluate(written(*["a b"] * 18, "a b c", "BROKEN x"), LengthJudge(), 0)
    assert outcome.measures["total"].n == 19
    assert outcome.measures["total"].value == pytest.approx((18 * 4.0 + 6.0) / 19)
    assert outcome.measures["criterion/readability"].value == pytest.approx((18 * 2.0 + 3.0) / 19)
    assert outcome.measures["words"].n == 20
    assert outcome.measures["ended"].value == 0.5
    assert outcome.measures["unjudged"].value == pytest.approx(0.05)
    assert (outcome.headline, outcome.unit, outcome.teacher) == ("total", "points", TEACHER)
    rows = json.loads(outcome.files["stories.json"])["stories"]
    assert rows[-1]["verdict"]["status"] == "failed"
    assert outcome.stories[0].total == 4.0


def test_storytelling_fails_past_a_tenth_of_failed_verdicts() -> None:
    with pytest.raises(SuiteFailedError, match=r"no verdict on 3 of 20 stories .* it says BROKEN"):
        storytelling.evaluate(written(*["a b"] * 17, *["BROKEN"] * 3), LengthJudge(), 0)


def test_diversity_by_hand() -> None:
    assert distinct("a b a b", 2) == pytest.approx(2 / 3)
    assert distinct("A b a", 1) == pytest.approx(2 / 3)
    assert distinct("alone", 2) is None
    assert own_bigrams(["a b c", "a b d", "x"]) == [0.5, 0.5]
    assert own_bigrams(["same tale told", "same tale told"]) == [0.0, 0.0]
