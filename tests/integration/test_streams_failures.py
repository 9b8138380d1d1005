"""Handlers that raise, messages that cannot be read, and what becomes of them."""

import socket
from collections.abc import Iterator

import pytest
import redis

from fabula_proto import STORIES_STREAM, TEACHERS_GROUP, ScoredBatch, Story, StoryBatch
from fabula_proto.streams import START, Streams, TransportError, dead_stream
from tests.integration.streams_helpers import SCORES, all_done, answer, batch, collect, running, teacher, wait_until


class Flaky:
    """Fails the first `failures` times for step 1, then answers; counts its calls."""

    def __init__(self, failures: int):
        self.failures = failures
        self.calls = 0

    def __call__(self, asked: StoryBatch) -> ScoredBatch:
        if asked.step == 1:
            self.calls += 1
            if self.calls <= self.failures:
                raise RuntimeError(f"model away, call {self.calls}")
        return answer(asked)


def test_a_failed_delivery_is_tried_again_well_before_its_lease_ends(redis_url: str) -> None:
    handler = Flaky(failures=2)
    with Streams(redis_url) as streams:
        with running(teacher(streams, lease_s=3600), handler):
            streams.publish_many(STORIES_STREAM, [batch(step) for step in range(3)])
            results = collect(streams, 3)
        # The failure did not hold up the message behind it.
        assert [result.step for _, result in results] == [0, 2, 1]
        assert handler.calls == 3
        assert streams.dead_letters(STORIES_STREAM) == []
        with redis.Redis.from_url(redis_url) as client:
            assert client.hgetall(f"{STORIES_STREAM}:errors") == {}


def test_what_keeps_failing_becomes_a_dead_letter_and_its_sender_hears_of_it(redis_url: str) -> None:
    handler = Flaky(failures=100)
    with Streams(redis_url) as streams:
        with running(
            teacher(streams, max_deliveries=3), handler, on_dead=lambda asked, error: answer(asked, reason=error)
        ):
            origin = streams.publish(STORIES_STREAM, batch(1))
            [(_, told)] = collect(streams, 1)
        assert handler.calls == 3
        assert told.verdicts[0].reason == "RuntimeError: model away, call 3"
        [letter] = streams.dead_letters(STORIES_STREAM)
        assert (letter.origin, letter.group, letter.deliveries) == (origin, TEACHERS_GROUP, 3)
        assert letter.error == "RuntimeError: model away, call 3"
        assert StoryBatch.from_json(letter.body) == batch(1)
        assert all_done(streams)


def test_a_requeued_dead_letter_is_handled_and_answered_again(redis_url: str) -> None:
    with Streams(redis_url) as streams:
        with running(teacher(streams, max_deliveries=1), Flaky(failures=1), on_dead=answer):
            streams.publish(STORIES_STREAM, batch(1))
            [(told_id, _)] = collect(streams, 1)
        [letter] = streams.dead_letters(STORIES_STREAM)
        streams.requeue(STORIES_STREAM, letter.id)
        assert streams.dead_letters(STORIES_STREAM) == []
        with pytest.raises(KeyError, match="has no entry"):
            streams.requeue(STORIES_STREAM, letter.id)
        with running(teacher(streams)):
            [(_, result)] = collect(streams, 1, after=told_id)
        assert result == answer(batch(1))


@pytest.mark.parametrize(
    "fields",
    [
        {"body": b"\xff\xfe not UTF-8"},
        {"body": b'{"run": "r1", "step": -1}'},
        {"payload": b"no body at all"},
    ],
    ids=["not-utf8", "not-a-batch", "no-body"],
)
def test_what_cannot_be_read_is_a_dead_letter_at_once(redis_url: str, fields: dict[str, bytes]) -> None:
    with Streams(redis_url) as streams, redis.Redis.from_url(redis_url) as client:
        client.xadd(STORIES_STREAM, {**fields})
        streams.publish(STORIES_STREAM, batch(0))
        with running(teacher(streams), on_dead=answer):
            assert collect(streams, 1)[0][1].step == 0
            wait_until(lambda: all_done(streams))
        [letter] = streams.dead_letters(STORIES_STREAM)
        assert letter.error.startswith("not a StoryBatch: ")
        assert letter.deliveries == 1
        # Kept byte for byte, so that putting it back gives what came.
        streams.requeue(STORIES_STREAM, letter.id)
        [(_, back)] = client.xrange(STORIES_STREAM)
        assert back == {name.encode(): value for name, value in fields.items()}
        assert client.xlen(dead_stream(STORIES_STREAM)) == 0


