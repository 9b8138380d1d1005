"""Remembered verdicts: on a real server, on one that was killed, hangs, is full, or holds something else."""

import logging
import os
import signal
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import get_args

import pytest
import redis

from fabula_proto import CriterionScore, Story, TeacherIdentity, Verdict, VerdictStatus
from services.redis_server import LocalRedis, start_server
from services.teacher.cache import PREFIX, Lookup, Pause, VerdictCache
from services.teacher.rubric import load_rubric

RUBRIC = load_rubric()
IDENTITY = TeacherIdentity(
    backend="transformers",
    model="lab/llama",
    revision="abc1234",
    rubric=RUBRIC.name,
    rubric_version=RUBRIC.version,
    rubric_hash=RUBRIC.hash,
    mode="joint",
)
DAY_S = 86_400
FOX = Story(id="a", text="The fox ran home.")
OWL = Story(id="b", text="The owl slept.\u00e9\U0001f98a\x00")


class Counts:
    """Counts what the cache does."""

    def __init__(self) -> None:
        self.lookups: Counter[str] = Counter()
        self.failures = 0

    def cache_looked_up(self, result: Lookup, stories: int) -> None:
        assert result in get_args(Lookup)
        self.lookups[result] += stories

    def cache_failed(self) -> None:
        self.failures += 1


@contextmanager
def cache_at(url: str, counts: Counts | None = None, retry_s: float = 3600.0) -> Iterator[VerdictCache]:
    """A cache that, after a failure, asks again when an hour has passed."""
    with closing(VerdictCache(url, DAY_S, counts or Counts(), retry_s=retry_s)) as cache:
        yield cache


def verdict(story: Story, first: float = 1 / 3) -> Verdict:
    """Numbers that no short decimal can write."""
    probabilities = {c.name: (first, 0.1, 2 / 7, 1e-9 + i) for i, c in enumerate(RUBRIC.criteria)}
    halo = {c.name: 1 / 7 for c in RUBRIC.criteria}
    return RUBRIC.verdict(story.id, probabilities, coverage=0.1 + 0.2, flags=("score_tail",), halo=halo)


def test_a_remembered_verdict_comes_back_bit_for_bit_under_the_new_id(redis_url: str) -> None:
    counts = Counts()
    told = [verdict(FOX), verdict(OWL)]
    with cache_at(redis_url, counts) as cache:
        assert cache.get_many(IDENTITY, [FOX, OWL]) == [None, None]
        cache.put_many(IDENTITY, zip([FOX, OWL], told, strict=True))
        again = [Story(id="new", prompt="Once", text=OWL.text), Story(id="c", text="A third."), FOX]
        found = cache.get_many(IDENTITY, again)
    assert found == [
        told[1].model_copy(update={"story_id": "new", "cached": True}),
        None,
        told[0].model_copy(update={"cached": True}),
    ]
    assert counts.lookups == {"miss": 3, "hit": 2}


def test_an_ensembles_verdict_keeps_its_members_and_their_disagreement(redis_url: str) -> None:
    criteria = {"wit": CriterionScore.from_probabilities([1, 2, 4], disagreement=0.3)}
    told = Verdict(
        story_id="a",
        status=VerdictStatus.OK,
        criteria=criteria,
        total=criteria["wit"].mean,
        reward=0.7,
        coverage=0.9,
        members={"llama": 1.5, "qwen": 0.1},
    )
    with cache_at(redis_url) as cache:
        cache.put_many(IDENTITY, [(FOX, told)])
        assert cache.get_many(IDENTITY, [FOX]) == [told.model_copy(update={"cached": True})]


@pytest.mark.parametrize("changed", sorted(TeacherIdentity.model_fields))
def test_another_teacher_is_another_key(redis_url: str, changed: str) -> None:
    other = IDENTITY.model_copy(update={changed: getattr(IDENTITY, changed) + "x"})
    with cache_at(redis_url) as cache:
        cache.put_many(IDENTITY, [(FOX, verdict(FOX))])
        assert cache.get_many(other, [FOX]) == [None]


def test_an_edit_of_the_rubric_misses(redis_url: str) -> None:
    first, *rest = RUBRIC.criteria
    edited = RUBRIC.model_copy(update={"criteria": (first.model_copy(update={"question": "Is it fun?"}), *rest)})
    with cache_at(redis_url) as cache:
        cache.put_many(IDENTITY, [(FOX, verdict(FOX))])
        assert cache.get_many(IDENTITY.model_copy(update={"rubric_hash": edited.hash}), [FOX]) == [None]


