"""The model of docs/scaling.md: by hand, and within the bounds that any schedule has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scaling_model import Setup, update

SECONDS = st.floats(0.001, 2.0)


def test_by_hand() -> None:
    # 4 chunks of 10: written at 10, 20, 30, 40 s; a teacher takes 15 s each and is done at 25, 40, 55, 70.
    one = update(Setup(write_s=1.0, learn_s=0.5, judge_s=1.5, stories=40, chunk=10))
    assert (one.write_s, one.wait_s, one.learn_s) == (40.0, 30.0, 20.0)
    # Two take turns: 25, 35, 45, 55.
    assert update(Setup(1.0, 0.5, 1.5, teachers=2, stories=40, chunk=10)).wait_s == 15.0
    # With lag 1 the teacher's 60 s are those of writing and learning.
    assert update(Setup(1.0, 0.5, 1.5, lag=1, stories=40, chunk=10)).total_s == 60.0
    assert update(Setup(1.0, 0.5, 2.0, lag=1, stories=40, chunk=10)).total_s == 80.0
    # Two ranks write two chunks at a time and share the learning.
    both = update(Setup(1.0, 0.5, 0.1, teachers=2, ranks=2, stories=40, chunk=10))
    assert (both.write_s, both.wait_s, both.learn_s) == (20.0, 1.0, 10.0)


@given(write=SECONDS, learn=SECONDS, judge=SECONDS, teachers=st.integers(1, 9), lag=st.integers(0, 2))
def test_bounds(write: float, learn: float, judge: float, teachers: int, lag: int) -> None:
    setup = Setup(write, learn, judge, teachers, 1, lag, stories=60, chunk=10)
    found, more = update(setup), update(Setup(write, learn, judge, teachers + 1, 1, lag, stories=60, chunk=10))
    own, judged = 60 * (write + learn), 60 * judge / teachers
    assert more.total_s <= found.total_s + 1e-9
    assert found.total_s >= max(own, judged) - 1e-9
    if lag == 0:
        assert found.wait_s >= 10 * judge - 1e-9  # the last chunk's verdicts, always
        assert found.total_s <= own + 60 * judge + 1e-9
        assert update(Setup(write, learn, judge, teachers, 1, 1, stories=60, chunk=10)).total_s <= found.total_s + 1e-9


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk must divide stories"):
        update(Setup(1.0, 1.0, 1.0, stories=40, chunk=9))