def test_an_on_dead_that_fails_does_not_keep_the_letter(redis_url: str) -> None:
    def on_dead(asked: StoryBatch, error: str) -> None:
        raise ValueError("nothing to say")

    with Streams(redis_url) as streams:
        with running(teacher(streams, max_deliveries=1), Flaky(failures=9), on_dead=on_dead):
            streams.publish(STORIES_STREAM, batch(1))
            wait_until(lambda: bool(streams.dead_letters(STORIES_STREAM)))
        assert streams.read(SCORES, START, ScoredBatch) == []


def test_a_result_that_cannot_be_written_counts_as_a_failure(redis_url: str) -> None:
    def handler(asked: StoryBatch) -> StoryBatch:
        return asked.model_copy(update={"stories": (Story(id="x", text="\ud83e"),)})

    with Streams(redis_url) as streams:
        with running(teacher(streams, max_deliveries=2), handler):
            streams.publish(STORIES_STREAM, batch(0))
            wait_until(lambda: bool(streams.dead_letters(STORIES_STREAM)))
        assert "cannot be written as UTF-8" in streams.dead_letters(STORIES_STREAM)[0].error


def test_a_message_that_killed_every_consumer_is_given_up(redis_url: str) -> None:
    with Streams(redis_url) as streams, redis.Redis.from_url(redis_url) as client:
        streams.publish(STORIES_STREAM, batch(0))
        client.xgroup_create(STORIES_STREAM, TEACHERS_GROUP, id="0")
        client.xreadgroup(TEACHERS_GROUP, "died-at-once", {STORIES_STREAM: ">"})
        handled: list[str] = []
        with running(
            teacher(streams, lease_s=0.1, max_deliveries=1), lambda asked: handled.append(asked.key), on_dead=answer
        ):
            collect(streams, 1)
        [letter] = streams.dead_letters(STORIES_STREAM)
        assert letter.error.startswith("delivered 1 times and never finished; last error: none remembered")
        assert handled == []


def test_an_entry_deleted_while_pending_does_not_come_back_for_ever(redis_url: str) -> None:
    with Streams(redis_url) as streams, redis.Redis.from_url(redis_url) as client:
        gone = streams.publish(STORIES_STREAM, batch(0))
        client.xgroup_create(STORIES_STREAM, TEACHERS_GROUP, id="0")
        client.xreadgroup(TEACHERS_GROUP, "died-at-once", {STORIES_STREAM: ">"})
        client.xdel(STORIES_STREAM, gone)
        with running(teacher(streams, lease_s=0.1)):
            wait_until(lambda: streams.depth(STORIES_STREAM, TEACHERS_GROUP).pending == 0)
            streams.publish(STORIES_STREAM, batch(1))
            assert collect(streams, 1)[0][1].step == 1


def test_a_loss_is_said_once_and_entries_may_be_there_twice_only_after_a_connection(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
    with Streams(nobody, patience_s=0.2) as streams:
        for _ in range(2):
            with pytest.raises(TransportError, match="no Redis server answers"):
                streams.publish(STORIES_STREAM, batch(0))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"publish to {STORIES_STREAM}: nobody answers at {nobody} yet")
    caplog.clear()
    with Streams(redis_url, patience_s=20.0) as streams:
        for _ in range(2):
            failures = iter([redis.ConnectionError("gone"), redis.ConnectionError("gone"), None])

            def command(failures: Iterator[redis.ConnectionError | None] = failures) -> None:
                if error := next(failures):
                    raise error

            streams.publish(STORIES_STREAM, batch(0))
            streams.link.retrying("publish", command, on_repeat="; twice")
    said_twice = [record.getMessage() for record in caplog.records]
    assert said_twice == [f"publish: lost {redis_url} (gone); trying again; twice"] * 2
