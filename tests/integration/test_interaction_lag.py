"""`lag`: the teacher judges while the student learns, and the result still depends on the configuration alone."""

import json
import threading
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from fabula_proto import Story, Verdict, VerdictStatus
from services.student_trainer import checkpoints
from services.student_trainer.interaction import StopRequestedError, TeacherFailedError
from services.student_trainer.replaying import replay
from services.student_trainer.run_folder import RunFolder
from tests.interaction_helpers import Following, go
from tests.trainer_helpers import make_run, teacher_thread, tiny_settings, vowel_verdict

UPDATES = 5
WORDS = 4 + UPDATES * 18  # tiny_settings: 4 prompt words once, 6 stories of 3 teacher words an update


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def weights(folder: RunFolder) -> bytes:
    return (folder.checkpoints / f"chck_1k_rl_{WORDS}" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("lag", [1, 2, 9])
def test_a_step_is_written_by_the_policy_of_lag_updates_ago(redis_url: str, tmp_path: Path, lag: int) -> None:
    settings = tiny_settings(word_budget=WORDS, lag=lag)
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    following = Following()
    with teacher_thread(redis_url) as judged:
        go(redis_url, folder, start, settings, following)
    versions = [max(0, step - lag) for step in range(UPDATES)]
    assert [line.policy_version for line in following.lines] == versions
    assert {(batch.step, batch.policy_version) for batch in judged} == set(enumerate(versions))
    assert len(judged) == 2 * UPDATES  # nothing was paid for that is not learned from
    assert following.lines[-1].words_spent == WORDS
    table = pq.read_table(folder.stories).to_pylist()
    assert [row["policy_version"] for row in table] == [version for version in versions for _ in range(6)]


def test_the_first_updates_are_those_without_lag_and_then_stories_differ(redis_url: str, tmp_path: Path) -> None:
    texts = {}
    for lag in (0, 1):
        settings = tiny_settings(word_budget=WORDS, lag=lag, ppo={"learning_rate": 0.03})
        folder, start = make_run(tmp_path / "runs" / str(lag), settings)
        following = Following()
        with teacher_thread(redis_url):
            go(redis_url, folder, start, settings, following)
        weights = [line.importance_max for line in following.lines]
        if lag == 0:
            assert weights == [None] * UPDATES
        else:  # the first update learns from the policy that wrote, later ones from an earlier one
            assert weights[0] == pytest.approx(1.0, abs=1e-4)
            assert all(weight is not None and weight > 1.001 for weight in weights[1:])
        texts[lag] = [row["text"] for row in pq.read_table(folder.stories).to_pylist()]
    assert texts[0][:6] == texts[1][:6]
    assert texts[0][6:12] != texts[1][6:12]


def test_the_teacher_judges_ahead_while_the_student_learns(redis_url: str, tmp_path: Path) -> None:
    """Before the first update is learned from, the second one's stories are with the teacher."""
    settings = tiny_settings(word_budget=WORDS, lag=1)
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    ahead = threading.Event()

    def patient(story: Story) -> Verdict:
        step = int(story.id.partition("-")[0])
        if step == 1:
            ahead.set()
        return vowel_verdict(story)

    seen: list[bool] = []
    following = Following()
    step_done = following.watcher.on_step

    def on_step(*arguments: object) -> None:
        if not seen:
            seen.append(ahead.wait(timeout=20))  # nothing more is sent until this returns
        step_done(*arguments)  # type: ignore[arg-type]

    object.__setattr__(following.watcher, "on_step", on_step)
    with teacher_thread(redis_url, patient):
        go(redis_url, folder, start, settings, following)
    assert seen == [True]


@pytest.mark.parametrize("question", [0, 3, 5, 8, 10])
def test_a_stopped_run_ends_bit_identical(redis_url: str, tmp_path: Path, question: int) -> None:
    """Stopped at any question: what was in flight is saved, and its verdicts are not asked for twice if they came."""
    settings = tiny_settings(word_budget=WORDS, lag=2, checkpoint_every_words=1000)
    whole, whole_start = make_run(tmp_path / "whole" / "a", settings)
    stopped, start = make_run(tmp_path / "stopped" / "b", settings)
    with teacher_thread(redis_url):
        go(redis_url, whole, whole_start, settings, Following())
        with pytest.raises(StopRequestedError):
            go(redis_url, stopped, start, settings, Following(stop_at_question=question))
        go(redis_url, stopped, start, settings, Following())
    assert weights(stopped) == weights(whole)
    assert stopped.ledger.read_bytes() == whole.ledger.read_bytes()
    tables = [pq.read_table(f.stories).drop_columns(["run"]) for f in (whole, stopped)]
    assert tables[0].equals(tables[1])


def test_a_failed_step_is_asked_for_again(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(word_budget=WORDS, lag=1)
    whole, whole_start = make_run(tmp_path / "whole" / "a", settings)
    folder, start = make_run(tmp_path / "failed" / "b", settings)
    with teacher_thread(redis_url):
        go(redis_url, whole, whole_start, settings, Following())

    def down(story: Story) -> Verdict:
        if story.id.startswith("2-"):
            return Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason="the model was away")
        return vowel_verdict(story)

    with teacher_thread(redis_url, down), pytest.raises(TeacherFailedError, match="6 of 6 stories of step 2"):
        go(redis_url, folder, start, settings, Following())
    (point,) = folder.interact_resume.iterdir()
    assert [written["step"] for written in checkpoints.load_state(point)["in_flight"]] == [2, 3]
    with teacher_thread(redis_url):
        go(redis_url, folder, start, settings, Following())
    assert weights(folder) == weights(whole)


def test_a_run_with_lag_is_replayed(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(word_budget=WORDS, lag=2, checkpoint_every_words=1000)
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with teacher_thread(redis_url), pytest.raises(StopRequestedError):
        go(redis_url, folder, start, settings, Following(stop_after_updates=3))
    result = replay(folder, RunFolder(tmp_path / "again"), lambda *_: None, lambda: False)
    assert (result.updates, result.differs_at) == (3, None)
    assert all(kept.same for kept in result.weights)
    assert [kept.checkpoint for kept in result.weights] == ["3"]


def test_times_say_who_waited(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with teacher_thread(redis_url):
        go(redis_url, folder, start, settings, Following())
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    # Without lag the teacher has nothing while the student learns, nor until the next first chunk is written.
    for before, line in pairwise(lines):
        assert 0.5 * before["learn_s"] < line["wait_for_student_s"]
