"""Criteria that are spread alike before they are averaged."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula_proto import CriterionScore, Verdict, VerdictStatus
from services.student_trainer.advantages import group_normalised
from services.student_trainer.rewards import (
    UnknownCriterionError,
    WrittenStory,
    equalised_rewards,
    length_bonus,
    story_rewards,
    teacher_reward,
)

NAMES = ("readability", "coherence", "creativity")
FAILED = Verdict(story_id="s", status=VerdictStatus.FAILED, reason="away")
LEVELS = st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=2, max_size=12)
WEIGHTS = st.fixed_dictionaries({name: st.floats(0.1, 5.0) for name in NAMES})


def verdict(levels: tuple[float, ...]) -> Verdict:
    """Levels 0..3, a criterion each."""
    criteria = {}
    for name, level in zip(NAMES, levels, strict=True):
        low = min(2, math.floor(level))
        probabilities = [0.0] * 4
        probabilities[low], probabilities[low + 1] = 1 - (level - low), level - low
        criteria[name] = CriterionScore.from_probabilities(probabilities)
    total = sum(score.mean for score in criteria.values())
    return Verdict(
        story_id="s", status=VerdictStatus.OK, criteria=criteria, total=total, reward=total / 9, coverage=1.0
    )


def judged(levels: list[tuple[int, ...]]) -> list[Verdict]:
    return [verdict(tuple(level / 10 for level in row)) for row in levels]


def test_by_hand() -> None:
    # Levels 0, 1 and 0, 0.1 of 0..1: deviations 0.7071 and 0.0707, of mean 0.3889. The third criterion is constant.
    first, second = verdict((0.0, 0.3, 1.5)), verdict((3.0, 0.0, 1.5))
    deviations = [math.sqrt(0.5), math.sqrt(0.5) / 10, 0.0]
    scale = sum(deviations) / 3
    unit = math.sqrt(0.5)  # of two values around their mean, in standard deviations
    expected = [
        (0.5 - unit * scale + 0.05 + unit * scale + 0.5) / 3,
        (0.5 + unit * scale + 0.05 - unit * scale + 0.5) / 3,
    ]
    assert equalised_rewards([first, FAILED, second], {}) == [
        pytest.approx(expected[0]),
        None,
        pytest.approx(expected[1]),
    ]
    assert teacher_reward(second, {}) == pytest.approx(0.5)  # where readability decided alone


@given(LEVELS, WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_advantages_are_gdpos(levels: list[tuple[int, ...]], weights: dict[str, float]) -> None:
    """Normalised over the batch they are what GDPO makes of it: normalise each, sum under the weights, normalise."""
    columns = list(zip(*levels, strict=True))
    sums = [0.0] * len(levels)
    for name, column in zip(NAMES, columns, strict=True):
        deviation = statistics.stdev(column)
        for i, level in enumerate(column):
            sums[i] += weights[name] * (level - statistics.fmean(column)) / deviation if deviation else 0.0
    deviation = statistics.stdev(sums)
    found = torch.tensor([r for r in equalised_rewards(judged(levels), weights) if r is not None], dtype=torch.float64)
    if deviation < 1e-6:
        assert float(found.std()) < 1e-6
        return
    expected = torch.tensor([(s - statistics.fmean(sums)) / deviation for s in sums], dtype=torch.float64)
    torch.testing.assert_close((found - found.mean()) / found.std(), expected, atol=1e-6, rtol=1e-6)


@given(LEVELS, WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_the_mean_is_kept(levels: list[tuple[int, ...]], weights: dict[str, float]) -> None:
    found = [r for r in equalised_rewards(judged(levels), weights) if r is not None]
    plain = [r for v in judged(levels) if (r := teacher_reward(v, weights)) is not None]
    assert statistics.fmean(found) == pytest.approx(statistics.fmean(plain))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.permutations(range(3)), WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_criteria_that_spread_alike_change_nothing(
    column: list[int], order: list[int], weights: dict[str, float]
) -> None:
    mirrored = [column, [30 - level for level in column], column]
    rows = list(zip(*(mirrored[i] for i in order), strict=True))
    plain = [teacher_reward(v, weights) for v in judged(rows)]
    assert equalised_rewards(judged(rows), weights) == [pytest.approx(reward) for reward in plain]


def test_a_criterion_of_small_variance_is_no_longer_drowned() -> None:
    """Two stories differ by a whole level of readability, two by a tenth of a level of creativity."""
    verdicts = [verdict(row) for row in ((0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.5, 1.0, 0.95), (0.5, 1.0, 1.05))]
    rewards = torch.tensor([r for r in equalised_rewards(verdicts, {}) if r is not None])
    advantages = group_normalised(rewards, torch.ones(4), 4, scale_by_std=True)
    plain = group_normalised(torch.tensor([v.reward for v in verdicts]), torch.ones(4), 4, scale_by_std=True)
    assert abs(float(plain[3])) < 0.15
    assert float(advantages[3]) == pytest.approx(float(advantages[1]), abs=1e-3)


def test_shaping_comes_after() -> None:
    verdicts = [verdict((3.0, 0.0, 0.0)), verdict((0.0, 0.0, 0.0)), FAILED]
    stories = [WrittenStory("a b c", words=3, ended=True)] * 3
    rewards, usable = story_rewards(verdicts, stories, {}, (length_bonus(0.4, 12),), per_criterion=True)
    expected = [(r + 0.4 * 0.25) / 1.4 for r in equalised_rewards(verdicts, {}) if r is not None]
    torch.testing.assert_close(rewards, torch.tensor([*expected, 0.0]))
    assert usable.tolist() == [1.0, 1.0, 0.0]


def test_what_cannot_be_equalised_says_so() -> None:
    bare = Verdict.model_construct(story_id="s", status=VerdictStatus.OK, criteria=None, reward=0.5)
    with pytest.raises(UnknownCriterionError, match="same criteria for all stories"):
        equalised_rewards([verdict((1.0, 1.0, 1.0)), bare], {})
    with pytest.raises(UnknownCriterionError, match="names grammar"):
        equalised_rewards([verdict((1.0, 1.0, 1.0))], {"grammar": 1.0})
    assert equalised_rewards([FAILED], {}) == [None]
