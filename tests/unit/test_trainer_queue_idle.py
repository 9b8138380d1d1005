"""How long the teacher had nothing of a run to judge, against the union of intervals by hand."""

from hypothesis import given
from hypothesis import strategies as st

from services.student_trainer.story_queue import Key, TeacherIdle


def key(step: int, chunk: int) -> Key:
    return (step, chunk, "digest")


def test_gaps_are_what_no_chunk_covers() -> None:
    idle = TeacherIdle()
    idle.sent(key(0, 0), 1000)
    idle.sent(key(0, 1), 1500)
    idle.answered(key(0, 0), 1400)
    idle.answered(key(0, 1), 2000)
    assert idle.take([key(0, 0), key(0, 1)]) == 0.1  # 1400..1500
    idle.sent(key(1, 0), 5000)
    idle.answered(key(1, 0), 5200)
    assert idle.take([key(1, 0)]) == 3.0  # 2000..5000: the student learned and wrote


def test_a_chunk_of_a_later_step_keeps_the_teacher_at_work() -> None:
    idle = TeacherIdle()
    idle.sent(key(0, 0), 0)
    idle.sent(key(1, 0), 100)
    idle.answered(key(0, 0), 200)
    assert idle.take([key(0, 0)]) == 0.0
    idle.answered(key(1, 0), 400)
    assert idle.take([key(1, 0)]) == 0.0


def test_what_was_judged_before_this_process_began_counts_for_nothing() -> None:
    idle = TeacherIdle()
    idle.answered(key(0, 0), 500)
    assert idle.take([key(0, 0)]) == 0.0


def test_a_pause_is_no_waiting() -> None:
    idle = TeacherIdle()
    idle.sent(key(0, 0), 1000)
    idle.answered(key(0, 0), 1500)
    assert idle.take([key(0, 0)]) == 0.0
    idle.paused(1700, 9000)
    idle.sent(key(1, 0), 9100)
    idle.answered(key(1, 0), 9300)
    assert idle.take([key(1, 0)]) == 0.3  # 1500..1700 and 9000..9100
    idle.sent(key(2, 0), 9400)
    idle.answered(key(2, 0), 9500)
    assert idle.take([key(2, 0)]) == 0.1


def test_a_pause_after_the_step_that_is_taken_counts_later() -> None:
    """At lag 1 the answers of the step that is learned from next may have come before the pause."""
    idle = TeacherIdle()
    idle.sent(key(0, 0), 0)
    idle.answered(key(0, 0), 100)
    idle.paused(150, 950)
    idle.sent(key(1, 0), 1000)
    assert idle.take([key(0, 0)]) == 0.0
    idle.answered(key(1, 0), 1100)
    assert idle.take([key(1, 0)]) == 0.1  # 100..150 and 950..1000


intervals = st.tuples(st.integers(0, 50), st.integers(0, 20))


@given(st.lists(intervals, min_size=1, max_size=8), st.lists(intervals, max_size=3))
def test_it_is_the_span_minus_the_union(chunks: list[tuple[int, int]], pauses: list[tuple[int, int]]) -> None:
    idle = TeacherIdle()
    for since, took in pauses:
        idle.paused(since, since + took)
    for number, (sent, took) in enumerate(sorted(chunks)):
        idle.sent(key(0, number), sent)
        idle.answered(key(0, number), sent + took)
    busy = {t for sent, took in chunks + pauses for t in range(sent, sent + took)}
    span = range(min(sent for sent, _ in chunks), max(sent + took for sent, took in chunks))
    assert idle.take([key(0, number) for number in range(len(chunks))]) == len(set(span) - busy) / 1000
