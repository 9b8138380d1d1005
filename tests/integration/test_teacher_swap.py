"""A run is put on another teacher while it learns: one API call, the run goes on, every row says who judged."""

from pathlib import Path

import pyarrow.parquet as pq
import torch

from fabula_proto import StepMetrics
from fabula_proto.streams import Streams
from services.student_trainer.interaction import Watcher, interact
from services.student_trainer.records import StoryRow
from services.student_trainer.story_queue import StoryQueue
from tests.teacher_helpers import WordJudge, teacher, until_ready
from tests.trainer_helpers import make_run, tiny_settings


def test_a_swap_in_the_middle_of_a_run(redis_url: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "swapped", settings)
    seen: list[int] = []
    with teacher(WordJudge(), redis_url=redis_url) as client, Streams(redis_url) as streams:
        until_ready(client)

        def swap_after_the_first(line: StepMetrics, _: list[StoryRow]) -> None:
            seen.append(line.step)
            if line.step == 0:
                answer = client.put(f"/runs/{folder.run}/teachers", json={"teachers": ["rules"]})
                assert answer.json()["identity"]["backend"] == "rules"

        watcher = Watcher(swap_after_the_first, lambda _: None, lambda: False)
        final = interact(folder, settings, start, StoryQueue(streams, folder.run), watcher)
    assert final.name == "chck_1k_rl_58"
    assert seen == [0, 1, 2]
    rows = pq.read_table(folder.stories).to_pylist()
    judged_by = {step: {row["teacher_backend"] for row in rows if row["step"] == step} for step in seen}
    assert judged_by == {0: {"words"}, 1: {"rules"}, 2: {"rules"}}
