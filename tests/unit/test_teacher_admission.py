"""Who gets into the batcher, who waits, and who is turned away."""

import math
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from services.teacher.batcher import Batcher, BatchLimits, BusyError
from services.teacher.batcher.room import Rate, Request, Room
from services.teacher.judges.base import Asked, JudgeUnavailableError
from tests.batcher_helpers import PATIENCE_S, SteppedJudge, Witness, asked, batching, ids_of, refused, verdicts_of


def until_ahead(batcher: Batcher, tokens: int, request: Sequence[Asked]) -> None:
    """Wait until so many tokens are ahead of a request that is turned away all the while."""
    for _ in range(3000):
        if refused(batcher, request).queued_tokens == tokens:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"never {tokens} tokens ahead")


def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    witness = Witness()
    with batching(judge := SteppedJudge(), BatchLimits(1000, 8, 10), witness, busy=1) as batcher:
        batcher.submit(asked("a", 6))
        error = refused(batcher, asked("b", 1, 1, 1, 1, 1))
        assert (error.queued_tokens, error.retry_after_s) == (6, 5)  # no batch is done yet
        assert "6 tokens wait, 10 may, and this request has 5" in str(error)
        fits = batcher.submit(asked("c", 1, 1, 1, 1))
        judge.run_freely()
        assert len(ids_of(fits)) == 4
    assert witness.most_queued == 10
    assert witness.away == 1
    assert sorted(chain(*judge.calls)) == ["a0", "busy0", "c0", "c1", "c2", "c3"]


def test_a_request_beyond_all_room_is_admitted_when_nothing_waits() -> None:
    with batching(judge := SteppedJudge(), BatchLimits(1000, 8, 10), busy=1) as batcher:
        big = batcher.submit(asked("big", 50, 50))
        refused(batcher, asked("big", 50, 50))
        judge.run_freely()
        assert len(ids_of(big)) == 2


def test_no_story_is_a_finished_ticket() -> None:
    with batching(judge := SteppedJudge(free=True)) as batcher:
        assert verdicts_of(batcher.submit([])) == []
    assert judge.calls == []


def test_retry_after_is_what_waits_over_the_measured_rate() -> None:
    witness = Witness()
    with batching(judge := SteppedJudge(), BatchLimits(1000, 8, 10**6), witness) as batcher:
        first = batcher.submit(asked("first", 20))
        judge.go_on()
        ids_of(first)
        batcher.submit(asked("running", 1))
        assert [judge.batch(), judge.batch()] == [["first0"], ["running0"]]
        batcher.submit(asked("waiting", 10**6 - 1))
        error = refused(batcher, asked("late", 2))
        ((_, _, seconds),) = witness.batches
        assert error.retry_after_s == max(1, min(600, math.ceil((10**6 - 1) * seconds / 20)))
        assert f"try again in {error.retry_after_s} s" in str(error)


def test_the_rate_is_that_of_all_lanes_over_the_recent_batches() -> None:
    rate = Rate(lanes=2)
    assert rate.retry_after_s(10**6) == 5
    rate.add(100, 10.0)  # long ago
    for _ in range(32):
        rate.add(100, 1.0)
    assert rate.retry_after_s(1000) == 5  # 2 lanes of 100 tokens a second
    assert rate.retry_after_s(1001) == 6
    assert rate.retry_after_s(0) == 1


def test_patient_requests_wait_for_room_in_order() -> None:
    with ThreadPoolExecutor(2) as pool, batching(judge := SteppedJudge(), BatchLimits(1000, 1, 10), busy=1) as batcher:
        batcher.submit(asked("a", 7))
        first = pool.submit(batcher.submit, asked("first", 4), patient=True)
        until_ahead(batcher, 11, asked("http", 4))
        second = pool.submit(batcher.submit, asked("second", 1), patient=True)  # it would fit: 7 of 10 tokens wait
        refused(batcher, asked("http", 1))
        assert not first.done()
        assert not second.done()
        judge.run_freely()
        assert ids_of(first.result(PATIENCE_S)) == ["first0"]
        assert ids_of(second.result(PATIENCE_S)) == ["second0"]
    assert judge.calls == [["busy0"], ["a0"], ["first0"], ["second0"]]


def test_the_stop_event_and_the_end_of_the_batcher_end_a_wait_for_room() -> None:
    with ThreadPoolExecutor(3) as pool, batching(SteppedJudge(), BatchLimits(1000, 8, 10), busy=1) as batcher:
        batcher.submit(asked("a", 10))
        stop = threading.Event()
        stopped = pool.submit(batcher.submit, asked("b", 5), patient=True, stop=stop)
        until_ahead(batcher, 15, asked("http", 1))
        stop.set()
        with pytest.raises(JudgeUnavailableError, match="the wait for room at the teacher was ended"):
            stopped.result(PATIENCE_S)
        left = pool.submit(batcher.submit, asked("c", 4), patient=True)
        until_ahead(batcher, 14, asked("http", 1))
        closing = pool.submit(batcher.close)
        with pytest.raises(JudgeUnavailableError, match="shutting down"):
            left.result(PATIENCE_S)
        assert not closing.done()  # a batch is still being judged


def test_neither_kind_of_request_shuts_out_the_other() -> None:
    room = Room(100)
    http, queue_, next_ = Request(30, patient=False), Request(50, patient=True), Request(20, patient=True)
    room.count(http, 60)
    room.line.append(queue_)
    assert not room.has(queue_)
    assert not room.has(http), "room for a patient request is kept"
    room.count(http, -10)
    assert room.has(queue_)
    room.line.popleft()
    room.count(queue_, 50)
    room.line.append(next_)
    room.count(http, -30)
    assert not room.has(next_), "patient requests have their half already"
    assert room.has(http)
    room.count(queue_, -20)
    assert room.has(next_)


def test_tokens_never_go_over_the_limit_and_no_story_is_lost_under_16_threads() -> None:
    limits = BatchLimits(batch_tokens=200, batch_stories=8, queued_tokens=300)
    witness, judge, lost = Witness(), SteppedJudge(lanes=3, free=True), list[str]()

    def client(number: int) -> tuple[int, int]:
        rng = random.Random(number)
        answered = refusals = 0
        for turn in range(25):
            stories = asked(f"{number}.{turn}.", *(rng.randint(1, 40) for _ in range(rng.randint(1, 6))))
            try:
                ticket = batcher.submit(stories, patient=number % 4 == 0)
            except BusyError:
                refusals += 1
                continue
            if turn % 5 == 4:
                ticket.cancel()
            else:
                lost.extend({item.story.id for item in stories} ^ set(ids_of(ticket)))
                answered += ids_of(ticket) == [item.story.id for item in stories]
        return answered, refusals

    with ThreadPoolExecutor(16) as pool, batching(judge, limits, witness) as batcher:
        results = list(pool.map(client, range(16)))
    assert not lost
    assert witness.most_queued <= limits.queued_tokens
    assert witness.last_queued == 0
    assert witness.away == sum(refusals for _, refusals in results)
    assert all(answered == 20 for answered, _ in results[::4])  # the patient ones
    assert sum(answered for answered, _ in results) <= len(witness.tickets)
    assert judge.most_at_once <= 3
