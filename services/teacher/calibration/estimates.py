"""Numbers with their bootstrap intervals, as the reports carry them."""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from pydantic import Field

from fabula_proto import Message
from services.teacher.calibration.statistics import ROUNDS, FloatArray, bootstrap, interval, once

MIN_PROMPTS = 10


class Estimate(Message):
    """A number and its 95 % interval; None where it is not defined, as a correlation with a constant is."""

    value: float | None
    low: float | None = Field(description="Lower end of the 95 % percentile bootstrap interval.")
    high: float | None = Field(description="Upper end.")


def estimates(
    statistics: Callable[[FloatArray], Sequence[FloatArray]], groups: Sequence[Hashable], rounds: int = ROUNDS
) -> list[Estimate]:
    """Each statistic (weights B x N -> S times B) of all N stories, with its interval; groups are drawn whole."""

    def stacked(weights_BN: FloatArray) -> FloatArray:
        return np.stack(statistics(weights_BN), axis=1)

    values, replicates = stacked(once(len(groups)))[0], bootstrap(stacked, groups, rounds)
    return [_estimate(value, *interval(column)) for value, column in zip(values, replicates.T, strict=True)]


def groups_by_prompt(prompts: Sequence[str]) -> list[Hashable]:
    """What is drawn together: the stories of one prompt, and each story alone where there are too few prompts.

    With fewer than MIN_PROMPTS of them there is nothing to draw from; a student's stories share a single one.
    """
    if len(set(prompts)) < MIN_PROMPTS:
        return list(range(len(prompts)))
    return [prompt or position for position, prompt in enumerate(prompts)]


def _estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=_defined(value), low=_defined(low), high=_defined(high))


def _defined(number: float) -> float | None:
    return None if math.isnan(number) else float(number)
