"""Agreement statistics against scipy and textbook formulas, and their laws."""

import math
import random
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.teacher.calibration import statistics
from services.teacher.calibration.statistics import (
    bootstrap,
    confusion,
    half_splits,
    interval,
    kappas,
    moments,
    once,
    partial_spearman,
    pearson,
    rank_correlations,
    ranks,
    spearman,
    split_halves,
    stepped_up,
    weighted_kappa,
)

LEVELS = 4
whole_pairs = st.lists(st.tuples(st.integers(0, LEVELS - 1), st.integers(0, LEVELS - 1)), min_size=2, max_size=40)
# Far enough apart that sums and exponentials of two different ones differ, too.
tenths = st.integers(-50, 50).map(lambda i: i / 10)
number_pairs = st.lists(st.tuples(tenths, tenths), min_size=2, max_size=40)


def draws(seed: int, n: int = 200) -> tuple[list[float], list[float], list[float]]:
    rng = random.Random(seed)
    z = [rng.gauss(0, 1) for _ in range(n)]
    x = [round(a + rng.gauss(0, 1), 1) for a in z]
    y = [round(a + rng.gauss(0, 1), 1) for a in z]
    return x, y, z


def columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


def textbook_kappa(a: Sequence[int], b: Sequence[int]) -> float:
    """Cohen 1968: one minus weighted observed over weighted expected counts."""
    observed = np.zeros((LEVELS, LEVELS))
    for i, j in zip(a, b, strict=True):
        observed[i, j] += 1
    expected = np.outer(observed.sum(1), observed.sum(0)) / len(a)
    weights = np.array([[(i - j) ** 2 for j in range(LEVELS)] for i in range(LEVELS)])
    chance = float((weights * expected).sum())
    return 1.0 - float((weights * observed).sum()) / chance if chance else math.nan


def test_correlations_equal_scipys_with_ties() -> None:
    x, y, _ = draws(1)
    assert ranks(x)[0] == pytest.approx(stats.rankdata(x))
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)


def test_a_constant_column_has_no_correlation() -> None:
    assert math.isnan(pearson([0.1] * 7, range(7)))
    assert math.isnan(spearman([3.0, 3.0], [1.0, 2.0]))
    assert math.isnan(weighted_kappa([2, 2], [2, 2]))
    assert weighted_kappa([2, 2], [1, 1]) == 0.0


@given(whole_pairs)
def test_kappa_is_the_textbooks(pairs: list[tuple[int, int]]) -> None:
    a, b = [i for i, _ in pairs], [j for _, j in pairs]
    assert weighted_kappa(a, b) == pytest.approx(textbook_kappa(a, b), nan_ok=True)
    assert weighted_kappa(a, b) == pytest.approx(weighted_kappa(b, a), nan_ok=True)
    assert not abs(weighted_kappa(a, b)) > 1 + 1e-12
    assert len(set(a)) == 1 or weighted_kappa(a, a) == pytest.approx(1.0)


@given(number_pairs)
def test_spearman_sees_the_order_alone(pairs: list[tuple[float, float]]) -> None:
    a, b = columns(pairs)
    rho = spearman(a, b)
    assert not abs(rho) > 1
    assert spearman(b, a) == pytest.approx(rho, nan_ok=True)
    assert spearman([math.exp(v) for v in a], [v**3 for v in b]) == pytest.approx(rho, nan_ok=True)
    assert spearman([-v for v in a], b) == pytest.approx(-rho, nan_ok=True)


@given(number_pairs, st.data())
def test_a_draw_is_the_same_stories_over_again(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    """Weights give what repeating the stories would, for every statistic."""
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)).filter(any))
    repeated = [pair for pair, count in zip(pairs, times, strict=True) for _ in range(count)]
    weights = np.array([times], dtype=float)
    (a, b), (x, y) = columns(pairs), columns(repeated)
    assert ranks(a, weights)[0][np.array(times) > 0] == pytest.approx(
        np.array([stats.rankdata(x)[x.index(v)] for v, count in zip(a, times, strict=True) if count])
    )
    assert rank_correlations([a, b], weights)[0, 0, 1] == pytest.approx(spearman(x, y), nan_ok=True)
    assert kappas(a, b, weights)[0] == pytest.approx(weighted_kappa(x, y), nan_ok=True)
    mean, covariance = moments([a, b], weights)
    assert mean[0] == pytest.approx([np.mean(x), np.mean(y)])
    assert covariance[0] == pytest.approx(np.cov(x, y, bias=True))


