"""Spearman's correlation and its bootstrap interval, against scipy item by item."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from services.evaluator.correlation import spearman_interval


def test_interval_is_that_of_resampling_items_one_by_one() -> None:
    rng = np.random.default_rng(5)
    people = rng.integers(0, 12, 60) / 11  # with ties, as shares of eleven people are
    model = people + rng.normal(0, 0.5, 60)
    estimate = spearman_interval(model.tolist(), people.tolist(), seed=3, resamples=400)
    assert estimate.value == pytest.approx(spearmanr(model, people).statistic, abs=1e-12)
    drawn = np.random.default_rng(3).integers(0, 60, (400, 60))
    replicates = [spearmanr(model[row], people[row]).statistic for row in drawn]
    low, high = np.quantile(replicates, [0.025, 0.975])
    assert (estimate.low, estimate.high, estimate.n) == pytest.approx((low, high, 60))


def test_resamples_that_are_constant_are_left_out() -> None:
    estimate = spearman_interval([0.1, 0.2], [0.3, 0.9], seed=0, resamples=50)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ([1.0, 1.0], [0.0, 1.0], "constant"),
        ([0.0, 1.0], [0.5, 0.5], "constant"),
        ([], [], "0 items"),
        ([1.0, 2.0], [1.0], "2 values against 1"),
    ],
)
def test_what_has_no_correlation_is_refused(first: list[float], second: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        spearman_interval(first, second, seed=0)
