"""What guards measure of a batch, and how they compare two teachers: by hand, and against other formulas."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fabula_proto import HeldOutCheck, ScoredBatch, TeacherIdentity, Verdict, VerdictStatus
from services.student_trainer.guards.canaries import drift, load_canaries
from services.student_trainer.guards.held_out import compare, parting, sample
from services.student_trainer.guards.measures import Line, distinct_share, line, repetition
from services.teacher.rubric import load_rubric

RUBRIC = load_rubric()
RULES = TeacherIdentity(
    backend="rules", model="paper", revision="1", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="rules"
)
rewards = st.floats(0.0, 1.0)
texts = st.lists(st.text("ab ", max_size=20), min_size=1, max_size=6)


def verdict(story_id: str, reward: float | None) -> Verdict:
    """The paper's rubric with this reward; none: a failed one."""
    if reward is None:
        return Verdict(story_id=story_id, status=VerdictStatus.FAILED, reason=f"{story_id} failed")
    return RUBRIC.verdict(story_id, {c.name: [1 - reward, 0, 0, reward] for c in RUBRIC.criteria})


def answer(*verdicts: Verdict) -> ScoredBatch:
    return ScoredBatch(run="r", step=0, chunk=0, digest="d", verdicts=verdicts, teacher=RULES, worker="w", seconds=0.0)


def check(training: list[float], held_out: list[float]) -> HeldOutCheck:
    mine = [verdict(str(i), reward) for i, reward in enumerate(training)]
    return compare(mine, answer(*(verdict(str(i), reward) for i, reward in enumerate(held_out))))


def test_repetition_and_distinct_bigrams_by_hand() -> None:
    # Trigrams abc bca cab abc: one of four comes again. Bigrams of both: ab bc ca ab bc, ab: three of six are distinct.
    assert repetition(["a b c A b c", "a b"]) == pytest.approx((1 / 4 + 0) / 2)
    assert distinct_share(["a b c A b c", "a b"]) == pytest.approx(3 / 6)
    assert distinct_share(["", "one"]) == 1.0


@given(texts)
def test_shares_are_shares_and_know_no_order(stories: list[str]) -> None:
    for measure in (repetition, distinct_share):
        assert 0.0 <= measure(stories) <= 1.0
        assert measure(stories) == pytest.approx(measure(stories[::-1]))
    assert distinct_share(stories * 2) <= distinct_share(stories)


def test_a_line_by_hand() -> None:
    # Deviations -10 0 10 and -0.1 0.1 0: products 1, squares 200 and 0.02.
    found = line([10, 20, 30], [0.1, 0.3, 0.2])
    assert found.slope == pytest.approx(1 / 200)
    assert found.correlation == pytest.approx(1 / (200 * 0.02) ** 0.5)
    assert line([10, 20], [0.5, 0.5]) == Line(0.0, None)
    assert line([5, 5], [0.1, 0.9]) == line([], []) == Line(None, None)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 100)), min_size=3, max_size=30))
def test_a_line_is_the_least_squares_one(points: list[tuple[int, int]]) -> None:
    words, paid = [w for w, _ in points], [r / 100 for _, r in points]
    assume(len(set(words)) > 1)
    assume(len(set(paid)) > 1)
    found = line(words, paid)
    assert found.slope == pytest.approx(float(np.polyfit(words, paid, 1)[0]), abs=1e-9)
    assert found.correlation == pytest.approx(float(np.corrcoef(words, paid)[0, 1]), abs=1e-9)
    assert found.correlation is not None
    assert -1.0 <= found.correlation <= 1.0


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60))
def test_a_sample_is_a_function_of_seed_and_update(seed: int, step: int, batch: int, size: int) -> None:
    chosen = sample(seed, step, batch, size)
    assert chosen == sample(seed, step, batch, size) == sorted(set(chosen))
    assert len(chosen) == min(size, batch)
    assert set(chosen) <= set(range(batch))


