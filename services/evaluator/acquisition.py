"""Age of acquisition: when a model learns a word, after Chang & Bergen (2022), and when children do. Pure.

A word's surprisal is followed over checkpoints. A sigmoid is fitted to its negative over log10 of the words read, and
the word counts as acquired where the curve has come half of the way from chance to the lowest surprisal measured.
The result is compared with the age, in months, at which half of the children say the word.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from services.evaluator.regression import cluster_counts
from services.evaluator.statistics import FloatArray, percentile_interval

PARAMETERS = 4  # of the sigmoid
MINIMUM_AGES = 3
HALF = 0.5
_EVALUATIONS = 1000


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pearson's r between two kinds of ages over `n` words, its 95 % bootstrap interval over words, and its p."""

    r: float
    low: float
    high: float
    p: float
    n: int


def acquired_at(words_read: Sequence[float], surprisals: Sequence[float], chance: float) -> float | None:
    """log10 of the words read when a word is acquired; none where no curve says so.

    There is none where the fit does not converge, does not rise, does not cross the threshold, or crosses it outside
    the range from the first to the last of `words_read`.

    Args:
        words_read: Of each measurement, in ascending order; several may share one.
        surprisals: As many, in the unit of `chance`; NaN ones are left out.
        chance: Surprisal of a word under a model that knows nothing.
    """
    measured = np.isfinite(surprisals)
    words_N, surprisals_N = np.asarray(words_read, dtype=float)[measured], np.asarray(surprisals)[measured]
    if len(words_N) < PARAMETERS:
        return None
    log_words_N, known_N = np.log10(words_N + 1.0), -surprisals_N
    start = (float(np.ptp(known_N)), 1.0, float(log_words_N.mean()), float(known_N.min()))
    threshold = -(chance + float(surprisals_N.min())) / 2.0
    crossing = _crossing(log_words_N, known_N, start, threshold)
    if crossing is None or not words_N[0] <= 10.0**crossing - 1.0 <= words_N[-1]:
        return None
    return crossing


def said_at(ages: Sequence[float], shares: Sequence[float]) -> float | None:
    """Age in months at which half of the children say a word; none where no curve says so within the ages.

    Args:
        ages: In months, ascending.
        shares: Of children who say the word at that age, 0..1; NaN ones are left out.
    """
    measured = np.isfinite(shares)
    ages_N, shares_N = np.asarray(ages, dtype=float)[measured], np.asarray(shares)[measured]
    if len(ages_N) < MINIMUM_AGES:
        return None
    bounds = ([0.0, 0.0, float(ages_N[0]), -0.5], [2.0, 1.0, float(ages_N[-1]), 0.5])
    crossing = _crossing(ages_N, shares_N, (1.0, 0.1, float(ages_N.mean()), 0.0), HALF, bounds)
    return crossing if crossing is not None and ages_N[0] <= crossing <= ages_N[-1] else None


def agreement(first: Sequence[float], second: Sequence[float], seed: int) -> Agreement | None:
    """How well two kinds of ages of the same words go together; none for fewer than 3 words or equal ages."""
    a_N, b_N = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(a_N) < 3 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return None
    found = scipy.stats.pearsonr(a_N, b_N)
    counts_RN = cluster_counts(len(a_N), seed)
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    a_R, b_R, aa_R, bb_R, ab_R = (counts_RN @ moment_N / len(a_N) for moment_N in (a_N, b_N, a_N**2, b_N**2, a_N * b_N))
    scale_R = np.sqrt(np.maximum(aa_R - a_R**2, 0.0) * np.maximum(bb_R - b_R**2, 0.0))
    defined = scale_R > 1e-12 * scale_R.max()  # a resample of one word alone has no correlation
    low, high = percentile_interval((ab_R - a_R * b_R)[defined] / scale_R[defined])
    return Agreement(float(found.statistic), low, high, float(found.pvalue), len(a_N))


def _sigmoid(x: FloatArray, height: float, slope: float, middle: float, base: float) -> FloatArray:
    return height * scipy.special.expit(slope * (x - middle)) + base


def _crossing(
    x_N: FloatArray,
    y_N: FloatArray,
    start: tuple[float, float, float, float],
    threshold: float,
    bounds: tuple[list[float], list[float]] = ([-np.inf] * PARAMETERS, [np.inf] * PARAMETERS),
) -> float | None:
    """Where the sigmoid fitted to (x, y) crosses `threshold` upwards."""
    fitted: Callable[..., tuple[FloatArray, FloatArray]] = scipy.optimize.curve_fit
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # It is about the parameters' covariance, which nobody asks for.
        warnings.simplefilter("ignore", scipy.optimize.OptimizeWarning)
        try:
            (height, slope, middle, base), _ = fitted(_sigmoid, x_N, y_N, p0=start, bounds=bounds, maxfev=_EVALUATIONS)
        except (RuntimeError, ValueError):  # no convergence; a start outside the bounds
            return None
        if slope <= 0 or height <= 0 or not base < threshold < height + base:
            return None
        return float(middle - np.log(height / (threshold - base) - 1.0) / slope)
