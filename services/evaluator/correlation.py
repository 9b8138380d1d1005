"""Spearman's rank correlation with a 95 % percentile bootstrap interval over items. Pure."""

from collections.abc import Sequence

import numpy as np
import scipy  # its parts load when they are first used: the statistics take half a second

from services.evaluator.statistics import RESAMPLES, Estimate, FloatArray, percentile_interval

PREFERENCES_FILE = "preferences.json"
"""Beside a wug suite's results: how much people and the model prefer the first form, 0..1, a pair an item."""
_VALUES_AT_ONCE = 1_000_000


def spearman_interval(
    first: Sequence[float], second: Sequence[float], seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """Rank correlation (-1..1, ties at their mean rank) of two samples of n items, with its interval.

    Args:
        first, second: One value an item, both of length n.
        seed: Of the resampling.
        resamples: Number of draws of n items with replacement. Those in which one sample is constant have no
            correlation and are left out.

    Raises:
        ValueError: a sample is constant, so that there is no correlation, or the lengths differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} values against {b.size}; a correlation needs one of each for every item")
    if a.size == 0 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        raise ValueError(
            f"one of the two samples of {a.size} items is constant; a correlation needs values that differ"
        )
    value = float(scipy.stats.spearmanr(a, b).statistic)
    replicates = spearman_replicates(a, b, seed, resamples)
    low, high = percentile_interval(replicates[np.isfinite(replicates)])
    return Estimate(value, low, high, int(a.size))


def spearman_replicates(a: FloatArray, b: FloatArray, seed: int, resamples: int = RESAMPLES) -> FloatArray:
    """The correlations of as many resamples of two samples of shape N, NaN where a sample came out constant.

    One seed draws the same items whatever the samples, so differences of two such arrays are a paired bootstrap.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _VALUES_AT_ONCE // a.size)
    replicates: list[FloatArray] = []
    for start in range(0, resamples, rows):
        drawn_RN = rng.integers(0, a.size, size=(min(rows, resamples - start), a.size))
        ranks_a_RN, ranks_b_RN = (_centred(scipy.stats.rankdata(sample[drawn_RN], axis=1)) for sample in (a, b))
        scale_R = np.sqrt((ranks_a_RN**2).sum(axis=1) * (ranks_b_RN**2).sum(axis=1))
        undefined_R = np.full_like(scale_R, np.nan)
        replicates.append(np.divide((ranks_a_RN * ranks_b_RN).sum(axis=1), scale_R, out=undefined_R, where=scale_R > 0))
    return np.concatenate(replicates)


def _centred(ranks_RN: FloatArray) -> FloatArray:
    centred: FloatArray = ranks_RN - ranks_RN.mean(axis=1, keepdims=True)
    return centred
