"""Equipercentile linking: known maps are found, scales are kept, and what cannot be linked is refused."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from fabula_proto import TeacherIdentity
from services.teacher.calibration.linking import (
    MIN_STORIES,
    Knots,
    LinkingError,
    apply_knots,
    equipercentile,
    held_out,
    scale_error,
)
from services.teacher.calibration.reward_map import RewardMap
from services.teacher.calibration.statistics import FloatArray

ANYBODY = TeacherIdentity(
    backend="rules", model="any", revision="1", rubric="paper", rubric_version="1", rubric_hash="0", mode="rules"
)
ninths = st.integers(0, 9).map(lambda i: i / 9)
# A busy machine draws slowly; that says nothing of the maps.
unhurried = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
rewards = st.lists(st.tuples(ninths | st.floats(0, 1), ninths | st.floats(0, 1)), min_size=MIN_STORIES, max_size=80)


def as_map(knots: Knots) -> RewardMap:
    return RewardMap(from_teacher=ANYBODY, to_teacher=ANYBODY, knots=knots, stories=1, created_by="a test")


def noisy_teachers(n: int = 2000, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Two teachers who agree in part: B is higher and tells stories apart less."""
    rng = np.random.default_rng(seed)
    quality, a_N, b_N = rng.normal(size=(3, n))
    a = 1 / (1 + np.exp(-(quality + a_N)))
    b = 0.5 + 0.4 / (1 + np.exp(-(quality + b_N)))
    return a, b


@pytest.mark.parametrize("curve", [math.sqrt, lambda x: x**3, lambda x: 0.2 + 0.3 * x])
def test_a_known_map_is_found(curve: Callable[[float], float]) -> None:
    a = np.random.default_rng(0).uniform(size=4000)
    b = np.array([curve(x) for x in a])
    mapped = apply_knots(equipercentile(a, b), b)
    assert scale_error(a, mapped).rmse < 0.02
    assert scale_error(a, b).rmse > 0.1


@unhurried
@given(rewards)
def test_whatever_is_fitted_is_a_reward_map(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    try:
        knots = equipercentile(a, b)
    except LinkingError:
        assert len(set(a)) == 1 or len(set(b)) == 1 or max(map(a.count, a)) > 25 or max(map(b.count, b)) > 25
        return
    reward_map = as_map(knots)
    assert reward_map.apply(0.0) == 0.0
    assert [reward_map.apply(y) for y in b] == pytest.approx(apply_knots(knots, b).tolist())


@unhurried
@given(rewards)
def test_a_teacher_is_linked_to_itself_by_the_identity(pairs: list[tuple[float, float]]) -> None:
    a = [x for x, _ in pairs]
    if len(set(a)) > 1:
        # Up to six decimals: knots are rounded in the file.
        assert all(x == pytest.approx(y, abs=2e-6) for x, y in equipercentile(a, a))


def test_the_scale_is_kept_where_regression_shrinks_it() -> None:
    a, b = noisy_teachers()
    fresh_a, fresh_b = noisy_teachers(seed=1)
    linked = scale_error(fresh_a, apply_knots(equipercentile(a, b), fresh_b))
    order = np.argsort(b)
    predicted = np.interp(fresh_b, b[order], isotonic_regression(a[order]).x)
    regressed = scale_error(fresh_a, predicted)
    assert linked.spread == pytest.approx(1.0, abs=0.05)
    assert regressed.spread is not None
    assert regressed.spread < 0.65
    assert linked.distance < 0.02 < 0.05 < regressed.distance
    assert regressed.rmse < linked.rmse  # the price of the scale


def test_ties_count_half() -> None:
    """A has three levels, B the same stories on levels of its own: each of B's becomes the one of A's."""
    level = np.repeat([0, 1, 2], [40, 30, 30])
    a, b = np.array([0.1, 0.5, 0.8])[level], np.array([0.3, 0.4, 0.9])[level]
    assert [as_map(equipercentile(a, b)).apply(x) for x in (0.3, 0.4, 0.9)] == pytest.approx([0.1, 0.5, 0.8], abs=0.01)


def test_a_tie_is_sent_to_the_middle_of_what_it_covers() -> None:
    a = np.linspace(0, 1, 1001)
    b = np.where(a < 0.5, 0.2, 0.8)
    assert [as_map(equipercentile(a, b)).apply(x) for x in (0.2, 0.8)] == pytest.approx([0.25, 0.75], abs=0.01)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0.5] * 49, [0.5] * 49, "49 stories were judged by both; a map needs at least 50"),
        ([0.5] * 60, [i / 60 for i in range(60)], "A gives most stories the same reward"),
        ([i / 60 for i in range(60)], [0.5] * 60, "B gives most stories the same reward"),
    ],
)
def test_what_cannot_be_linked_is_said(a: Sequence[float], b: Sequence[float], message: str) -> None:
    with pytest.raises(LinkingError, match=message):
        equipercentile(a, b)


def test_held_out_rewards_do_not_know_their_own_group() -> None:
    a, b = noisy_teachers(300)
    groups = [i // 10 for i in range(300)]
    before = held_out(a, b, groups)
    a[:10] = 1.0  # the first group's own answers
    after = held_out(a, b, groups)
    assert (after[:10] == before[:10]).all()
    assert (after[10:] != before[10:]).any()


def test_scale_errors_are_what_they_say() -> None:
    error = scale_error([0.0, 0.5, 1.0], [1.0, 0.5, 0.0])
    assert (error.bias, error.spread, error.distance) == pytest.approx((0.0, 1.0, 0.0))
    assert error.rmse == pytest.approx(math.sqrt(2 / 3))
    shifted = scale_error([0.0, 0.2], [0.5, 0.9])
    assert (shifted.bias, shifted.spread, shifted.distance) == pytest.approx((0.6, 2.0, 0.6))
    assert scale_error([0.5, 0.5], [0.0, 1.0]).spread is None
