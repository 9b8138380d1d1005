"""Agreement of two columns of numbers, and its bootstrap intervals. Pure numpy; NaN where a number is not defined.

Shapes: N stories, B draws, K columns, R raters, L levels, S statistics. A draw is a weight for each story, how often it
was drawn, so that all draws are computed at once: `weights_BN`. Functions on draws have names in the plural.

- Quadratic weighted kappa (Cohen 1968). With weights (a - b)^2 it is 1 - E[(a - b)^2] / E[(a - b')^2], b' drawn apart
  from a; multiplied out, that is Lin's concordance correlation (1989) with moments over N. Computed so, it needs no
  table and holds for numbers between levels, too.
- Partial correlation: of first order, on ranks.
- Split halves: Spearman 1910 and Brown 1910.
- Bootstrap: percentile intervals over whole groups (Davison & Hinkley 1997, section 3.8), because the stories of one
  prompt are no independent draws.
"""

import itertools
import math
import random
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Numbers = Sequence[float] | FloatArray
Splits = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]

ROUNDS = 1000
CONFIDENCE = 0.95
MOST_SPLITS = 200
_NUMBERS_AT_ONCE = 200_000


def once(n: int) -> FloatArray:
    """The draw that holds each of N stories once, 1 x N."""
    return np.ones((1, n))


def ranks(values: Numbers, weights_BN: FloatArray | None = None) -> FloatArray:
    """Ranks from 1 in each draw, B x N; equal values share their mean rank. Without weights: B = 1."""
    weights = once(len(values)) if weights_BN is None else weights_BN
    _, places, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    drawn = np.add.reduceat(weights[:, np.argsort(places, kind="stable")], starts, axis=1)
    return np.asarray((np.cumsum(drawn, axis=1) - (drawn - 1.0) / 2.0)[:, places], dtype=np.float64)