def test_other_flags_miss(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with cache_at(redis_url) as cache:
        cache.put_many(IDENTITY, [(FOX, verdict(FOX))])
        monkeypatch.setattr("services.teacher.cache.FLAGS_VERSION", "another")
        assert cache.get_many(IDENTITY, [FOX]) == [None]


def test_any_string_can_be_a_story(redis_url: str) -> None:
    texts = ["", " ", "a", "a ", "a\x00", "\ud83e", "\U0001f98a", "\\ud83e", "}", "x" * 100_000]
    stories = [Story(id=str(i), text=text) for i, text in enumerate(texts)]
    with cache_at(redis_url) as cache:
        cache.put_many(IDENTITY, [(story, verdict(story, first=i + 1)) for i, story in enumerate(stories)])
        found = cache.get_many(IDENTITY, stories)
    remembered = [verdict(story, first=i + 1).model_copy(update={"cached": True}) for i, story in enumerate(stories)]
    assert found == remembered


def test_only_new_numbers_are_remembered(redis_url: str) -> None:
    verdicts = [
        (FOX, Verdict(story_id="a", status=VerdictStatus.FAILED, reason="the server is down")),
        (FOX, Verdict(story_id="a", status=VerdictStatus.REFUSED, reason="too long")),
        (FOX, verdict(FOX).model_copy(update={"cached": True})),
    ]
    with cache_at(redis_url) as cache, redis.Redis.from_url(redis_url) as client:
        cache.put_many(IDENTITY, verdicts)
        assert client.keys() == []
        cache.put_many(IDENTITY, [*verdicts, (OWL, verdict(OWL))])
        [key] = client.keys()
        assert isinstance(key, bytes)
        assert key.decode().startswith(PREFIX)
        assert client.ttl(key) in range(DAY_S - 60, DAY_S + 1)


def test_no_stories_ask_for_nothing(redis_url: str) -> None:
    counts = Counts()
    with cache_at(redis_url, counts) as cache:
        assert cache.get_many(IDENTITY, []) == []
        cache.put_many(IDENTITY, [])
    assert not counts.lookups


def test_what_cannot_be_read_is_judged_anew_and_said_once(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    strange = [b"", b"garbage", zlib.compress(b"{}"), zlib.compress(b'{"status": "ok"}'), zlib.compress(b"\xff")]
    stories = [Story(id=str(i), text=f"Story {i}.") for i in range(len(strange))]
    counts = Counts()
    with cache_at(redis_url, counts) as cache, redis.Redis.from_url(redis_url) as client:
        for story, value in zip(stories, strange, strict=True):
            cache.put_many(IDENTITY, [(story, verdict(story))])
            [key] = [key for key in client.scan_iter() if client.get(key) not in strange]
            client.set(key, value)
        for _ in range(2):
            assert cache.get_many(IDENTITY, [*stories, FOX]) == [None] * 6
        assert counts.lookups == {"unreadable": 10, "miss": 2}
        [said] = _said(caplog)
        assert said.startswith("5 remembered verdicts are unreadable")
        cache.put_many(IDENTITY, [(story, verdict(story)) for story in stories])
        assert None not in cache.get_many(IDENTITY, stories)
    assert counts.failures == 0


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the cache logged."""
    return [r.getMessage() for r in caplog.records if r.name == "services.teacher.cache"]


def test_a_killed_server_is_said_once_and_the_cache_is_back_with_it(
    redis_server: LocalRedis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counts = Counts()
    with start_server(tmp_path, binary=redis_server.binary) as server, cache_at(server.url, counts, 0.0) as cache:
        cache.put_many(IDENTITY, [(FOX, verdict(FOX))])
        assert cache.get_many(IDENTITY, [FOX]) != [None]
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        for _ in range(3):
            assert cache.get_many(IDENTITY, [FOX, OWL]) == [None, None]
            cache.put_many(IDENTITY, [(OWL, verdict(OWL))])
        assert counts.failures == 6
        [said] = _said(caplog)
        assert said.startswith("verdicts are neither looked up nor remembered for now: cannot read fabula:verdict:")
        with start_server(tmp_path, server.port, binary=redis_server.binary):
            assert cache.get_many(IDENTITY, [FOX])[0] == verdict(FOX).model_copy(update={"cached": True})
            cache.put_many(IDENTITY, [(OWL, verdict(OWL))])
            assert None not in cache.get_many(IDENTITY, [OWL])
        assert _said(caplog)[1:] == ["verdicts are looked up again", "verdicts are remembered again"]
    assert counts.lookups == {"hit": 3, "skipped": 6}


def test_a_server_that_hangs_is_waited_for_once(redis_server: LocalRedis, tmp_path: Path) -> None:
    counts = Counts()
    with start_server(tmp_path, binary=redis_server.binary) as server, cache_at(server.url, counts) as cache:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(50):
                assert cache.get_many(IDENTITY, [FOX]) == [None]
                cache.put_many(IDENTITY, [(FOX, verdict(FOX))])
        finally:
            os.kill(server.pid, signal.SIGCONT)
    assert counts.failures == 1
    assert counts.lookups == {"skipped": 50}


def test_a_full_server_still_answers_what_it_knows(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    with cache_at(redis_url, counts) as cache, redis.Redis.from_url(redis_url) as client:
        cache.put_many(IDENTITY, [(FOX, verdict(FOX))])
        client.config_set("maxmemory", 1)
        try:
            for _ in range(3):
                cache.put_many(IDENTITY, [(OWL, verdict(OWL))])
                assert cache.get_many(IDENTITY, [FOX, OWL])[1] is None
        finally:
            client.config_set("maxmemory", 0)
    assert counts.failures == 1
    assert counts.lookups == {"hit": 3, "miss": 3}
    [said] = _said(caplog)
    assert "not remembered for now" in said
    assert "give it more memory" in said


def test_after_a_pause_one_caller_tries_for_all() -> None:
    now = 0.0
    pause = Pause(10.0, clock=lambda: now)
    assert [pause.is_over(), pause.is_over()] == [True, True]
    assert [pause.begin(), pause.begin()] == [True, False]
    now = 9.9
    assert not pause.is_over()
    now = 10.0
    assert [pause.is_over(), pause.is_over()] == [True, False]
    now = 20.0
    assert pause.is_over()
    assert [pause.end(), pause.end()] == [True, False]
    assert [pause.is_over(), pause.is_over()] == [True, True]


@pytest.mark.parametrize(
    ("url", "ttl_s", "why"), [("somewhere", 1, "cannot be used"), ("redis://127.0.0.1:1/0", 0, "ttl_s 0 must be")]
)
def test_what_cannot_be_a_cache_is_refused_at_once(url: str, ttl_s: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        VerdictCache(url, ttl_s, Counts())
