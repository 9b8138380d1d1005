"""A reward map fitted on stories that two teachers judged: equipercentile linking.

Source: Kolen & Brennan, Test Equating, Scaling, and Linking, 3rd ed. 2014, chapter 2. A reward of B becomes the reward
of A with the same percentile rank, so that mapped rewards of B have the mean, the spread and the shape of A's. What we
do differently:

1. Smoothing is by few knots: the map is read off at KNOTS percentile ranks, which stand denser near the ends, where
   scales differ most, and is linear between them. A teacher with few different rewards has a knot at each.
2. Ties, such as a mass at 0, count half (the mid-distribution), which is the book's percentile rank for whole scores.
3. 0 stays 0, because the rubric gives an empty story 0 from any teacher. Above the highest knot the map goes to (1, 1).

Least squares and isotonic regression predict A's reward of *one* story better, by shrinking towards A's mean wherever
the teachers disagree: a swap would then weaken every advantage. A swap has to keep the scale, not to guess A.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import Field

from fabula_proto import Message
from services.teacher.calibration.statistics import FloatArray, Numbers

KNOTS = 9
MIN_STORIES = 50
FOLDS = 5
_DIGITS = 6

Knots = tuple[tuple[float, float], ...]


class LinkingError(ValueError):
    """These rewards give no map; the message says why."""


class ScaleError(Message):
    """How far B's rewards are from A's on the same stories, all in units of reward but `spread`."""

    bias: float = Field(description="Mean of B minus mean of A.")
    spread: float | None = Field(description="Standard deviation of B over that of A; None where A's is 0.")
    distance: float = Field(description="Mean difference between rewards of equal rank (Wasserstein-1).")
    rmse: float = Field(description="Root mean square difference between the two rewards of one story.")


def equipercentile(rewards_A: Numbers, rewards_B: Numbers, knots: int = KNOTS) -> Knots:
    """The map from B's reward (0..1) to A's: pairs (reward in, reward out) from 0 to 1, N rewards each.

    Raises:
        LinkingError: too few stories, or one side hardly tells them apart.
    """
    if len(rewards_A) < MIN_STORIES:
        raise LinkingError(f"{len(rewards_A)} stories were judged by both; a map needs at least {MIN_STORIES}")
    return _linked(rewards_A, rewards_B, knots)


def _linked(rewards_A: Numbers, rewards_B: Numbers, knots: int) -> Knots:
    (values_A, ranks_A), (values_B, ranks_B) = _percentile_ranks(rewards_A), _percentile_ranks(rewards_B)
    # Between these ranks both sides rise strictly, and so does the map.
    low, high = max(ranks_A[0], ranks_B[0]), min(ranks_A[-1], ranks_B[-1])
    if low >= high:
        constant = "A" if len(values_A) < len(values_B) else "B"
        raise LinkingError(f"{constant} gives most stories the same reward; take stories that differ more")
    spread = (1.0 - np.cos(np.linspace(0.0, np.pi, knots))) / 2.0
    at = np.clip(ranks_B if len(values_B) <= 2 * knots else spread, low, high)
    found = zip(np.interp(at, ranks_B, values_B), np.interp(at, ranks_A, values_A), strict=True)
    points = {0.0: 0.0}
    for x, y in found:
        if (key := round(float(x), _DIGITS)) > 0.0:
            points[key] = round(float(y), _DIGITS)
    points.setdefault(1.0, 1.0)
    return tuple(points.items())


def _percentile_ranks(rewards: Numbers) -> tuple[FloatArray, FloatArray]:
    """Different values, rising, and the share of rewards below each, its own ones counted half."""
    values, counts = np.unique(np.asarray(rewards, dtype=np.float64), return_counts=True)
    return values, np.asarray((np.cumsum(counts) - counts / 2.0) / counts.sum(), dtype=np.float64)


def apply_knots(knots: Knots, rewards: Numbers) -> FloatArray:
    """Rewards (N, 0..1) put through the map; the same numbers as `RewardMap.apply`."""
    x, y = zip(*knots, strict=True)
    return np.asarray(np.interp(np.asarray(rewards, dtype=np.float64), x, y), dtype=np.float64)


def scale_error(rewards_A: Numbers, rewards_B: Numbers) -> ScaleError:
    """How far B's N rewards are from A's."""
    a, b = np.asarray(rewards_A, dtype=np.float64), np.asarray(rewards_B, dtype=np.float64)
    return ScaleError(
        bias=float(b.mean() - a.mean()),
        spread=float(b.std() / a.std()) if a.std() > 1e-12 else None,
        distance=float(np.abs(np.sort(a) - np.sort(b)).mean()),
        rmse=float(np.sqrt(((a - b) ** 2).mean())),
    )


def held_out(rewards_A: Numbers, rewards_B: Numbers, groups: Sequence[Hashable], knots: int = KNOTS) -> FloatArray:
    """B's N rewards, each put through a map fitted without its fold; stories of one group share a fold.

    Raises:
        LinkingError: without some fold, one side hardly tells the stories apart.
    """
    a, b = np.asarray(rewards_A, dtype=np.float64), np.asarray(rewards_B, dtype=np.float64)
    names = list(dict.fromkeys(groups))
    shuffled = np.random.default_rng(0).permutation(len(names)).tolist()
    fold_of = {name: place % FOLDS for name, place in zip(names, shuffled, strict=True)}
    folds_N = np.asarray([fold_of[group] for group in groups])
    mapped = np.empty(len(a))
    for fold in set(fold_of.values()):
        out, rest = folds_N == fold, folds_N != fold
        mapped[out] = apply_knots(_linked(a[rest], b[rest], knots), b[out])
    return mapped
