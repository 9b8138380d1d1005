"""Two checkpoints on the same items: what changed, and is it beyond chance? Pure numpy.

Sources: McNemar (1947) in its exact form, a binomial test on the items that changed; Efron & Tibshirani (1993) for the
bootstrap; Holm (1979) for many tests at once.

As in statistics.py, items are not resampled one by one where a draw of counts has the same distribution: an item was
lost, kept or won, so a resample of n items is one draw from a multinomial distribution.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from services.evaluator.statistics import RESAMPLES, mean_interval, percentile_interval, resampled_means

CHOICES_FILE = "choices.json"
"""Paradigm -> index of the candidate chosen, item by item; 0 is right. Beside a ranking suite's predictions."""

RESAMPLES_FILE = "resamples.json"
"""A headline that is no mean over items, such as a regression's, in each resample: `drawn` says of what it was drawn,
and where that is equal, resample r of both checkpoints holds the same; `values` are in the headline's unit."""

Choices = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Change:
    """after - before with the interval [low, high] that holds 95 % of its bootstrap distribution.

    `p` is McNemar's, two-sided, over all items together; none where items are not right or wrong.
    """

    value: float
    low: float
    high: float
    p: float | None = None

    @property
    def rose(self) -> bool:
        """The whole interval is above 0."""
        return self.low > 0

    @property
    def fell(self) -> bool:
        """The whole interval is below 0."""
        return self.high < 0


@dataclass(frozen=True, slots=True)
class Switches:
    """Of `total` items, how many went from right to wrong (`lost`) and from wrong to right (`won`)."""

    lost: int
    won: int
    total: int

    @classmethod
    def between(cls, before: Sequence[int], after: Sequence[int]) -> "Switches":
        """Counts from the choices on the same items, in the same order; both of length n >= 1, 0 is right.

        Raises:
            ValueError: the lengths differ, or there are no items.
        """
        if len(before) != len(after) or not before:
            raise ValueError(
                f"{len(before)} items before and {len(after)} after; expected the same items, at least one"
            )
        pairs = [(b == 0, a == 0) for b, a in zip(before, after, strict=True)]
        return cls(pairs.count((True, False)), pairs.count((False, True)), len(pairs))


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided p of McNemar's test: under no change, `lost` is Binomial(lost + won, 1/2)."""
    switched, fewer = lost + won, min(lost, won)
    # log C(n, k) for k = 0..fewer, by C(n, k) = C(n, k - 1) (n - k + 1) / k
    k = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((switched - k + 1) / k))]) - switched * log(2)
    return min(1.0, 2.0 * float(np.exp(np.logaddexp.reduce(logs))))


def paired_change(switches: Mapping[str, Switches], weights: Mapping[str, float], seed: int) -> Change:
    """Change of the weighted mean of the strata's accuracies; both sides keep the same items in every resample.

    Args:
        switches: Stratum to what changed in it.
        weights: Stratum to its weight, summing to 1.
        seed: Of the resampling.
    """
    strata = sorted(switches)
    totals = np.array([switches[name].total for name in strata], dtype=np.int64)
    lost = np.array([switches[name].lost for name in strata], dtype=np.int64)
    won = np.array([switches[name].won for name in strata], dtype=np.int64)
    shares = np.array([weights[name] for name in strata], dtype=np.float64)
    chances = np.stack([lost, won, totals - lost - won], axis=1) / totals[:, None]
    draws = np.random.default_rng(seed).multinomial(totals, chances, size=(RESAMPLES, len(strata)))
    low, high = percentile_interval((draws[:, :, 1] - draws[:, :, 0]) / totals @ shares)
    return Change(float((won - lost) / totals @ shares), low, high, mcnemar(int(lost.sum()), int(won.sum())))


def paired_mean_change(differences: Sequence[float], seed: int) -> Change:
    """Change of a mean from each item's own difference, after - before.

    Raises:
        ValueError: there are no items.
    """
    estimate = mean_interval(differences, seed)
    return Change(estimate.value, estimate.low, estimate.high)


def unpaired_change(before: Sequence[float], after: Sequence[float], seed: int) -> Change:
    """Change of a mean between two samples of different items, such as stories, each resampled on its own.

    Raises:
        ValueError: a sample is empty.
    """
    rng = np.random.default_rng(seed)
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    low, high = percentile_interval(resampled_means(new, rng) - resampled_means(old, rng))
    return Change(float(new.mean() - old.mean()), low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: those below 0.05 keep the chance of any false alarm below 5 %."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors))
    return [float(p) for p in adjusted]
