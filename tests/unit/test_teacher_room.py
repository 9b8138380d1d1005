"""The room where HTTP and the queue share one judge."""

import asyncio
import threading

import pytest

from fabula_proto import Story, Verdict, VerdictStatus
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.room import JudgeRoom
from tests.teacher_helpers import WordJudge

TALE = "Once upon a time, a fox lost his lantern."


def stories(name: str, count: int, text: str = TALE) -> list[Story]:
    return [Story(id=f"{name}{i}", text=text) for i in range(count)]


async def until_entered(judge: WordJudge) -> None:
    assert await asyncio.to_thread(judge.entered.wait, 30)


def test_a_small_request_waits_for_one_slice_of_a_big_one() -> None:
    async def both() -> None:
        big = asyncio.create_task(room.judge_async(stories("big", 6)))
        await until_entered(judge)
        small = asyncio.create_task(room.judge_async(stories("small", 1)))
        await asyncio.sleep(0)  # the small one hands in its slice
        judge.gate.set()
        assert [v.story_id for v in await big] == [f"big{i}" for i in range(6)]
        assert [v.story_id for v in await small] == ["small0"]

    judge, room = gated_room()
    asyncio.run(both())
    assert judge.calls[:3] == [["big0"], ["small0"], ["big1"]]
    room.close()


def test_a_batch_of_the_queue_lets_http_in_after_a_slice() -> None:
    answers: list[Verdict] = []
    judge, room = gated_room()
    queue = threading.Thread(target=lambda: answers.extend(room.judge(stories("queue", 6))))
    queue.start()

    async def http() -> None:
        await until_entered(judge)
        asked = asyncio.create_task(room.judge_async(stories("http", 1)))
        await asyncio.sleep(0)
        judge.gate.set()
        await asked

    asyncio.run(http())
    queue.join(30)
    assert judge.calls[:2] == [["queue0"], ["http0"]]
    assert [v.story_id for v in answers] == [f"queue{i}" for i in range(6)]
    room.close()


def test_a_caller_that_goes_away_has_no_further_slice_judged() -> None:
    async def leave() -> None:
        asked = asyncio.create_task(room.judge_async(stories("gone", 6)))
        await until_entered(judge)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        judge.gate.set()

    judge, room = gated_room()
    asyncio.run(leave())
    room.close()
    assert judge.calls == [["gone0"]]


def test_a_broken_story_is_found_by_halving() -> None:
    judge = WordJudge()
    room = JudgeRoom(judge, slice_stories=32)
    asked = stories("a", 9)
    asked[5] = Story(id="bad", text="BREAK")
    verdicts = room.judge(asked)
    assert [v.status for v in verdicts].count(VerdictStatus.FAILED) == 1
    assert verdicts[5].status is VerdictStatus.FAILED
    assert [v.story_id for v in verdicts] == [s.id for s in asked]
    with pytest.raises(JudgeUnavailableError):
        room.judge(stories("b", 3, "AWAY"))
    room.close()


def gated_room() -> tuple[WordJudge, JudgeRoom]:
    judge = WordJudge()
    judge.gate.clear()
    return judge, JudgeRoom(judge, slice_stories=1)
