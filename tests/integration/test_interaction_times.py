"""Teacher and student at work at once, and who waits for whom."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fabula_proto import Story, StoryBatch, Verdict
from fabula_proto.streams import Streams
from services.student_trainer import rollout
from services.student_trainer.decoding import Decoded, decode
from services.student_trainer.guards.canaries import load_canaries
from services.student_trainer.interaction import interact
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.story_queue import Collected, StoryQueue
from tests.interaction_helpers import Following, go
from tests.trainer_helpers import make_run, teacher_thread, tiny_settings, vowel_verdict

SLOW_S = 0.3
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Announcing(StoryQueue):
    """`waits` is set while the student waits for verdicts."""

    def __init__(self, streams: Streams, run: str) -> None:
        super().__init__(streams, run)
        self.waits = threading.Event()

    def collect(self, batches: Sequence[StoryBatch], timeout_s: float, keep_waiting: Callable[[], None]) -> Collected:
        self.waits.set()
        try:
            return super().collect(batches, timeout_s, keep_waiting)
        finally:
            self.waits.clear()


def waits(folder: RunFolder) -> list[float]:
    """`wait_for_teacher_s` of each update, as recorded."""
    return [json.loads(line)["wait_for_teacher_s"] for line in folder.metrics.read_text().splitlines()]


@pytest.mark.parametrize(
    ("slow", "chunks"),
    [({"0-0", "0-4", "1-0", "1-4", "2-0", "2-4"}, 2), ({load_canaries()[0].id}, 1)],
    ids=["stories", "canaries"],
)
def test_a_slow_teacher_is_waited_for(redis_url: str, tmp_path: Path, slow: set[str], chunks: int) -> None:
    """Slow at a story of each chunk, or at the canaries alone. The teacher begins when the student waits."""
    settings = tiny_settings(guards={"canaries": {"every": 1}})
    at_once, start = make_run(tmp_path / "runs" / "at_once", settings)
    with teacher_thread(redis_url):
        go(redis_url, at_once, start, settings, Following())
    slowly, start = make_run(tmp_path / "runs" / "slowly", settings)
    with Streams(redis_url) as streams:
        queue = Announcing(streams, slowly.run)

        def judge(story: Story) -> Verdict:
            if story.id in slow and queue.waits.wait(PATIENCE_S):
                time.sleep(SLOW_S)
            return vowel_verdict(story)

        with teacher_thread(redis_url, judge):
            interact(slowly, settings, start, queue, Following().watcher)
    assert len(waits(slowly)) == 3
    assert min(waits(slowly)) >= chunks * SLOW_S
    assert min(waits(at_once)) < chunks * SLOW_S


def test_a_chunk_is_judged_while_the_next_one_is_written(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without lag: no update's second chunk is begun before the teacher has judged the first."""
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    judged = [threading.Event() for _ in range(3)]
    written: list[int] = []

    def judge(story: Story) -> Verdict:
        step, index = map(int, story.id.split("-"))
        if index == 3:  # the first chunk's last
            judged[step].set()
        return vowel_verdict(story)

    def gated(model: Any, prompts: Sequence[Sequence[int]], *arguments: Any, **options: Any) -> Decoded:
        step, chunk = divmod(len(written), 2)
        if chunk == 1:
            assert judged[step].wait(PATIENCE_S), "the second chunk is to be written and the first was not judged"
        written.append(len(prompts))
        return decode(model, prompts, *arguments, **options)

    monkeypatch.setattr(rollout, "decode", gated)
    with teacher_thread(redis_url, judge):
        go(redis_url, folder, start, settings, Following())
    assert written == [4, 2] * 3
