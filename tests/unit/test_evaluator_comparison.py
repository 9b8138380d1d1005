"""Comparisons of two checkpoints, against scipy and against resampling item by item."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluator.comparison import Switches, holm, mcnemar, paired_change, unpaired_change

counts = st.integers(min_value=0, max_value=400)


@settings(max_examples=60, deadline=None)
@given(lost=counts, won=counts)
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int) -> None:
    p = mcnemar(lost, won)
    if lost + won:
        assert p == pytest.approx(scipy.stats.binomtest(lost, lost + won, 0.5).pvalue, rel=1e-9)
    assert p == mcnemar(won, lost)


def test_mcnemar_of_many_items_and_of_none() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(9_700, 10_300) == pytest.approx(scipy.stats.binomtest(9_700, 20_000, 0.5).pvalue, rel=1e-8)
    assert 0.0 < mcnemar(100, 900) < 1e-100


def test_switches_count_right_answers_not_equal_ones() -> None:
    assert Switches.between([0, 0, 1, 2, 1], [0, 3, 0, 1, 0]) == Switches(lost=1, won=2, total=5)
    with pytest.raises(ValueError, match="2 items before and 1 after"):
        Switches.between([0, 1], [0])
    with pytest.raises(ValueError, match="at least one"):
        Switches.between([], [])


def test_paired_change_is_the_bootstrap_over_the_same_items() -> None:
    rng = np.random.default_rng(7)
    weights = {"large": 0.25, "small": 0.75}
    switches, replicates, value = {}, np.zeros(20_000), 0.0
    for name, n in (("large", 300), ("small", 40)):
        before = (rng.random(n) < 0.4).astype(int)
        after = np.where(rng.random(n) < 0.2, 1 - before, before)
        switches[name] = Switches.between(before.tolist(), after.tolist())
        gain = (after == 0).astype(float) - (before == 0)
        indices = rng.integers(0, n, size=(20_000, n))  # an item's two answers stay together
        replicates += weights[name] * gain[indices].mean(axis=1)
        value += weights[name] * float(gain.mean())
    change = paired_change(switches, weights, seed=3)
    assert change.value == pytest.approx(value)
    low, high = np.quantile(replicates, [0.025, 0.975])
    assert [change.low, change.high] == pytest.approx([low, high], abs=0.04 * (high - low))
    lost, won = (sum(getattr(s, side) for s in switches.values()) for side in ("lost", "won"))
    assert change.p == mcnemar(lost, won)


def test_pairing_narrows_the_interval() -> None:
    """Two checkpoints that differ in 12 of 1,000 answers: independent samples would say nothing, pairs do."""
    pair = paired_change({"all": Switches(lost=1, won=11, total=1_000)}, {"all": 1.0}, seed=0)
    before, after = [1.0] * 600 + [0.0] * 400, [1.0] * 610 + [0.0] * 390
    alone = unpaired_change(before, after, seed=0)
    assert pair.value == pytest.approx(alone.value) == pytest.approx(0.01)
    assert pair.rose
    assert not alone.rose
    assert not alone.fell


def test_unpaired_change_agrees_with_scipy() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.gamma(2.0, 1.0, size=80), rng.gamma(3.0, 1.0, size=120)
    change = unpaired_change(before.tolist(), after.tolist(), seed=1)
    theirs = scipy.stats.bootstrap(
        (after, before),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert change.value == pytest.approx(after.mean() - before.mean())
    width = theirs.high - theirs.low
    assert [change.low, change.high] == pytest.approx([theirs.low, theirs.high], abs=0.05 * width)
    assert change.p is None
    with pytest.raises(ValueError, match="0 values"):
        unpaired_change([1.0], [], seed=0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(min_value=0.0, max_value=1.0), min_size=1, max_size=30))
def test_holm_lies_between_the_raw_p_and_bonferronis_and_keeps_the_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    for raw, p in zip(ps, adjusted, strict=True):
        assert raw <= p <= min(1.0, raw * len(ps))
    by_raw = [p for _, p in sorted(zip(ps, adjusted, strict=True))]
    assert all(first <= second for first, second in pairwise(by_raw))
    assert adjusted[ps.index(min(ps))] == min(1.0, min(ps) * len(ps))
