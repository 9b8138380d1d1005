"""The batcher under threads: batches, clients that leave, and the drain.

Whose turn it is: test_teacher_turns.py. Who is admitted: test_teacher_admission.py. Judges that break:
test_teacher_bisection.py.
"""

import asyncio
import random
import threading
from concurrent.futures import CancelledError

import pytest

from services.teacher.batcher import Batcher, BatchLimits, Ticket
from services.teacher.judges.base import JudgeUnavailableError
from tests.batcher_helpers import (
    PATIENCE_S,
    ROOMY,
    SteppedJudge,
    Witness,
    asked,
    batching,
    ids_of,
    refused,
)

# -- batches


def test_batches_keep_to_the_budget_and_answers_to_the_order_of_the_request() -> None:
    rng = random.Random(3)
    lengths = [1500 if i % 9 == 5 else rng.randint(1, 300) for i in range(100)]
    witness = Witness()
    with batching(judge := SteppedJudge(free=True), witness=witness) as batcher:
        ticket = batcher.submit(asked("s", *lengths))
        assert ids_of(ticket) == [f"s{i}" for i in range(100)]
    for batch in judge.lengths:
        assert len(batch) <= ROOMY.batch_stories
        assert len(batch) * max(batch) <= ROOMY.batch_tokens or len(batch) == 1
    assert [batch for batch in judge.lengths if 1500 in batch] == [[1500]] * lengths.count(1500)
    assert [(n, tokens) for n, tokens, _ in witness.batches] == [(len(b), len(b) * max(b)) for b in judge.lengths]
    assert witness.last_queued == 0


def test_one_story_over_http_is_in_the_next_batch_before_360_of_the_queue() -> None:
    with batching(judge := SteppedJudge(), BatchLimits(8192, 64, 100_000)) as batcher:
        of_the_queue = batcher.submit(asked("queue", *([90] * 360)), patient=True)
        judge.batch()
        http = batcher.submit(asked("http", 40))
        judge.go_on()
        assert "http0" in judge.batch()
        judge.go_on()
        assert ids_of(http) == ["http0"]
        assert not of_the_queue.future.done()
        judge.run_freely()
        assert len(ids_of(of_the_queue)) == 360


def test_the_queue_is_served_however_many_stories_come_over_http() -> None:
    """Before each batch come more stories over HTTP than a batch can hold."""
    with batching(judge := SteppedJudge(), BatchLimits(1000, 2, 100_000), busy=1) as batcher:
        of_the_queue = batcher.submit(asked("queue", 10, 10, 10), patient=True)
        batches = 0
        while not of_the_queue.future.done():
            for _ in range(3):
                batcher.submit(asked("http", 10))
            judge.go_on()
            judge.batch()
            batches += 1
            assert batches < 30, "the queue is starved"
        assert ids_of(of_the_queue) == ["queue0", "queue1", "queue2"]


def test_a_small_request_waits_for_one_batch_of_a_big_one() -> None:
    with batching(judge := SteppedJudge(), BatchLimits(1000, 1, 100_000)) as batcher:
        big = batcher.submit(asked("big", 5, 5, 5))
        judge.batch()
        small = batcher.submit(asked("small", 5))
        judge.run_freely()
        assert ids_of(big) == ["big0", "big1", "big2"]
        assert ids_of(small) == ["small0"]
    assert judge.calls == [["big0"], ["small0"], ["big1"], ["big2"]]


def test_lanes_share_what_waits_and_are_never_more_than_the_judge_has() -> None:
    with batching(judge := SteppedJudge(lanes=3), busy=3) as batcher:
        ticket = batcher.submit(asked("s", *([5] * 9)))
        assert len(judge.calls) == 3  # of one story each; all lanes are busy
        judge.go_on(3)
        judge.run_freely()
        assert ids_of(ticket) == [f"s{i}" for i in range(9)]
    assert judge.most_at_once == 3
    assert len(judge.threads) == 3


