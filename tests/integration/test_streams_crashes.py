"""Consumers that die, servers that restart, senders that ask again: exactly one answer each time somebody asks."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import redis

from fabula_proto import STORIES_STREAM, TEACHERS_GROUP, ScoredBatch, StoryBatch
from fabula_proto.streams import START, Streams
from services.redis_server import LocalRedis, start_server
from tests.integration.streams_helpers import SCORES, all_done, answer, batch, collect, running, teacher, wait_until

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def worker_process(url: str, name: str, lease_s: float) -> Iterator[subprocess.Popen[str]]:
    """A consumer in a process of its own that has taken a message and works on it."""
    command = [sys.executable, "-m", "tests.integration.streams_worker", url, name, str(lease_s)]
    path = os.pathsep.join((str(ROOT), str(ROOT / "proto")))
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("took r1/0/0/")
            yield process
        finally:
            process.kill()


def test_a_killed_consumers_work_is_taken_over_and_answered_once(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        streams.publish(STORIES_STREAM, batch(0))
        with worker_process(redis_url, "doomed", lease_s=0.5) as process:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            with running(teacher(streams, "heir", lease_s=0.5)):
                [(entry_id, result)] = collect(streams, 1)
                wait_until(lambda: all_done(streams))
        assert result == answer(batch(0))
        assert streams.read(SCORES, entry_id, ScoredBatch) == []


def test_a_restarted_consumer_of_the_same_name_goes_on_without_waiting_for_its_lease(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        streams.publish(STORIES_STREAM, batch(0))
        with worker_process(redis_url, "t0", lease_s=3600) as process:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            with running(teacher(streams, "t0", lease_s=3600)):
                assert collect(streams, 1)[0][1].step == 0


def test_a_lease_is_renewed_while_the_work_lasts(redis_url: str) -> None:
    # The rival looks for expired leases all the while; four leases pass before the work is done.
    lease_s, worked = 0.3, threading.Event()
    calls: list[str] = []

    def slow(asked: StoryBatch) -> ScoredBatch:
        calls.append(threading.current_thread().name)
        worked.wait(4 * lease_s)
        return answer(asked)

    with (
        Streams(redis_url) as streams,
        running(teacher(streams, "slow", lease_s), slow),
        running(teacher(streams, "rival", lease_s), slow),
    ):
        streams.publish(STORIES_STREAM, batch(0))
        [(entry_id, _)] = collect(streams, 1)
        assert len(calls) == 1
        assert streams.read(SCORES, entry_id, ScoredBatch) == []


def test_of_two_that_hold_the_same_delivery_only_the_first_to_finish_answers(redis_url: str) -> None:
    first_has_it, second_done = threading.Event(), threading.Event()

    def suspended(asked: StoryBatch) -> ScoredBatch:
        first_has_it.set()
        assert second_done.wait(10)
        return answer(asked, worker="suspended")

    with Streams(redis_url) as streams:
        # Its lease is so long that it renews nothing: to the rest of the world it looks dead.
        with running(teacher(streams, "suspended", lease_s=3600), suspended):
            streams.publish(STORIES_STREAM, batch(0))
            assert first_has_it.wait(10)
            with running(teacher(streams, "other", lease_s=0.1), lambda asked: answer(asked, worker="other")):
                [(entry_id, result)] = collect(streams, 1)
                # The reader collects and trims; the late result must not come after it.
                streams.forget(SCORES, entry_id)
            second_done.set()
        assert result.worker == "other"
        assert streams.read(SCORES, START, ScoredBatch) == []
        assert all_done(streams)


@pytest.mark.parametrize("max_deliveries", [1, 5], ids=["would-bury", "would-retry"])
def test_one_that_lost_its_lease_and_fails_does_not_disturb_the_one_that_works(
    redis_url: str, max_deliveries: int
) -> None:
    first_has_it, other_has_it = threading.Event(), threading.Event()
    calls: list[str] = []

    def fails_late(asked: StoryBatch) -> ScoredBatch:
        calls.append("late")
        first_has_it.set()
        assert other_has_it.wait(10)
        raise RuntimeError("too late")

    def works(asked: StoryBatch) -> ScoredBatch:
        calls.append("other")
        other_has_it.set()
        time.sleep(0.5)  # room for the other's failure to do harm
        return answer(asked)

    with Streams(redis_url) as streams:
        with running(teacher(streams, "late", lease_s=3600, max_deliveries=max_deliveries), fails_late):
            streams.publish(STORIES_STREAM, batch(0))
            assert first_has_it.wait(10)
            with running(teacher(streams, "other", lease_s=0.1), works):
                assert collect(streams, 1)[0][1] == answer(batch(0))
        assert calls == ["late", "other"]
        assert streams.dead_letters(STORIES_STREAM) == []


def test_a_lease_that_was_lost_is_noted_and_not_taken_back(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    owners: set[str] = set()
    with Streams(redis_url) as streams, redis.Redis.from_url(redis_url, decode_responses=True) as client:

        def handler(asked: StoryBatch) -> ScoredBatch:
            client.xclaim(STORIES_STREAM, TEACHERS_GROUP, "thief", 0, [sent])
            # Messages, not caplog.text: that would show this very line, were it in a traceback.
            wait_until(lambda: any("lost its lease" in record.getMessage() for record in caplog.records))
            owners.update(item["consumer"] for item in _pending(client))
            return answer(asked)

        sent = streams.publish(STORIES_STREAM, batch(0))
        with running(teacher(streams, lease_s=0.2), handler):
            assert collect(streams, 1)[0][1].step == 0
            wait_until(lambda: all_done(streams))
    assert owners == {"thief"}


def _pending(client: redis.Redis) -> list[dict[str, str]]:
    return cast(list[dict[str, str]], client.xpending_range(STORIES_STREAM, TEACHERS_GROUP, "-", "+", 10))


def test_a_request_sent_twice_before_its_answer_is_handled_and_answered_once(redis_url: str) -> None:
    calls: list[str] = []

    def handler(asked: StoryBatch) -> ScoredBatch:
        calls.append(asked.key)
        return answer(asked)

    with Streams(redis_url) as streams:
        streams.publish_many(STORIES_STREAM, [batch(0), batch(0), batch(1)])
        with running(teacher(streams), handler):
            assert [result.step for _, result in collect(streams, 2)] == [0, 1]
            wait_until(lambda: all_done(streams))
        assert len(streams.read(SCORES, START, ScoredBatch)) == 2
    assert calls == [batch(0).key, batch(1).key]


@pytest.mark.parametrize("trimmed", [True, False], ids=["collected-and-trimmed", "still-there"])
def test_a_trainer_that_resumes_and_asks_again_gets_an_answer_again(redis_url: str, trimmed: bool) -> None:
    with Streams(redis_url) as streams, running(teacher(streams)):
        streams.publish(STORIES_STREAM, batch(0))
        [(first_id, _)] = collect(streams, 1)
        if trimmed:
            assert streams.forget(SCORES, first_id) == 1
        streams.publish(STORIES_STREAM, batch(0))
        [(again_id, again)] = collect(streams, 1, after=first_id)
        assert again == answer(batch(0))
        # Never two answers to one key side by side.
        assert [entry_id for entry_id, _ in streams.read(SCORES, START, ScoredBatch)] == [again_id]


def test_other_stories_under_the_same_step_are_other_work(redis_url: str) -> None:
    with Streams(redis_url) as streams, running(teacher(streams)):
        streams.publish_many(STORIES_STREAM, [batch(0, text="A fox."), batch(0, text="An owl.")])
        digests = {result.digest for _, result in collect(streams, 2)}
    assert digests == {batch(0, text="A fox.").digest, batch(0, text="An owl.").digest}


def test_the_group_is_made_anew_after_flushall(redis_url: str) -> None:
    with Streams(redis_url) as streams, redis.Redis.from_url(redis_url) as client, running(teacher(streams)):
        wait_until(lambda: client.exists(STORIES_STREAM) == 1)
        client.flushall()
        streams.publish(STORIES_STREAM, batch(0))
        assert collect(streams, 1)[0][1].step == 0


def test_work_in_hand_during_flushall_is_still_answered(redis_url: str) -> None:
    held, release = threading.Event(), threading.Event()

    def handler(asked: StoryBatch) -> ScoredBatch:
        held.set()
        assert release.wait(10)
        return answer(asked)

    with Streams(redis_url) as streams, redis.Redis.from_url(redis_url) as client, running(teacher(streams), handler):
        streams.publish(STORIES_STREAM, batch(0))
        assert held.wait(10)
        client.flushall()
        release.set()
        assert collect(streams, 1)[0][1].step == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_that_restarts_loses_nothing(redis_server: LocalRedis, tmp_path: Path, how: signal.Signals) -> None:
    away, back = threading.Event(), threading.Event()

    def handler(asked: StoryBatch) -> ScoredBatch:
        if asked.step == 1:
            away.set()
            assert back.wait(20)
        return answer(asked)

    n = 4
    server = start_server(tmp_path, binary=redis_server.binary)
    try:
        with Streams(server.url) as streams, Streams(server.url) as reader, running(teacher(streams), handler):
            streams.publish_many(STORIES_STREAM, [batch(step) for step in range(n)])
            assert away.wait(10)
            down = server
            os.kill(down.pid, how)
            wait_until(lambda: down.exit_code() is not None)
            down.stop()
            # Both wait while there is no server: one for results, one to answer the work it has in hand.
            got: list[int] = []
            waiting = threading.Thread(target=lambda: got.extend(r.step for _, r in collect(reader, n)))
            waiting.start()
            back.set()
            server = start_server(tmp_path, server.port, binary=redis_server.binary)
            waiting.join(20)
            wait_until(lambda: all_done(streams))
            assert got == list(range(n))
            assert len(streams.read(SCORES, START, ScoredBatch)) == n
            assert streams.depth(STORIES_STREAM, TEACHERS_GROUP).total == 0
    finally:
        server.stop()


def test_a_stopped_consumer_does_not_wait_for_a_server_that_is_gone(redis_server: LocalRedis, tmp_path: Path) -> None:
    with (
        start_server(tmp_path, binary=redis_server.binary) as server,
        Streams(server.url, patience_s=3600) as streams,
        running(teacher(streams)) as stop,
    ):
        with redis.Redis.from_url(server.url) as client:
            wait_until(lambda: client.exists(STORIES_STREAM) == 1)
        server.stop()
        stop.set()
