"""GLUE's measures, by hand and by their properties."""

import json
from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluator.suites import glue
from services.evaluator.suites.glue import Answers, accuracy, confusion, f1, mcc

BITS = st.integers(0, 1)
PAIRS = st.lists(st.tuples(BITS, BITS), min_size=1, max_size=40)

LABELS = (1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
PREDICTED = (1, 1, 1, 1, 0, 0, 1, 0, 0, 0)  # 4 true and 1 false positive, 2 false and 3 true negatives


def test_measures_by_hand() -> None:
    assert accuracy(LABELS, PREDICTED) == 0.7
    assert f1(LABELS, PREDICTED) == pytest.approx(2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6))
    assert mcc(LABELS, PREDICTED) == pytest.approx((4 * 3 - 1 * 2) / (5 * 6 * 4 * 5) ** 0.5)
    assert confusion(LABELS, PREDICTED).tolist() == [3, 1, 2, 4]


def test_measures_without_a_class_are_0_as_scikit_learns() -> None:
    assert f1((0, 0), (0, 0)) == 0.0
    assert mcc((1, 1, 0), (1, 1, 1)) == 0.0
    assert mcc((1, 1), (0, 1)) == 0.0


@given(PAIRS)
def test_f1_is_the_harmonic_mean_and_mcc_pearsons_correlation(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = zip(*pairs, strict=True)
    both = sum(a == b == 1 for a, b in pairs)
    precision, recall = both / max(1, sum(predicted)), both / max(1, sum(labels))
    expected = 2 * precision * recall / (precision + recall) if both else 0.0
    assert isclose(f1(labels, predicted), expected)
    if len(set(labels)) == len(set(predicted)) == 2:
        assert isclose(mcc(labels, predicted), np.corrcoef(labels, predicted)[0, 1], abs_tol=1e-12)


@given(PAIRS)
def test_right_answers_are_1_and_flipped_ones_turn_the_correlation(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = zip(*pairs, strict=True)
    assert accuracy(labels, labels) == 1.0
    assert mcc(labels, tuple(1 - p for p in predicted)) == pytest.approx(-mcc(labels, predicted))


def test_outcome_names_the_average_each_task_and_the_commonest_label() -> None:
    answers = {"rte": Answers(LABELS, PREDICTED), "mnli": Answers((0, 1, 2, 2), (0, 1, 2, 0))}
    outcome = glue.evaluate(answers, "here", seed=0)
    values = {name: measure.value for name, measure in outcome.measures.items()}
    assert values["accuracy"] == pytest.approx((0.7 + 0.75) / 2)
    assert values["rte/majority"] == 0.6
    assert values["mnli/majority"] == 0.5
    assert set(values) == {
        "accuracy",
        *(f"rte/{name}" for name in ("accuracy", "f1", "mcc", "majority")),
        *("mnli/accuracy", "mnli/majority"),
    }
    for measure in outcome.measures.values():
        assert measure.low <= measure.value <= measure.high
        assert measure.low < measure.high
    assert json.loads(outcome.files["choices.json"])["mnli"] == [0, 0, 0, 1]
    assert outcome.files["mnli/results.txt"] == "accuracy: 0.75"


def test_intervals_are_those_of_resampled_rows() -> None:
    """The multinomial draw of counts against plain resampling of rows."""
    labels, predicted = LABELS * 10, PREDICTED * 10
    measured = glue.task_measures("rte", Answers(labels, predicted), seed=0)
    rng = np.random.default_rng(1)
    picks = rng.integers(0, len(labels), size=(1000, len(labels)))
    for name, function in (("f1", f1), ("mcc", mcc)):
        values = [
            function(rows[:, 0].tolist(), rows[:, 1].tolist()) for rows in np.stack([labels, predicted], axis=1)[picks]
        ]
        assert measured[name].low == pytest.approx(np.quantile(values, 0.025), abs=0.03)
        assert measured[name].high == pytest.approx(np.quantile(values, 0.975), abs=0.03)
