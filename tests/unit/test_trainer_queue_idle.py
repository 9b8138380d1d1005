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


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=8))
def test_it_is_the_span_minus_the_union(chunks: list[tuple[int, int]]) -> None:
    idle = TeacherIdle()
    for number, (sent, took) in enumerate(sorted(chunks)):
        idle.sent(key(0, number), sent)
        idle.answered(key(0, number), sent + took)
    busy = {t for sent, took in chunks for t in range(sent, sent + took)}
    span = range(min(sent for sent, _ in chunks), max(sent + took for sent, took in chunks))
    assert idle.take([key(0, number) for number in range(len(chunks))]) == (len(span) - len(busy)) / 1000
