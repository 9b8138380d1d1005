"""Means and accuracies with 95 % percentile bootstrap intervals (Efron & Tibshirani 1993, chapter 13). Pure numpy.

Right-or-wrong items need no resampling of indices: drawing n items with replacement from k right ones out of n gives a
Binomial(n, k / n) number of right ones, which is the same distribution at a fraction of the cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
CONFIDENCE = 0.95
_INDICES_AT_ONCE = 2_000_000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` items with the interval [low, high] that holds 95 % of its bootstrap distribution."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of a stratum's items were right."""

    right: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.total or self.total == 0:
            raise ValueError(f"{self.right} right of {self.total} items; expected 0 <= right <= total and total >= 1")

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0..1."""
        return self.right / self.total


def percentile_interval(replicates: FloatArray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Central `confidence` share of `replicates` (shape: resamples)."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return float(low), float(high)


def resampled_means(sample: FloatArray, rng: np.random.Generator, resamples: int = RESAMPLES) -> FloatArray:
    """Means (shape: resamples) of as many draws of n items with replacement; `sample` has shape n.

    Raises:
        ValueError: there are no items.
    """
    if sample.size == 0:
        raise ValueError("a mean over 0 values has no meaning; give at least one")
    rows = max(1, _INDICES_AT_ONCE // sample.size)
    return np.concatenate(
        [
            sample[rng.integers(0, sample.size, size=(min(rows, resamples - start), sample.size))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )


def mean_interval(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean of `values` (length n >= 1) with its interval.

    Raises:
        ValueError: there are no values.
    """
    sample = np.asarray(values, dtype=np.float64)
    low, high = percentile_interval(resampled_means(sample, np.random.default_rng(seed), resamples))
    return Estimate(float(sample.mean()), low, high, int(sample.size))


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """Sum of `numerators` over sum of `denominators` (both of length n >= 1), pairs resampled together.

    Raises:
        ValueError: the denominators sum to 0.
    """
    pairs = np.stack([np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1)
    top, bottom = pairs.sum(axis=0)
    if bottom == 0.0:
        raise ValueError(f"{len(pairs)} denominators sum to 0; a ratio needs at least one above 0")
    n, rng = len(pairs), np.random.default_rng(seed)
    rows = max(1, _INDICES_AT_ONCE // n)
    sums = np.concatenate(
        [
            pairs[rng.integers(0, n, size=(min(rows, resamples - start), n))].sum(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
    sums = sums[sums[:, 1] > 0.0]  # a draw of nothing but zeros has no ratio
    low, high = percentile_interval(sums[:, 0] / sums[:, 1])
    return Estimate(float(top / bottom), low, high, n)


def macro_accuracy(
    tallies: Mapping[str, Tally], seed: int, weights: Mapping[str, float] | None = None, resamples: int = RESAMPLES
) -> Estimate:
    """Weighted mean of the strata's accuracies (equal weights by default), resampled within each stratum.

    Args:
        tallies: Stratum to its tally; one stratum gives the plain accuracy.
        seed: Of the resampling.
        weights: Stratum to its weight; they should sum to 1.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: there is no stratum, or the weights do not sum to 1.
    """
    if not tallies:
        raise ValueError("an average over 0 strata has no meaning; give at least one")
    strata = sorted(tallies)
    totals = np.array([tallies[name].total for name in strata], dtype=np.int64)
    accuracies = np.array([tallies[name].accuracy for name in strata], dtype=np.float64)
    shares = np.array([1.0 / len(strata) if weights is None else weights[name] for name in strata], dtype=np.float64)
    if not np.isclose(shares.sum(), 1.0):
        raise ValueError(f"weights of the strata sum to {shares.sum():.6f}; expected 1")
    rng = np.random.default_rng(seed)
    replicates = rng.binomial(totals, accuracies, size=(resamples, len(strata))) / totals @ shares
    low, high = percentile_interval(replicates)
    return Estimate(float(accuracies @ shares), low, high, int(totals.sum()))


def pooled(tallies: Sequence[Tally]) -> Tally:
    """All items of several strata as one."""
    return Tally(sum(t.right for t in tallies), sum(t.total for t in tallies))
