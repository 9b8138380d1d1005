"""The teacher's client against servers that are busy, wrong or away."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fabula_proto import CriterionScore, ScoreRequest, ScoreResponse, Story, TeacherIdentity, Verdict, VerdictStatus
from services.evaluator.adapters.teacher_client import TeacherClient
from services.evaluator.errors import (
    AbandonedError,
    TeacherProtocolError,
    TeacherRefusedError,
    TeacherUnavailableError,
)
from tests.teacher_helpers import WordJudge, serving
from tests.teacher_helpers import teacher as teacher_service

STORIES = [Story(id=f"s{i}", prompt="p", text=f"Tale {i}.") for i in range(7)]


class Teacher:
    """Answers /score after `busy` refusals, and notes what it was asked."""

    def __init__(self, busy: int = 0, retry_after: str | None = "0", fault: str = "") -> None:
        self.busy, self.retry_after, self.fault = busy, retry_after, fault
        self.asked: list[list[str | None]] = []
        self.app = FastAPI()
        self.app.post("/score", response_model=None)(self.score)

    async def score(self, request: Request) -> JSONResponse:
        if self.busy > 0:
            self.busy -= 1
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return JSONResponse({"title": "Busy", "status": 429, "detail": "queue is full"}, 429, headers)
        asked = ScoreRequest.from_json(await request.body()).as_stories()
        self.asked.append([s.id for s in asked])
        verdicts = [self.verdict(story) for story in asked]
        if self.fault == "swapped":
            verdicts.reverse()
        if self.fault == "not ours":
            return JSONResponse({"scores": [1, 2]})
        revision = str(len(self.asked)) if self.fault == "replaced" else "1"
        teacher = TeacherIdentity(
            backend="t", model="m", revision=revision, rubric="r", rubric_version="1", rubric_hash="0", mode="rules"
        )
        response = ScoreResponse(verdicts=tuple(verdicts), teacher=teacher)
        return JSONResponse(response.model_dump(mode="json"))

    @staticmethod
    def verdict(story: Story) -> Verdict:
        score = CriterionScore.from_probabilities([0, 1])
        return Verdict(
            story_id=story.id,
            status=VerdictStatus.OK,
            criteria={"readability": score},
            total=1.0,
            reward=0.5,
            coverage=1.0,
        )


@contextmanager
def asking(teacher: Teacher, **options: float) -> Iterator[tuple[TeacherClient, list[float]]]:
    waits: list[float] = []
    with serving(teacher.app) as server:
        client = TeacherClient(
            str(server.base_url),
            chunk=3,
            patience_s=options.get("patience_s", 60.0),
            wait=lambda seconds: waits.append(seconds) if seconds else None,
        )
        with client:
            yield client, waits


def test_stories_go_in_chunks_and_come_back_in_order() -> None:
    teacher = Teacher()
    with asking(teacher) as (client, waits):
        response = client.judge(STORIES)
    assert [v.story_id for v in response.verdicts] == [s.id for s in STORIES]
    assert [len(ids) for ids in teacher.asked] == [3, 3, 1]
    assert waits == []


def test_a_busy_teacher_is_asked_again_when_it_says() -> None:
    with asking(Teacher(busy=2, retry_after="7")) as (client, waits):
        assert len(client.judge(STORIES[:1]).verdicts) == 1
    assert waits == [7.0, 7.0]


def test_without_a_word_on_when_the_wait_doubles() -> None:
    with asking(Teacher(busy=3, retry_after=None)) as (client, waits):
        client.judge(STORIES[:1])
    assert waits == [0.5, 1.0, 2.0]


def test_a_teacher_that_asks_for_more_than_our_patience_is_unavailable() -> None:
    with (
        asking(Teacher(busy=9, retry_after="3600")) as (client, waits),
        pytest.raises(TeacherUnavailableError, match=r"429: .*start the teacher"),
    ):
        client.judge(STORIES)
    assert waits == []


def test_a_teacher_that_is_away_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with TeacherClient(address, patience_s=0.0) as client, pytest.raises(TeacherUnavailableError, match="Connect"):
            client.judge(STORIES)


def test_waiting_can_be_given_up() -> None:
    def give_up(seconds: float) -> None:
        raise AbandonedError("stopping")

    teacher = Teacher(busy=9)
    with (
        serving(teacher.app) as server,
        TeacherClient(str(server.base_url), wait=give_up) as client,
        pytest.raises(AbandonedError),
    ):
        client.judge(STORIES)


def test_a_teacher_that_thinks_for_long_can_be_left() -> None:
    judge = WordJudge()
    judge.gate.clear()

    def give_up(seconds: float) -> None:
        if judge.entered.is_set():
            raise AbandonedError("stopping")

    with teacher_service(judge) as server:
        with TeacherClient(str(server.base_url), wait=give_up) as client, pytest.raises(AbandonedError):
            client.judge(STORIES)
        judge.gate.set()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("swapped", "expected one each, in order"),
        ("not ours", "answered no ScoreResponse"),
        ("replaced", "evaluate again with one teacher"),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_no_answer(fault: str, says: str) -> None:
    with asking(Teacher(fault=fault)) as (client, _), pytest.raises(TeacherProtocolError, match=says):
        client.judge(STORIES)


@pytest.mark.parametrize("address", ["localhost:8001", "http://", "ftp://teacher"])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with TeacherClient(address) as client, pytest.raises(TeacherRefusedError, match="such as http://localhost:8001"):
        client.judge(STORIES)
