"""Agreement of two columns of numbers, and its bootstrap intervals. Pure numpy; NaN where a number is not defined.

Shapes: N stories, K columns, R raters, L levels.

- Quadratic weighted kappa (Cohen 1968). With weights (a - b)^2 it is 1 - E[(a - b)^2] / E[(a - b')^2], b' drawn apart
  from a; multiplied out, that is Lin's concordance correlation (1989) with moments over N. Computed so, it needs no
  table and holds for numbers between levels, too.
- Partial correlation: of first order, on ranks.
- Split halves: Spearman 1910 and Brown 1910.
- Bootstrap: percentile intervals over whole clusters (Davison & Hinkley 1997, section 3.8), because the stories of one
  prompt are no independent draws.
"""

import itertools
import math
import random
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Numbers = Sequence[float] | FloatArray

ROUNDS = 1000
CONFIDENCE = 0.95
MOST_SPLITS = 200


def ranks(values: Numbers) -> FloatArray:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[inverse], dtype=np.float64)


def correlations(columns: Sequence[Numbers]) -> FloatArray:
    """Product-moment correlations of every column with every other, K x K; NaN with a column that is constant."""
    x_KN = np.asarray(columns, dtype=np.float64)
    scale = np.abs(x_KN).max(axis=1, initial=0.0)
    x_KN = x_KN - x_KN.mean(axis=1, keepdims=True)
    norms = np.sqrt((x_KN**2).sum(axis=1))
    # A constant column has a norm of rounding errors alone.
    norms[norms <= 1e-12 * np.maximum(scale, 1e-300) * math.sqrt(x_KN.shape[1])] = np.nan
    unit_KN = x_KN / norms[:, None]
    return np.asarray(np.clip(unit_KN @ unit_KN.T, -1.0, 1.0), dtype=np.float64)


def rank_correlations(columns: Sequence[Numbers]) -> FloatArray:
    """Spearman's rank correlations of every column with every other, K x K."""
    return correlations([ranks(column) for column in columns])


def pearson(x: Numbers, y: Numbers) -> float:
    """Product-moment correlation of two columns of N numbers, -1..1."""
    return float(correlations([x, y])[0, 1])


def spearman(x: Numbers, y: Numbers) -> float:
    """Rank correlation of two columns of N numbers, -1..1."""
    return float(rank_correlations([x, y])[0, 1])


def partial(xy: float, xz: float, yz: float) -> float:
    """Correlation of x and y at equal z, from the three correlations; NaN where z leaves nothing to explain."""
    rest = (1.0 - xz * xz) * (1.0 - yz * yz)
    return max(-1.0, min(1.0, (xy - xz * yz) / math.sqrt(rest))) if rest > 1e-12 else math.nan


def partial_spearman(x: Numbers, y: Numbers, given: Numbers) -> float:
    """Rank correlation of x and y at equal `given`, such as log words."""
    matrix = rank_correlations([x, y, given])
    return partial(float(matrix[0, 1]), float(matrix[0, 2]), float(matrix[1, 2]))


def weighted_kappa(a: Numbers, b: Numbers) -> float:
    """Quadratic weighted kappa of two columns of N whole levels, -1..1; of other numbers, Lin's concordance."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    shift = x.mean() - y.mean()
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    chance = x.var() + y.var() + shift * shift
    return float(2.0 * covariance / chance) if chance > 1e-24 else math.nan


def bias(a: Numbers, b: Numbers) -> float:
    """Mean of b - a: how much higher b is."""
    return float((np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)).mean())


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


def clusters_of(keys: Sequence[Hashable]) -> list[IntArray]:
    """Positions of equal keys together, in order of first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return [np.asarray(group, dtype=np.intp) for group in groups.values()]


def bootstrap(
    statistics: Callable[[IntArray], Sequence[float]],
    clusters: Sequence[IntArray],
    rounds: int = ROUNDS,
    seed: int = 0,
) -> FloatArray:
    """`statistics` of the drawn positions, (rounds, S): each round draws as many whole clusters as there are.

    Intervals that belong to one table come from one call, so that differences are of the same draws.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(clusters), size=(rounds, len(clusters)))
    return np.asarray([statistics(np.concatenate([clusters[i] for i in row])) for row in picks], dtype=np.float64)


def interval(replicates: FloatArray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Central `confidence` share of the replicates of one statistic; NaN where it is undefined in over half of them."""
    defined = replicates[~np.isnan(replicates)]
    if 2 * len(defined) <= len(replicates):
        return math.nan, math.nan
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high)


def half_splits(raters: int, most: int = MOST_SPLITS, seed: int = 0) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
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


def split_half(ratings_NR: FloatArray, splits: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> float:
    """Rank correlation of the means of two halves of the raters, averaged over `splits`."""
    found = [
        spearman(ratings_NR[:, list(first)].mean(axis=1), ratings_NR[:, list(second)].mean(axis=1))
        for first, second in splits
    ]
    return float(np.mean(found))


def stepped_up(half_correlation: float, factor: float) -> float:
    """Reliability of `factor` times as many raters (Spearman-Brown), 0..1; NaN where the halves do not agree.

    A correlation of zero or below says that the raters share nothing that the formula could scale up.
    """
    if not half_correlation > 0.0:
        return math.nan
    return factor * half_correlation / (1.0 + (factor - 1.0) * half_correlation)
