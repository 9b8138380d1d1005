"""Bootstrap intervals against scipy and closed forms."""

import numpy as np
import pytest
import scipy.stats

from services.evaluator.statistics import Tally, macro_accuracy, mean_interval, pooled


def test_mean_interval_agrees_with_scipy_on_stories_scores() -> None:
    values = np.random.default_rng(3).gamma(2.0, 1.5, size=200)
    ours = mean_interval(values.tolist(), seed=1)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_accuracy_interval_is_the_binomial_quantiles() -> None:
    estimate = macro_accuracy({"only": Tally(140, 200)}, seed=5)
    low, high = (float(scipy.stats.binom.ppf(q, 200, 0.7)) / 200 for q in (0.025, 0.975))
    assert estimate.value == 0.7
    assert [estimate.low, estimate.high] == pytest.approx([low, high], abs=0.0051)


def test_macro_accuracy_resamples_within_strata() -> None:
    tallies = {"sure": Tally(50, 50), "coin": Tally(25, 50), "rare": Tally(2, 10)}
    estimate = macro_accuracy(tallies, seed=5)
    assert estimate.value == pytest.approx((1.0 + 0.5 + 0.2) / 3)
    assert estimate.n == 110
    rng = np.random.default_rng(0)  # by resampling indices, one stratum at a time
    replicates = np.zeros(20_000)
    for tally in tallies.values():
        answers = np.repeat([1.0, 0.0], [tally.right, tally.total - tally.right])
        replicates += answers[rng.integers(0, tally.total, size=(20_000, tally.total))].mean(axis=1) / 3
    assert [estimate.low, estimate.high] == pytest.approx(np.quantile(replicates, [0.025, 0.975]).tolist(), abs=0.01)


def test_weights_move_the_mean_and_must_sum_to_one() -> None:
    tallies = {"a": Tally(1, 2), "b": Tally(2, 2)}
    assert macro_accuracy(tallies, 0, {"a": 0.25, "b": 0.75}).value == pytest.approx(0.875)
    with pytest.raises(ValueError, match=r"sum to 1\.500000"):
        macro_accuracy(tallies, 0, {"a": 0.75, "b": 0.75})


def test_same_seed_same_interval() -> None:
    values = [(i % 7) ** 1.5 for i in range(50)]
    assert mean_interval(values, seed=9) == mean_interval(values, seed=9)
    assert mean_interval(values, seed=9) != mean_interval(values, seed=10)


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 values"):
        mean_interval([], seed=0)
    with pytest.raises(ValueError, match="0 strata"):
        macro_accuracy({}, seed=0)
    with pytest.raises(ValueError, match="3 right of 2"):
        Tally(3, 2)


def test_one_value_has_an_interval_of_no_width() -> None:
    estimate = mean_interval([2.5], seed=0)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (2.5, 2.5, 2.5, 1)


def test_pooled_adds_items() -> None:
    assert pooled([Tally(1, 4), Tally(3, 6)]).accuracy == pytest.approx(0.4)
