"""A small deterministic judge, and a teacher served over a real socket from a thread."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from fabula_proto import Story, TeacherIdentity, Verdict
from services.teacher.app import create_app
from services.teacher.judges.base import Asked, Judge, JudgeUnavailableError
from services.teacher.rubric import Rubric, load_rubric
from services.teacher.settings import TeacherSettings


class WordJudge:
    """Judges by the number of words: one level for every ten, the same for each criterion. Breaks where it is told.

    A story with the word BREAK in it raises ValueError; one with AWAY means that nothing can be judged. While `gate`
    is closed the judge waits, so that a test can look at a teacher that is busy.
    """

    def __init__(self, rubric: Rubric | None = None) -> None:
        self.rubric = rubric or load_rubric()
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            backend="words",
            model="words",
            revision="1",
            rubric=self.rubric.name,
            rubric_version=self.rubric.version,
            rubric_hash=self.rubric.hash,
            mode="rules",
        )

    @property
    def lanes(self) -> int:
        return 1

    def prepare(self, story: Story) -> Asked:
        return Asked(story, max(1, len(story.text.split())))

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        self.calls.append([item.story.id for item in asked])
        self.entered.set()
        assert self.gate.wait(30), "the test never opened the gate"
        return [self._one(item.story) for item in asked]

    def close(self) -> None:
        """Nothing is held."""

    def _one(self, story: Story) -> Verdict:
        words = story.text.split()
        if "BREAK" in words:
            raise ValueError("this judge cannot stand BREAK")
        if "AWAY" in words:
            raise JudgeUnavailableError("the judge is away; wake it up")
        level = min(self.rubric.levels - 1, len(words) // 10)
        sure = [float(i == level) for i in range(self.rubric.levels)]
        return self.rubric.verdict(story.id, {c.name: sure for c in self.rubric.criteria})


@contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    """`app` on a free port of this machine; a client that speaks to it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended before it served"
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


@contextmanager
def teacher(judge: Judge | None, **settings: object) -> Iterator[httpx.Client]:
    """A teacher with `judge` over a real socket."""
    with serving(create_app(TeacherSettings.model_validate(settings), judge)) as client:
        yield client


def until_ready(client: httpx.Client, tries: int = 600) -> None:
    """Wait for /readyz to say 200."""
    for _ in range(tries):
        if client.get("/readyz").status_code == 200:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"the teacher did not get ready: {client.get('/readyz').text}")
