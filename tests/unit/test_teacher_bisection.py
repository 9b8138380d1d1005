"""Judges that break, are away or answer nonsense, behind the batcher."""

import asyncio
import math
from collections.abc import Sequence

import pytest

from fabula_proto import Story, Verdict, VerdictStatus
from services.teacher.batcher import BatchLimits
from services.teacher.batcher.bisection import judge_or_bisect
from services.teacher.judges.base import Asked, JudgeUnavailableError
from tests.batcher_helpers import SteppedJudge, Witness, asked, batching, ids_of, verdicts_of


@pytest.mark.parametrize("mischief", ["BREAK", "SHORT"])
def test_stories_that_break_the_judge_fail_alone(mischief: str) -> None:
    with batching(judge := SteppedJudge(), BatchLimits(1000, 64, 10_000), busy=1) as batcher:
        stories = asked("s", *([5] * 40))
        bad = {3, 4, 31}
        for i in bad:
            stories[i] = Asked(Story(id=f"s{i}", text=mischief), 5)
        ticket, other = batcher.submit(stories), batcher.submit(asked("other", 5))
        judge.run_freely()
        verdicts = verdicts_of(ticket)
        assert ids_of(other) == ["other0"]
    assert [v.story_id for v in verdicts] == [f"s{i}" for i in range(40)]
    assert {i for i, v in enumerate(verdicts) if v.status is VerdictStatus.FAILED} == bad
    assert all("the judge broke on this story: ValueError" in (verdicts[i].reason or "") for i in bad)
    assert {v.status for i, v in enumerate(verdicts) if i not in bad} == {VerdictStatus.OK}
    assert len(judge.calls) <= 1 + 1 + 2 * len(bad) * math.ceil(math.log2(41))


def test_a_judge_that_answers_out_of_order_is_asked_story_by_story() -> None:
    judge = SteppedJudge(free=True)
    stories = asked("s", 5, 5, 5, text="SWAP")
    assert [v.story_id for v in judge_or_bisect(judge, stories)] == ["s0", "s1", "s2"]
    assert judge.calls == [["s0", "s1", "s2"], ["s0"], ["s1", "s2"], ["s1"], ["s2"]]


@pytest.mark.parametrize("error", [MemoryError, asyncio.CancelledError])
def test_an_unforeseen_error_of_the_judge_fails_its_tickets_and_the_next_are_judged(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    class Unforeseen(SteppedJudge):
        def answer(self, asked: Sequence[Asked]) -> list[Verdict]:
            if asked[0].story.text == "EXIT":
                raise error("nobody foresaw this")
            return super().answer(asked)

    with batching(judge := Unforeseen(), busy=1) as batcher:
        bad = batcher.submit(asked("bad", 5, text="EXIT"))
        judge.go_on(2)
        with pytest.raises(JudgeUnavailableError, match=f"{error.__name__}: nobody foresaw this"):
            verdicts_of(bad)
        judge.run_freely()
        assert ids_of(batcher.submit(asked("next", 5))) == ["next0"]
    assert any(record.exc_info and record.exc_info[0] is error for record in caplog.records)


def test_an_absent_judge_fails_the_tickets_of_the_batch_with_all_their_stories() -> None:
    witness = Witness()
    with batching(judge := SteppedJudge(), BatchLimits(1000, 2, 100), witness, busy=1) as batcher:
        stories = asked("away", 5, 5, 5, 5, text="AWAY")
        away, beside = batcher.submit(stories), batcher.submit(asked("beside", 5, 5))
        judge.go_on(2)
        for ticket in (away, beside):
            with pytest.raises(JudgeUnavailableError, match="wake it up"):
                verdicts_of(ticket)
        assert judge.calls == [["busy0"], ["away0", "beside0"]]
        assert witness.last_queued == 0
        other = batcher.submit(asked("other", 5))
        judge.run_freely()
        assert ids_of(other) == ["other0"]


def test_a_ticket_that_fails_in_two_lanes_leaves_both_at_work() -> None:
    with batching(judge := SteppedJudge(lanes=2)) as batcher:
        away = batcher.submit(asked("away", 5, 5, text="AWAY"))
        assert {*judge.batch(), *judge.batch()} == {"away0", "away1"}
        judge.go_on(2)
        with pytest.raises(JudgeUnavailableError, match="wake it up"):
            verdicts_of(away)
        batcher.submit(asked("first", 5))
        assert judge.batch() == ["first0"]
        batcher.submit(asked("second", 5))
        assert judge.batch() == ["second0"]