def moments(columns: Sequence[Numbers], weights_BN: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means (B x K) and covariances (B x K x K, over N) of K columns in each draw; a column is N or B x N numbers.

    A variance that is nothing but rounding errors is 0.
    """
    x_KBN = np.stack([np.broadcast_to(np.asarray(c, dtype=np.float64), weights_BN.shape) for c in columns])
    weights_B1N = (weights_BN / weights_BN.sum(axis=1, keepdims=True))[:, None, :]
    x_BKN = x_KBN.transpose(1, 0, 2)
    mean_BK = (x_BKN * weights_B1N).sum(axis=2)
    x_BKN = x_BKN - mean_BK[:, :, None]
    covariance_BKK = (x_BKN * weights_B1N) @ x_BKN.transpose(0, 2, 1)
    noise_K = (1e-12 * np.abs(x_KBN).max(axis=(1, 2), initial=0.0)) ** 2
    flat_BK = np.diagonal(covariance_BKK, axis1=1, axis2=2) <= noise_K
    covariance_BKK[flat_BK[:, :, None] | flat_BK[:, None, :]] = 0.0
    return mean_BK, covariance_BKK


def correlations(columns: Sequence[Numbers], weights_BN: FloatArray) -> FloatArray:
    """Product-moment correlations of every column with every other, B x K x K; NaN with a column that is constant."""
    _, covariance_BKK = moments(columns, weights_BN)
    norms_BK = np.sqrt(np.diagonal(covariance_BKK, axis1=1, axis2=2))
    norms_BK = np.where(norms_BK > 0.0, norms_BK, np.nan)
    return np.asarray(np.clip(covariance_BKK / norms_BK[:, :, None] / norms_BK[:, None, :], -1.0, 1.0))


def rank_correlations(columns: Sequence[Numbers], weights_BN: FloatArray) -> FloatArray:
    """Spearman's rank correlations of every column of N with every other, B x K x K."""
    return correlations([ranks(column, weights_BN) for column in columns], weights_BN)


def partials(xy: FloatArray, xz: FloatArray, yz: FloatArray) -> FloatArray:
    """Correlations of x and y at equal z, from the three; NaN where z leaves nothing to explain."""
    rest = (1.0 - xz * xz) * (1.0 - yz * yz)
    return np.asarray(np.clip((xy - xz * yz) / np.sqrt(np.where(rest > 1e-12, rest, np.nan)), -1.0, 1.0))


def kappas(a: Numbers, b: Numbers, weights_BN: FloatArray) -> FloatArray:
    """Quadratic weighted kappa of two columns of whole levels in each draw, B; of other numbers, Lin's concordance."""
    mean_BK, covariance_BKK = moments([a, b], weights_BN)
    chance = covariance_BKK[:, 0, 0] + covariance_BKK[:, 1, 1] + (mean_BK[:, 0] - mean_BK[:, 1]) ** 2
    return np.asarray(2.0 * covariance_BKK[:, 0, 1] / np.where(chance > 1e-24, chance, np.nan))


def pearson(x: Numbers, y: Numbers) -> float:
    """Product-moment correlation of two columns of N numbers, -1..1."""
    return float(correlations([x, y], once(len(x)))[0, 0, 1])


def spearman(x: Numbers, y: Numbers) -> float:
    """Rank correlation of two columns of N numbers, -1..1."""
    return float(rank_correlations([x, y], once(len(x)))[0, 0, 1])


def partial_spearman(x: Numbers, y: Numbers, given: Numbers) -> float:
    """Rank correlation of x and y at equal `given`, such as log words."""
    matrix = rank_correlations([x, y, given], once(len(x)))
    return float(partials(matrix[:, 0, 1], matrix[:, 0, 2], matrix[:, 1, 2])[0])


def weighted_kappa(a: Numbers, b: Numbers) -> float:
    """Quadratic weighted kappa of two columns of N whole levels, -1..1."""
    return float(kappas(a, b, once(len(a)))[0])


def confusion(a: Sequence[int], b: Sequence[int], levels: int) -> list[list[int]]:
    """Counts, L x L: row i, column j holds the stories with level i by `a` and level j by `b`.

    Raises:
        ValueError: a level is not in 0..L-1.
    """
    table = [[0] * levels for _ in range(levels)]
    for i, j in zip(a, b, strict=True):
        if not (0 <= i < levels and 0 <= j < levels):
            raise ValueError(f"levels {i} and {j}; expected 0..{levels - 1}")
        table[i][j] += 1
    return table


def bootstrap(
    statistics: Callable[[FloatArray], FloatArray], groups: Sequence[Hashable], rounds: int = ROUNDS, seed: int = 0
) -> FloatArray:
    """`statistics` (weights B x N -> B x S) of `rounds` draws, rounds x S. Stories of one group are drawn together.

    A draw holds as many groups as there are. Intervals that belong to one table come from one seed, so that
    differences are of the same draws.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    places = np.asarray([numbers[group] for group in groups])
    rng = np.random.default_rng(seed)
    shares = np.full(len(numbers), 1.0 / len(numbers))
    block = max(1, _NUMBERS_AT_ONCE // len(groups))
    return np.concatenate(
        [
            statistics(rng.multinomial(len(numbers), shares, size=min(block, rounds - start))[:, places].astype(float))
            for start in range(0, rounds, block)
        ]
    )


def interval(replicates: FloatArray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Central `confidence` share of the replicates of one statistic; NaN where it is undefined in over half of them."""
    defined = replicates[~np.isnan(replicates)]
    if 2 * len(defined) <= len(replicates):
        return math.nan, math.nan
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high)


def half_splits(raters: int, most: int = MOST_SPLITS, seed: int = 0) -> Splits:
    """Pairs of disjoint halves of R // 2 raters each: all of them, or `most` random ones where there are more.

    Raises:
        ValueError: there are fewer than two raters.
    """
    if raters < 2:
        raise ValueError(f"{raters} raters cannot be split into halves; at least 2 are needed")
    half = raters // 2
    count = math.comb(raters, half) * math.comb(raters - half, half) // 2
    if count > most:
        rng = random.Random(seed)
        drawn = [rng.sample(range(raters), 2 * half) for _ in range(most)]
        return [(tuple(d[:half]), tuple(d[half:])) for d in drawn]
    everyone = range(raters)
    return [
        (first, second)
        for first in itertools.combinations(everyone, half)
        for second in itertools.combinations(sorted(set(everyone) - set(first)), half)
        if first < second
    ]


def split_halves(ratings_NR: FloatArray, splits: Splits, weights_BN: FloatArray) -> FloatArray:
    """Rank correlation of the means of two halves of the raters, averaged over `splits`, in each draw: B."""
    found = [
        rank_correlations([ratings_NR[:, list(half)].mean(axis=1) for half in split], weights_BN)[:, 0, 1]
        for split in splits
    ]
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def stepped_up(half_correlation: float, factor: float) -> float:
    """Reliability of `factor` times as many raters (Spearman-Brown), 0..1; NaN where the halves do not agree.

    A correlation of zero or below says that the raters share nothing that the formula could scale up.
    """
    if not half_correlation > 0.0:
        return math.nan
    return factor * half_correlation / (1.0 + (factor - 1.0) * half_correlation)
