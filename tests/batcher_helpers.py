"""A judge that is led step by step, and a witness of what a batcher does."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.batcher import Batcher, BatchLimits, BusyError, Ticket
from services.teacher.judges.base import Asked, JudgeUnavailableError
from services.teacher.rubric import load_rubric

PATIENCE_S = 30.0
ROOMY = BatchLimits(batch_tokens=1000, batch_stories=8, queued_tokens=1_000_000)


class SteppedJudge:
    """A judge that a test leads from batch to batch, or that runs `free`. One level for every ten tokens.

    A story whose text is BREAK makes it raise ValueError; with AWAY nothing can be judged; SWAP and SHORT spoil its
    answer.
    """

    def __init__(self, *, lanes: int = 1, free: bool = False) -> None:
        self.lanes = lanes
        self.identity = TeacherIdentity(
            backend="steps", model="steps", revision="1", rubric="r", rubric_version="1", rubric_hash="0", mode="rules"
        )
        self.rubric = load_rubric()
        self.calls: list[list[str]] = []
        self.lengths: list[list[int]] = []
        self.threads: set[threading.Thread] = set()
        self.at_once = self.most_at_once = 0
        self._free = free
        self._begun: queue.Queue[list[str]] = queue.Queue()
        self._permits = threading.Semaphore(0)
        self._lock = threading.Lock()

    def prepare(self, story: Story) -> Asked:
        return Asked(story, max(1, len(story.text.split())))

    def close(self) -> None:
        """Nothing is held."""

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        with self._lock:
            self.calls.append([item.story.id for item in asked])
            self.lengths.append([item.tokens for item in asked])
            self.threads.add(threading.current_thread())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self._begun.put(self.calls[-1])
        try:
            assert self._free or self._permits.acquire(timeout=PATIENCE_S), "the test never let the judge go on"
            return self.answer(asked)
        finally:
            with self._lock:
                self.at_once -= 1

    def answer(self, asked: Sequence[Asked]) -> list[Verdict]:
        texts = [item.story.text for item in asked]
        if "BREAK" in texts:
            raise ValueError("this judge cannot stand BREAK")
        if "AWAY" in texts:
            raise JudgeUnavailableError("the judge is away; wake it up")
        verdicts = [self._one(item) for item in asked]
        if "SWAP" in texts and len(verdicts) > 1:
            return verdicts[::-1]
        return verdicts[1:] if "SHORT" in texts else verdicts

    def batch(self) -> list[str]:
        """Ids of the next batch that has begun; waits for it."""
        return self._begun.get(timeout=PATIENCE_S)

    def go_on(self, batches: int = 1) -> None:
        """Let so many batches end."""
        self._permits.release(batches)

    def run_freely(self) -> None:
        self._free = True
        self.go_on(1000)

    def _one(self, item: Asked) -> Verdict:
        level = min(self.rubric.levels - 1, item.tokens // 10)
        sure = [float(i == level) for i in range(self.rubric.levels)]
        return self.rubric.verdict(item.story.id, {criterion.name: sure for criterion in self.rubric.criteria})


class Witness:
    """Keeps what an observer is told."""

    def __init__(self) -> None:
        self.most_queued = self.last_queued = self.away = 0
        self.batches: list[tuple[int, int, float]] = []
        self.tickets: list[tuple[float, float]] = []

    def queued(self, tokens: int) -> None:
        self.last_queued = tokens
        self.most_queued = max(self.most_queued, tokens)

    def batch_done(self, stories: int, tokens: int, padded_tokens: int, inference_s: float) -> None:
        self.batches.append((stories, padded_tokens, inference_s))

    def ticket_done(self, queue_s: float, inference_s: float) -> None:
        self.tickets.append((queue_s, inference_s))

    def turned_away(self) -> None:
        self.away += 1


def asked(name: str, *tokens: int, text: str = "a fox") -> list[Asked]:
    return [Asked(Story(id=f"{name}{i}", text=text), length) for i, length in enumerate(tokens)]


def verdicts_of(ticket: Ticket) -> list[Verdict]:
    return ticket.future.result(timeout=PATIENCE_S)


def ids_of(ticket: Ticket) -> list[str]:
    assert all(verdict.status is VerdictStatus.OK for verdict in verdicts_of(ticket))
    return [verdict.story_id for verdict in verdicts_of(ticket)]


@contextmanager
def batching(
    judge: SteppedJudge, limits: BatchLimits = ROOMY, witness: Witness | None = None, *, busy: int = 0
) -> Iterator[Batcher]:
    """A batcher that is drained at the end. `busy`: so many lanes already have a batch of one story, `busy0`."""
    batcher = Batcher(judge, limits, witness)
    try:
        for _ in range(busy):
            batcher.submit(asked("busy", 1))
            assert judge.batch() == ["busy0"]
        yield batcher
    finally:
        judge.run_freely()
        batcher.close()


def refused(batcher: Batcher, stories: Sequence[Asked]) -> BusyError:
    with pytest.raises(BusyError) as caught:
        batcher.submit(stories)
    return caught.value
