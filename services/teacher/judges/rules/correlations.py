"""Correlations and their bootstrap intervals. Pure functions over lists of numbers."""

import math
import random
from collections.abc import Callable, Sequence
from statistics import fmean

Row = Sequence[float]
Statistic = Callable[[Sequence[Row]], float]


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    out = [0.0] * len(values)
    i = 0
    while i < len(order):
        j = i
        while j + 1 < len(order) and values[order[j + 1]] == values[order[i]]:
            j += 1
        for k in range(i, j + 1):
            out[order[k]] = 0.5 * (i + j) + 1.0
        i = j + 1
    return out


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Product-moment correlation; 0 where one side is constant."""
    mx, my = fmean(x), fmean(y)
    sxy = math.fsum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    sxx, syy = math.fsum((a - mx) ** 2 for a in x), math.fsum((b - my) ** 2 for b in y)
    return sxy / math.sqrt(sxx * syy) if sxx > 0.0 and syy > 0.0 else 0.0


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation."""
    return pearson(ranks(x), ranks(y))


def partial_spearman(x: Sequence[float], y: Sequence[float], given: Sequence[float]) -> float:
    """Rank correlation of x and y at equal `given` (first-order partial correlation of the ranks)."""
    rx, ry, rz = ranks(x), ranks(y), ranks(given)
    xy, xz, yz = pearson(rx, ry), pearson(rx, rz), pearson(ry, rz)
    rest = (1.0 - xz * xz) * (1.0 - yz * yz)
    return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else 0.0


def bootstrap(
    clusters: Sequence[Sequence[Row]], statistics: Sequence[Statistic], rounds: int, seed: int = 0
) -> list[tuple[float, float]]:
    """95 % percentile intervals of several statistics of the pooled rows, drawing whole clusters with replacement."""
    rng = random.Random(seed)
    draws: list[list[float]] = [[] for _ in statistics]
    for _ in range(rounds):
        rows = [row for cluster in rng.choices(clusters, k=len(clusters)) for row in cluster]
        for values, statistic in zip(draws, statistics, strict=True):
            values.append(statistic(rows))
    return [(sorted(v)[int(0.025 * rounds)], sorted(v)[min(rounds - 1, int(0.975 * rounds))]) for v in draws]