def test_free_lanes_take_even_shares() -> None:
    with batching(judge := SteppedJudge(lanes=2)) as batcher:
        batcher.submit(asked("s", *([5] * 8)))
        assert sorted(judge.batch() + judge.batch()) == [f"s{i}" for i in range(8)]
        assert [len(call) for call in judge.calls] == [4, 4]


def test_the_times_of_a_ticket_are_those_of_its_batches() -> None:
    witness = Witness()
    with batching(judge := SteppedJudge(free=True), BatchLimits(1000, 2, 1000), witness) as batcher:
        ticket = batcher.submit(asked("s", *([5] * 5)))
        assert len(ids_of(ticket)) == 5
    assert len(judge.calls) == 3
    assert ticket.inference_s == pytest.approx(sum(seconds for _, _, seconds in witness.batches))
    # The last batch began when the others were done.
    assert ticket.queue_s >= sum(seconds for _, _, seconds in witness.batches[:2])
    assert witness.tickets == [(ticket.queue_s, ticket.inference_s)]


# -- clients that leave


def test_a_cancelled_request_frees_its_room_and_is_not_judged() -> None:
    witness = Witness()
    with batching(judge := SteppedJudge(), BatchLimits(1000, 8, 10), witness, busy=1) as batcher:
        gone = batcher.submit(asked("gone", 5, 5))
        refused(batcher, asked("b", 4))
        gone.cancel()
        gone.cancel()
        assert witness.last_queued == 0
        with pytest.raises(CancelledError):
            gone.future.result(PATIENCE_S)
        other = batcher.submit(asked("b", 4))
        judge.run_freely()
        assert ids_of(other) == ["b0"]
    assert judge.calls == [["busy0"], ["b0"]]


def test_an_asyncio_caller_that_goes_away_has_no_further_story_judged() -> None:
    async def leave(ticket: Ticket) -> None:
        asking = asyncio.ensure_future(asyncio.wrap_future(ticket.future))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    witness = Witness()
    with batching(judge := SteppedJudge(), BatchLimits(1000, 1, 100), witness) as batcher:
        gone = batcher.submit(asked("gone", 5, 5, 5))
        assert judge.batch() == ["gone0"]
        asyncio.run(leave(gone))
        assert gone.future.cancelled()
        judge.run_freely()
        other = batcher.submit(asked("other", 5))
        assert ids_of(other) == ["other0"]
    assert judge.calls == [["gone0"], ["other0"]]
    assert len(witness.tickets) == 1


def test_cancelling_a_request_whose_batch_runs_or_is_done_disturbs_nobody() -> None:
    witness = Witness()
    with batching(judge := SteppedJudge(), witness=witness, busy=1) as batcher:
        gone, stays = batcher.submit(asked("gone", 5)), batcher.submit(asked("stays", 5))
        judge.go_on()
        assert judge.batch() == ["gone0", "stays0"]
        gone.cancel()
        judge.go_on()
        assert ids_of(stays) == ["stays0"]
        stays.cancel()
        assert ids_of(stays) == ["stays0"]
        assert gone.future.cancelled()
    assert len(witness.tickets) == 2  # that of busy0 and the one that stayed


# -- the end


def test_close_finishes_what_is_admitted_and_ends_the_threads() -> None:
    with batching(judge := SteppedJudge(), BatchLimits(1000, 2, 100), busy=1) as batcher:
        tickets = [batcher.submit(asked(name, 5, 5, 5)) for name in "abc"]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        assert closing.is_alive()
        judge.run_freely()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
        assert [ids_of(ticket) for ticket in tickets] == [[f"{name}{i}" for i in range(3)] for name in "abc"]
        assert not any(thread.is_alive() for thread in judge.threads)
        for stories in (asked("late", 5), []):
            with pytest.raises(JudgeUnavailableError, match="shutting down"):
                batcher.submit(stories)


def test_a_batcher_that_was_never_asked_has_no_thread_and_closes() -> None:
    before = set(threading.enumerate())
    batcher = Batcher(SteppedJudge(), ROOMY)
    assert set(threading.enumerate()) == before
    batcher.close()
    batcher.close()