@given(whole_pairs)
def test_a_confusion_table_counts_every_pair_once(pairs: list[tuple[int, int]]) -> None:
    a, b = [i for i, _ in pairs], [j for _, j in pairs]
    table = confusion(a, b, LEVELS)
    assert all(table[i][j] == pairs.count((i, j)) for i, j in product(range(LEVELS), repeat=2))


def test_a_level_outside_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"levels 4 and 0; expected 0\.\.3"):
        confusion([4], [0], LEVELS)


def test_partial_correlation_takes_the_common_cause_out() -> None:
    x, y, z = draws(2, 3000)
    assert spearman(x, y) > 0.4
    assert abs(partial_spearman(x, y, z)) < 0.06
    assert partial_spearman(x, x, z) == pytest.approx(1.0)
    assert math.isnan(partial_spearman(x, y, x))


def test_partial_correlation_is_that_of_residuals() -> None:
    x, y, z = (ranks(column)[0] for column in draws(4))

    def residual(values: statistics.FloatArray) -> statistics.FloatArray:
        slope, intercept = np.polyfit(z, values, 1)
        return np.asarray(values - slope * z - intercept)

    assert partial_spearman(x, y, z) == pytest.approx(pearson(residual(x), residual(y)))


def test_bootstrap_is_deterministic_and_holds_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = draws(3)

    def once_more() -> statistics.FloatArray:
        return bootstrap(lambda weights: rank_correlations([x, y], weights)[:, 0, 1:], range(len(x)), rounds=200)

    first = once_more()
    low, high = interval(first[:, 0])
    assert first.shape == (200, 1)
    assert low < spearman(x, y) < high
    monkeypatch.setattr(statistics, "_NUMBERS_AT_ONCE", 3000)
    assert once_more() == pytest.approx(first)


def test_whole_groups_are_drawn() -> None:
    """Ten copies of each number say no more than one: the interval of the mean is as wide as without the copies."""
    values = np.repeat(np.arange(30.0), 10)

    def width(groups: Sequence[int]) -> float:
        low, high = interval(bootstrap(lambda weights: moments([values], weights)[0], groups, rounds=500)[:, 0])
        return high - low

    theory = 2 * 1.96 * float(np.arange(30.0).std()) / math.sqrt(30)
    assert width([int(v) for v in values]) == pytest.approx(theory, rel=0.1)
    assert width(range(300)) == pytest.approx(theory / math.sqrt(10), rel=0.1)


def test_an_interval_needs_the_statistic_in_most_rounds() -> None:
    assert interval(np.array([1.0, 2.0, 3.0, math.nan])) == pytest.approx((1.05, 2.95))
    assert all(math.isnan(v) for v in interval(np.array([1.0, math.nan])))


@pytest.mark.parametrize(("raters", "count"), [(2, 1), (3, 3), (4, 3), (5, 15), (6, 10)])
def test_splits_are_all_and_different(raters: int, count: int) -> None:
    splits = half_splits(raters)
    assert len({frozenset(map(frozenset, split)) for split in splits}) == len(splits) == count
    assert all(len(a) == len(b) == raters // 2 and not {*a} & {*b} for a, b in splits)


def test_many_raters_are_split_at_random_and_one_not_at_all() -> None:
    splits = half_splits(20, most=50)
    assert len(splits) == 50
    assert splits == half_splits(20, most=50)
    assert all(len({*a, *b}) == 20 for a, b in splits)
    with pytest.raises(ValueError, match="1 raters cannot be split"):
        half_splits(1)


def test_the_ceiling_finds_the_reliability_that_was_put_in() -> None:
    """Raters = truth + noise of equal variance: one rater has reliability 1/2, the mean of four 4/5."""
    rng = np.random.default_rng(0)
    truth_N = rng.normal(size=4000)
    ratings_NR = truth_N[:, None] + rng.normal(size=(4000, 4))
    half = float(split_halves(ratings_NR, half_splits(4), once(4000))[0])
    assert stepped_up(half, 2) == pytest.approx(0.8, abs=0.02)
    assert math.sqrt(stepped_up(half, 2)) == pytest.approx(pearson(truth_N, ratings_NR.mean(axis=1)), abs=0.02)


def test_raters_who_share_nothing_have_no_ceiling() -> None:
    assert math.isnan(stepped_up(-0.1, 3))
    assert math.isnan(stepped_up(0.0, 3))
    assert stepped_up(0.5, 1) == pytest.approx(0.5)
    assert stepped_up(1.0, 3) == pytest.approx(1.0)
