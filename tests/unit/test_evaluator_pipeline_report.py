"""Reports as the official pipeline writes them: by hand, and from its own predictions for one model."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.evaluator.adapters.eval_data import load_wug_adj
from services.evaluator.engine import ItemsDone
from services.evaluator.errors import SuiteFailedError
from services.evaluator.items import Candidate, Item, ItemSet, choice
from services.evaluator.statistics import Tally
from services.evaluator.suites import comps, entity_tracking, ewok, wug_adj
from services.evaluator.suites.entity_tracking import SPLITS
from services.evaluator.suites.pipeline_report import accuracy_report, split_report
from tests.evaluator_helpers import SHARED, no_progress

REFERENCE = SHARED / "reference" / "mamba-1024" / "main" / "zero_shot" / "causal"
needs_reference = pytest.mark.skipif(
    not (REFERENCE.is_dir() and (SHARED / "eval").is_dir()),
    reason=f"the official pipeline's output for one model is not in {REFERENCE}",
)


class Given:
    """A scorer that was told the scores."""

    def __init__(self, *scores: Sequence[float]) -> None:
        self._scores = [tuple(row) for row in scores]

    def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
        done(len(items), len(items))
        return self._scores


RIGHT, WRONG = (-1.0, -2.0), (-2.0, -1.0)


def predictions_of(folder: Path) -> dict[str, list[str]]:
    """The pipeline's predictions, paradigm by paradigm."""
    document: dict[str, Any] = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    return {uid: [row["pred"] for row in rows["predictions"]] for uid, rows in document.items()}


def tallies_of(folder: Path) -> tuple[dict[str, Tally], str]:
    """Its report, and the right answers that two printed decimals of an accuracy over so few items leave possible."""
    text = (folder / "best_temperature_report.txt").read_text(encoding="utf-8")
    printed = dict(re.findall(r"^([\w-]+): ([\d.]+)$", text, flags=re.MULTILINE))
    tallies = {}
    for uid, rows in predictions_of(folder).items():
        fitting = [k for k in range(len(rows) + 1) if f"{100.0 * k / len(rows):.2f}" == printed[uid]]
        assert len(fitting) == 1
        tallies[uid] = Tally(fitting[0], len(rows))
    return tallies, text


@needs_reference
def test_entity_trackings_whole_report_follows_from_its_counts() -> None:
    tallies, text = tallies_of(REFERENCE / "entity_tracking" / "entity_tracking")
    assert len(tallies) == 18
    assert split_report(tallies, SPLITS) == text


@needs_reference
def test_the_supplements_whole_report_follows_from_its_counts() -> None:
    tallies, text = tallies_of(REFERENCE / "blimp" / "supplement_filtered")
    pooled = {"supplement": Tally(sum(t.right for t in tallies.values()), sum(t.total for t in tallies.values()))}
    assert accuracy_report({"FIELD": pooled, "UID": tallies, "LINGUISTICS_TERM": pooled}) == text


@needs_reference
def test_the_older_wug_report_follows_from_predictions_and_data() -> None:
    """The reference is older than the correlation: it says how often the first form won, by people's ratio."""
    folder = REFERENCE / "wug" / "wug_adj_nominalization"
    (chosen,) = predictions_of(folder).values()
    items = load_wug_adj(SHARED / "eval").items
    won = [pred == item.candidates[0].text for pred, item in zip(chosen, items, strict=True)]
    assert {p == i.candidates[1].text for p, i, w in zip(chosen, items, won, strict=True) if not w} == {True}
    by_ratio: dict[str, list[bool]] = {}
    for item, first in zip(items, won, strict=True):
        by_ratio.setdefault(str(item.rating), []).append(first)
    ratios = {ratio: Tally(sum(row), len(row)) for ratio, row in by_ratio.items()}
    sections = {"RATIO": ratios, "UID": {"wug_adj_nominalization": Tally(sum(won), len(won))}}
    assert accuracy_report(sections) == (folder / "best_temperature_report.txt").read_text(encoding="utf-8")


def test_ewok_averages_domains_and_pools_the_kinds() -> None:
    def item(domain: str, kind: str) -> Item:
        groups = (("context_type", kind), ("context_contrast", "negation"), ("target_contrast", "concept swap"))
        return Item(domain, (Candidate("It is in.", " It fits."), Candidate("It is in.", " It is out.")), groups)

    items = (item("space", "direct"), item("space", "indirect"), item("space", "direct"), item("force", "direct"))
    outcome = ewok.evaluate(ItemSet(items, "here"), Given(RIGHT, WRONG, RIGHT, WRONG), 0, no_progress)
    assert outcome.measures["accuracy"].value == pytest.approx((2 / 3 + 0) / 2)
    assert outcome.measures["context_type/direct"].value == pytest.approx(2 / 3)
    assert outcome.measures["target_contrast/concept swap"].n == 4
    assert outcome.files["best_temperature_report.txt"] == (
        "TEMPERATURE: 1.00\n\n"
        "### UID ACCURACY\nspace: 66.67\nforce: 0.00\n\n"
        "### CONTEXT_TYPE ACCURACY\ndirect: 66.67\nindirect: 0.00\n\n"
        "### CONTEXT_CONTRAST ACCURACY\nnegation: 50.00\n\n"
        "### TARGET_CONTRAST ACCURACY\nconcept swap: 50.00\n\n"
        "### AVERAGE ACCURACY\n33.33\n\n"
    )
    first = json.loads(outcome.files["predictions.json"])["space"]["predictions"][:2]
    assert first == [{"id": "space_0", "pred": " It fits."}, {"id": "space_1", "pred": " It is out."}]


