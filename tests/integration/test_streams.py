"""Streams in fair weather: what is published is handled once, and answered once."""

import threading
import time

import pytest
import redis

from fabula_proto import STORIES_STREAM, TEACHERS_GROUP, ScoredBatch, Story, StoryBatch
from fabula_proto.streams import START, Consumer, Lag, Streams, TransportError, UnreadableEntryError
from services.redis_server import LocalRedis
from tests.integration.streams_helpers import (
    SCORES,
    all_done,
    answer,
    batch,
    collect,
    losing_the_first_reply,
    running,
    teacher,
    wait_until,
)


def test_what_is_published_is_answered_and_nothing_stays(redis_url: str) -> None:
    batches = [batch(step, text=f"Une fée — “{step}” 🦊\u0000\n") for step in range(3)]
    with Streams(redis_url) as streams, running(teacher(streams)):
        streams.publish_many(STORIES_STREAM, batches)
        results = [result for _, result in collect(streams, 3)]
        assert results == [answer(asked) for asked in batches]
        wait_until(lambda: all_done(streams))
        with redis.Redis.from_url(redis_url) as client:
            assert client.xlen(STORIES_STREAM) == 0


def test_work_queued_before_the_first_worker_is_not_lost(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        streams.publish(STORIES_STREAM, batch(0))
        assert streams.depth(STORIES_STREAM, TEACHERS_GROUP) == Lag(pending=0, waiting=1)
        with running(teacher(streams)):
            assert collect(streams, 1)[0][1].step == 0


def test_two_consumers_share_the_work(redis_url: str) -> None:
    together = threading.Barrier(2, timeout=10)
    workers: set[str] = set()

    def handler(asked: StoryBatch) -> ScoredBatch:
        together.wait()  # passes only while both have a message in hand
        workers.add(threading.current_thread().name)
        return answer(asked)

    with Streams(redis_url) as streams:
        with running(teacher(streams, "a"), handler), running(teacher(streams, "b"), handler):
            streams.publish_many(STORIES_STREAM, [batch(step) for step in range(8)])
            results = collect(streams, 8)
        assert sorted(result.step for _, result in results) == list(range(8))
        assert workers == {"a", "b"}
        assert streams.read(SCORES, results[-1][0], ScoredBatch) == []


def test_depth_tells_pending_from_waiting(redis_url: str) -> None:
    held, release = threading.Event(), threading.Event()

    def handler(asked: StoryBatch) -> ScoredBatch:
        held.set()
        assert release.wait(10)
        return answer(asked)

    with Streams(redis_url) as streams, running(teacher(streams), handler):
        streams.publish_many(STORIES_STREAM, [batch(step) for step in range(3)])
        assert held.wait(10)
        lag = streams.depth(STORIES_STREAM, TEACHERS_GROUP)
        release.set()
        assert (lag, lag.total) == (Lag(pending=1, waiting=2), 3)
        wait_until(lambda: all_done(streams))


def test_a_reader_sees_each_result_once_and_forgets_what_it_collected(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        ids = streams.publish_many(SCORES, [answer(batch(step)) for step in range(5)])
        seen, after = [], START
        while got := streams.read(SCORES, after, ScoredBatch, count=2):
            seen += [result.step for _, result in got]
            after = got[-1][0]
        assert seen == [0, 1, 2, 3, 4]
        assert streams.forget(SCORES, ids[2]) == 3
        assert [entry_id for entry_id, _ in streams.read(SCORES, START, ScoredBatch)] == ids[3:]
        streams.delete(SCORES)
        assert streams.read(SCORES, START, ScoredBatch) == []


def test_a_waiting_reader_wakes_when_a_result_comes(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        later = threading.Timer(0.1, streams.publish, (SCORES, answer(batch(4))))
        later.start()
        got = streams.read(SCORES, START, ScoredBatch, block_s=30)
        later.join()
    assert [result.step for _, result in got] == [4]


def test_a_reader_waits_longer_than_one_block_and_then_comes_back_empty(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        before = time.monotonic()
        assert streams.read(SCORES, START, ScoredBatch, block_s=2.2) == []
        assert time.monotonic() - before >= 2.2


def test_an_unreadable_result_is_an_error_that_names_the_entry(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        entry_id = streams.publish(SCORES, batch(0))
        with pytest.raises(UnreadableEntryError, match=f"entry {entry_id} of {SCORES} is not a ScoredBatch"):
            streams.read(SCORES, START, ScoredBatch)


def test_a_handler_without_a_result_finishes_its_message(redis_url: str) -> None:
    seen: list[str] = []
    with Streams(redis_url) as streams, running(teacher(streams), lambda asked: seen.append(asked.key)):
        streams.publish(STORIES_STREAM, batch(0))
        wait_until(lambda: all_done(streams) and bool(seen))
        assert streams.read(SCORES, START, ScoredBatch) == []
    assert seen == [batch(0).key]


def test_a_stopped_consumer_finishes_what_it_has_and_leaves_the_rest(redis_url: str) -> None:
    held, release = threading.Event(), threading.Event()

    def handler(asked: StoryBatch) -> ScoredBatch:
        held.set()
        assert release.wait(10)
        return answer(asked)

    with Streams(redis_url) as streams:
        with running(teacher(streams), handler) as stop:
            streams.publish_many(STORIES_STREAM, [batch(0), batch(1)])
            assert held.wait(10)
            stop.set()
            release.set()
        assert [result.step for _, result in streams.read(SCORES, START, ScoredBatch)] == [0]
        assert streams.depth(STORIES_STREAM, TEACHERS_GROUP) == Lag(pending=0, waiting=1)
        with redis.Redis.from_url(redis_url) as client:
            assert client.xinfo_consumers(STORIES_STREAM, TEACHERS_GROUP) == []


def test_text_that_utf8_cannot_carry_is_refused_before_anything_is_sent(redis_url: str) -> None:
    broken = batch(1).model_copy(update={"stories": (Story(id="x", text="half a pair: \ud83e"),)})
    with Streams(redis_url) as streams:
        with pytest.raises(ValueError, match=r"StoryBatch cannot be written as UTF-8.*replace lone surrogates"):
            streams.publish_many(STORIES_STREAM, [batch(0), broken])
        assert streams.depth(STORIES_STREAM, TEACHERS_GROUP).total == 0


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with Streams("redis://me:hush@127.0.0.1:1/0", patience_s=0.2) as streams:
        for attempt in (streams.ping, lambda: streams.publish(STORIES_STREAM, batch(0))):
            with pytest.raises(TransportError, match=r"no Redis server answers at redis://127\.0\.0\.1:1/0") as raised:
                attempt()
            assert "hush" not in str(raised.value)


def test_a_refusal_is_not_tried_again(redis_url: str) -> None:
    with Streams(redis_url, patience_s=3600) as streams, redis.Redis.from_url(redis_url) as client:
        client.set(STORIES_STREAM, "not a stream")
        with pytest.raises(TransportError, match="WRONGTYPE"):
            streams.publish(STORIES_STREAM, batch(0))


def test_an_address_with_a_wrong_password_is_refused_at_once(redis_server: LocalRedis) -> None:
    address = redis_server.url.replace("redis://", "redis://me:hush@")
    with (
        Streams(address, patience_s=3600) as streams,
        pytest.raises(TransportError, match="check the user and password") as raised,
    ):
        streams.depth(STORIES_STREAM, TEACHERS_GROUP)
    assert "hush" not in str(raised.value)


def test_an_address_that_is_none_is_refused_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"'localhost:6379' cannot be used; expected redis://"):
        Streams("localhost:6379")


def test_a_publish_whose_reply_was_lost_is_repeated_noted_and_answered_once(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Streams(redis_url) as streams:
        with losing_the_first_reply(redis_url, to=b"XADD") as url, Streams(url) as unlucky:
            unlucky.publish(STORIES_STREAM, batch(0))
        assert "its entries may now be there twice" in caplog.text
        assert streams.depth(STORIES_STREAM, TEACHERS_GROUP).waiting == 2
        with running(teacher(streams)):
            wait_until(lambda: all_done(streams))
        assert len(streams.read(SCORES, START, ScoredBatch)) == 1


def test_settings_that_cannot_work_are_refused(redis_url: str) -> None:
    with Streams(redis_url) as streams, pytest.raises(ValueError, match="lease_s 0 "):
        Consumer(streams, STORIES_STREAM, TEACHERS_GROUP, "t0", StoryBatch, lease_s=0)
