"""Several teachers as one: the mean, the disagreement, and no number where one of them has none."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabula_proto import TeacherIdentity, Verdict, VerdictStatus
from services.teacher.ensemble import combine, ensemble_identity
from services.teacher.rubric import load_rubric

RUBRIC = load_rubric()
levels = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4)


def verdict(*rows: list[float], coverage: float = 1.0, flags: tuple[str, ...] = ()) -> Verdict:
    named = {c.name: row for c, row in zip(RUBRIC.criteria, rows, strict=True)}
    return RUBRIC.verdict("s", named, coverage=coverage, flags=flags)


def sure(*found: int) -> Verdict:
    return verdict(*[[float(level == i) for i in range(4)] for level in found])


def failed(status: VerdictStatus) -> Verdict:
    return Verdict(story_id="s", status=status, reason="no answer")


def identity(**changes: str) -> TeacherIdentity:
    values = {"backend": "b", "model": "m", "revision": "1", "rubric": "paper", "mode": "joint"}
    return TeacherIdentity(**{**values, "rubric_version": "1", "rubric_hash": "h", **changes})


def test_the_mean_of_two_by_hand() -> None:
    merged = combine({"a": sure(0, 1, 3), "b": sure(2, 1, 0)})
    assert merged.criteria is not None
    readability, coherence, creativity = merged.criteria.values()
    assert readability.probabilities == (0.5, 0.0, 0.5, 0.0)
    assert [s.mean for s in (readability, coherence, creativity)] == [1.0, 1.0, 1.5]
    assert [s.disagreement for s in (readability, coherence, creativity)] == [1.0, 0.0, 1.5]
    assert merged.total == 3.5
    assert merged.reward == pytest.approx(3.5 / 9)
    assert merged.members == {"a": 4.0, "b": 3.0}


@given(st.lists(st.tuples(levels, levels, levels), min_size=2, max_size=4))
def test_total_and_reward_are_those_of_the_mean_distribution(rows: list[tuple[list[float], ...]]) -> None:
    verdicts = {str(i): verdict(*row) for i, row in enumerate(rows)}
    merged = combine(verdicts)
    assert merged.criteria is not None
    assert merged.total == pytest.approx(RUBRIC.total(merged.criteria))
    assert merged.reward == pytest.approx(RUBRIC.reward(merged.criteria))
    assert merged.total == pytest.approx(fmean(v.total or 0.0 for v in verdicts.values()))


def test_coverage_is_the_least_and_flags_are_all() -> None:
    even = [0.25] * 4
    merged = combine(
        {
            "a": verdict(even, even, even, coverage=0.9, flags=("score_tail", "fence")),
            "b": verdict(even, even, even, coverage=0.6, flags=("fence",)),
        }
    )
    assert (merged.coverage, merged.flags) == (0.6, ("fence", "score_tail"))


@pytest.mark.parametrize("status", [VerdictStatus.FAILED, VerdictStatus.REFUSED])
def test_one_without_a_number_leaves_the_ensemble_without_one(status: VerdictStatus) -> None:
    merged = combine({"a": sure(1, 1, 1), "b": failed(status)})
    assert (merged.status, merged.reason, merged.total) == (status, "b: no answer", None)


def test_a_refusal_outranks_a_failure() -> None:
    merged = combine({"a": failed(VerdictStatus.FAILED), "b": failed(VerdictStatus.REFUSED)})
    assert (merged.status, merged.reason) == (VerdictStatus.REFUSED, "b: no answer")


def test_remembered_only_where_all_are() -> None:
    old = sure(1, 1, 1).model_copy(update={"cached": True})
    assert combine({"a": old, "b": old}).cached
    assert not combine({"a": old, "b": sure(1, 1, 1)}).cached


def test_the_identity_names_the_members_and_changes_with_any_of_them() -> None:
    one = ensemble_identity({"a": identity(), "b": identity(model="n")})
    other = ensemble_identity({"a": identity(), "b": identity(model="n", revision="2")})
    assert (one.backend, one.model, one.mode) == ("ensemble", "a+b", "ensemble")
    assert one.revision != other.revision


def test_two_rubrics_make_no_ensemble() -> None:
    with pytest.raises(ValueError, match=r"must share a rubric, found \{'a': 'h', 'b': 'other'\}"):
        ensemble_identity({"a": identity(), "b": identity(rubric_hash="other")})