def test_comps_predicts_whole_sentences() -> None:
    candidates = (Candidate("a robin ", "has wings."), Candidate("a trout ", "has wings."))
    items = tuple(Item(subset, candidates) for subset in comps.SUBSETS.values())
    outcome = comps.evaluate(ItemSet(items, "here"), Given(RIGHT, RIGHT, WRONG, RIGHT), 0, no_progress)
    assert outcome.measures["accuracy"].value == 0.75
    preds = {uid: rows["predictions"] for uid, rows in json.loads(outcome.files["predictions.json"]).items()}
    assert preds["base"] == [{"id": "base_0", "pred": "a robin has wings."}]
    assert preds["wugs_dist_before"] == [{"id": "wugs_dist_before_0", "pred": "a trout has wings."}]
    assert json.loads(outcome.files["choices.json"])["wugs_dist_before"] == [1]


def test_ties_are_listed_one_by_one_under_the_ids_of_the_predictions() -> None:
    def item(uid: str, options: int) -> Item:
        return choice(uid, "It is", [f" here {i}." for i in range(options)], (("split", "regular"), ("ops", uid[8])))

    items = tuple(item(uid, 3) for uid in ("regular_0_ops", "regular_1_ops", "regular_0_ops", "regular_1_ops"))
    scores = (-1.0, -2.0, -2.0), (-3.0, -1.0, -1.0), (-1.0, -1.0, -1.0), (-2.0, -1.0, -3.0)
    outcome = entity_tracking.evaluate(ItemSet(items, "here"), Given(*scores), 0, no_progress)
    ties = json.loads(outcome.files["ties.json"])
    assert ties == {
        "ties": 2,
        "items": [{"id": "regular_1_ops_0", "candidates": [1, 2]}, {"id": "regular_0_ops_1", "candidates": [0, 1, 2]}],
    }
    rows = [row for found in json.loads(outcome.files["predictions.json"]).values() for row in found["predictions"]]
    preds = {row["id"]: row["pred"] for row in rows}
    assert [preds[one["id"]] for one in ties["items"]] == [" here 1.", " here 0."]  # the first of equals is taken
    assert json.loads(outcome.files["choices.json"])["regular_1_ops"] == [1, 1]

    same = wug_adj.evaluate(wugs(0.5, 1.0, 0.0), Given((-1.0, -30.0), (-2.0, -2.0), (-3.0, -2.0)), 0, no_progress)
    listed = {"ties": 1, "items": [{"id": "wug_adj_1", "candidates": [0, 1]}]}
    assert json.loads(same.files["ties.json"]) == listed
    none = wug_adj.evaluate(wugs(0.5, 1.0, 0.0), Given((-1.0, -30.0), (-2.0, -3.0), (-3.0, -2.0)), 0, no_progress)
    assert json.loads(none.files["ties.json"]) == {"ties": 0, "items": []}


def wugs(*ratings: float) -> ItemSet:
    forms = (Candidate("", "a splung"), Candidate("", "a splinged"))
    return ItemSet(tuple(Item("wug_adj", forms, rating=rating) for rating in ratings), "here")


def test_wug_preferences_are_ranked_in_fp32_against_people() -> None:
    # In fp32 the first two preferences are both exactly 1, so they share a rank.
    scores = ((-1.0, -30.0), (-1.0, -60.0), (-3.0, -2.0), (-2.0, -3.0))
    outcome = wug_adj.evaluate(wugs(0.5, 1.0, 0.0, 0.75), Given(*scores), 0, no_progress)
    ranks, people = (3.5, 3.5, 1.0, 2.0), (2.0, 4.0, 1.0, 3.0)
    covariance = sum((a - 2.5) * (b - 2.5) for a, b in zip(ranks, people, strict=True))
    rho = covariance / (sum((a - 2.5) ** 2 for a in ranks) * 5.0) ** 0.5
    measure = outcome.measures["spearman"]
    assert measure.value == pytest.approx(rho)
    assert (measure.n, outcome.headline, outcome.unit) == (4, "spearman", "correlation")
    assert measure.low <= rho <= measure.high
    rows = json.loads(outcome.files["predictions.json"])["wug_adj"]["predictions"]
    assert [row["pred"] for row in rows] == ["a splung", "a splung", "a splinged", "a splung"]
    assert [row["prob"] for row in rows[:2]] == [1.0, 1.0]
    assert rows[2]["prob"] == pytest.approx(1 - 0.7310586)
    assert outcome.files["best_temperature_report.txt"] == (
        f"TEMPERATURE: 1.00\n\n### UID SPEARMAN'S RHO\navg: {rho:.2f}\n\n### AVERAGE SPEARMAN'S RHO\n{rho:.2f}\n\n"
    )


def test_a_model_that_prefers_one_form_always_has_no_correlation() -> None:
    with pytest.raises(SuiteFailedError, match="no correlation with people's preferences: one of the two samples of 3"):
        wug_adj.evaluate(wugs(0.0, 0.5, 1.0), Given(*[(-1.0, -90.0)] * 3), 0, no_progress)
