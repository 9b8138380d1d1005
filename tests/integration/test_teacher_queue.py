"""The teacher's queue worker against a real Redis server."""

from pathlib import Path

import pytest

from fabula_proto import STORIES_STREAM, TEACHERS_GROUP, ScoredBatch, Story, StoryBatch, VerdictStatus, scores_stream
from fabula_proto.streams import START, Streams
from services.redis_server import LocalRedis, start_server
from tests.teacher_helpers import WordJudge, teacher, until_ready

TALE = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."


def batch(*texts: str, step: int = 0, teacher: str | None = None, fresh: bool = False) -> StoryBatch:
    stories = tuple(Story(id=f"s{i}", text=text) for i, text in enumerate(texts))
    return StoryBatch(
        run="r", step=step, chunk=0, chunks=1, policy_version=step, stories=stories, teacher=teacher, fresh=fresh
    )


def answers(streams: Streams, count: int, wait_s: float = 20.0) -> list[ScoredBatch]:
    found: list[ScoredBatch] = []
    after = START
    for _ in range(count):
        entries = streams.read(scores_stream("r"), after, ScoredBatch, block_s=wait_s)
        found += [message for _, message in entries]
        after = entries[-1][0] if entries else after
        if len(found) >= count:
            break
    return found


def test_batches_are_answered_in_story_order(redis_url: str) -> None:
    sent = [batch(TALE, "", TALE + " " + TALE, step=0), batch("The fox ran.", step=1)]
    with Streams(redis_url) as streams:
        streams.publish_many(STORIES_STREAM, sent)  # before any teacher is there: work waits for workers
        with teacher(WordJudge(), redis_url=redis_url, worker="t1") as client:
            until_ready(client)
            first, second = answers(streams, 2)
            queue = client.get("/info").json()["queue"]
        assert [v.story_id for v in first.verdicts] == ["s0", "s1", "s2"]
        assert [v.total for v in first.verdicts] == [3.0, 0.0, 9.0]
        assert (first.digest, second.digest) == (sent[0].digest, sent[1].digest)
        assert (first.worker, first.teacher.backend) == ("t1", "words")
        assert (queue["batches"], queue["stories"], queue["connected"]) == (2, 4, True)
        assert streams.depth(STORIES_STREAM, TEACHERS_GROUP).total == 0


def test_a_batch_nobody_can_judge_is_answered_with_failed_verdicts(redis_url: str) -> None:
    with (
        Streams(redis_url) as streams,
        teacher(WordJudge(), redis_url=redis_url, max_deliveries=2, lease_s=1.0) as client,
    ):
        until_ready(client)
        streams.publish(STORIES_STREAM, batch(TALE + " AWAY", TALE))
        (answer,) = answers(streams, 1)
        letters = streams.dead_letters(STORIES_STREAM)
    assert [v.status for v in answer.verdicts] == [VerdictStatus.FAILED] * 2
    assert "wake it up" in (answer.verdicts[0].reason or "")
    assert [letter.deliveries for letter in letters] == [2]


def test_a_batch_may_name_its_teacher(redis_url: str) -> None:
    """The same stories of the same chunk, asked of several: each answer is its own, and nobody is asked in vain."""
    sent = [batch(TALE, teacher=name) for name in (None, "rules", "nobody")]
    with Streams(redis_url) as streams, teacher(WordJudge(), redis_url=redis_url) as client:
        until_ready(client)
        assert client.put("/runs/r/teachers", json={"teachers": ["rules"]}).status_code == 200
        streams.publish_many(STORIES_STREAM, [*sent, batch(TALE, teacher="default")])
        found = {answer.digest: answer for answer in answers(streams, 4)}
        letters = streams.dead_letters(STORIES_STREAM)
        over_http = client.post("/score?teacher=nobody", json={"stories": [TALE]}).json()["detail"]
    backends = {one.teacher: found[one.digest].teacher.backend for one in sent[:2]}
    assert backends == {None: "rules", "rules": "rules"}
    assert found[batch(TALE, teacher="default").digest].teacher.backend == "words", (
        "the run's own choice is passed over"
    )
    (verdict,) = found[sent[2].digest].verdicts
    assert (verdict.status, verdict.reason) == (VerdictStatus.FAILED, over_http)
    assert letters == [], "a name that nobody has is answered at once"


def test_a_fresh_batch_is_judged_anew(redis_url: str) -> None:
    judge = WordJudge()
    with Streams(redis_url) as streams, teacher(judge, redis_url=redis_url, cache_ttl_s=60) as client:
        until_ready(client)
        for step, fresh in ((0, False), (1, False), (2, True)):
            streams.publish(STORIES_STREAM, batch(TALE, step=step, fresh=fresh))
        cached = {answer.step: answer.verdicts[0].cached for answer in answers(streams, 3)}
    assert cached == {0: False, 1: True, 2: False}
    assert len(judge.calls) == 2


def test_readiness_follows_redis_and_work_goes_on_when_it_is_back(tmp_path: Path, redis_server: LocalRedis) -> None:
    with start_server(tmp_path) as server:
        url = server.url
    with teacher(WordJudge(), redis_url=url) as client:
        response = client.get("/readyz")
        assert response.status_code == 503
        assert "Redis" in response.json()["detail"]
        assert client.post("/score", json={"stories": [TALE]}).status_code == 200  # HTTP needs no queue
        with start_server(tmp_path, port=int(url.rpartition(":")[2].split("/")[0])), Streams(url) as streams:
            until_ready(client)
            streams.publish(STORIES_STREAM, batch(TALE))
            assert answers(streams, 1)[0].verdicts[0].total == 3.0


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost"])
def test_a_bad_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="redis://"), teacher(WordJudge(), redis_url=url):
        pass