def test_every_story_is_sampled_as_often() -> None:
    counts = Counter(i for step in range(2000) for i in sample(42, step, 24, 6))
    # Binomial, p = 1/4: 500 expected, standard deviation 19.4.
    assert all(abs(counts[i] - 500) < 5 * 19.4 for i in range(24))
    assert sample(1, 0, 1000, 10) != sample(2, 0, 1000, 10) != sample(2, 1, 1000, 10)


def test_only_stories_with_two_verdicts_are_compared() -> None:
    mine = [verdict("a", 0.9), verdict("b", None), verdict("c", 0.5), verdict("d", 0.3)]
    seen = compare(mine, answer(verdict("a", 0.5), verdict("b", 0.1), verdict("c", None), verdict("d", 0.1)))
    assert (seen.stories, seen.failed, seen.reason) == (2, 2, "b failed")
    assert seen.training_mean == pytest.approx(0.6)
    assert seen.held_out_mean == pytest.approx(0.3)
    assert seen.gap_mean == pytest.approx(0.3)
    assert seen.gap_variance == pytest.approx(0.02)  # of 0.4 and 0.2
    nothing = compare(mine[1:2], answer(verdict("b", 0.1)))
    assert (nothing.stories, nothing.training_mean, nothing.gap_mean) == (0, None, None)


def test_how_far_two_teachers_part_by_hand() -> None:
    checks = [
        check([0.2, 0.4], [0.2, 0.2]),  # gaps 0.0 and 0.2: mean 0.1, variance 0.02
        check([0.4, 0.6], [0.1, 0.1]),  # gaps 0.3 and 0.5: mean 0.4, variance 0.02
        check([0.6, 0.8], [0.3, 0.3]),  # gaps 0.3 and 0.5: mean 0.4, variance 0.02
    ]
    found = parting(checks, window=2)
    assert found is not None
    assert (found.training, found.held_out, found.gap) == pytest.approx((0.3, 0.0, 0.3))
    assert found.low == pytest.approx(0.3 - 1.96 * math.sqrt(0.02 / 2 + (0.02 / 2 + 0.02 / 2) / 4))
    assert parting(checks, window=3) is None


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(rewards, rewards), min_size=2, max_size=4), min_size=4, max_size=7))
def test_teachers_that_gain_alike_do_not_part(batches: list[list[tuple[float, float]]]) -> None:
    """Whatever the scores: a held-out teacher that is a constant stricter parts by nothing, and less than the gap."""
    same = [check([x for x, _ in pairs], [0.5 * x for x, _ in pairs]) for pairs in batches]
    strict = parting([check([0.5 + 0.5 * x for x, _ in p], [0.5 * x for x, _ in p]) for p in batches], 2)
    any_two = parting([check([x for x, _ in p], [y for _, y in p]) for p in batches], 2)
    half = parting(same, 2)
    assert strict is not None
    assert any_two is not None
    assert half is not None
    assert strict.gap == pytest.approx(0.0, abs=1e-9)
    assert strict.low <= 1e-9
    assert half.gap == pytest.approx(half.training / 2, abs=1e-9)
    assert any_two.low <= any_two.gap + 1e-12


def test_drift_is_over_canaries_that_have_both_rewards() -> None:
    assert drift({"a": 0.2, "b": 0.5, "c": None}, {"a": 0.3, "b": 0.2, "c": 0.9, "d": 0.1}) == pytest.approx(0.2)
    assert drift({"a": None}, {"a": 0.1}) is None


def test_the_canaries_are_unlike_each_other() -> None:
    canaries = load_canaries()
    assert len({story.id for story in canaries}) == len({story.text for story in canaries}) == len(canaries)
    by_id = {story.id: story.text for story in canaries}
    assert by_id["canary-empty"] == ""
    assert repetition([by_id["canary-repeated"]]) > 0.8
    assert len(by_id["canary-good"].split()) > 60
