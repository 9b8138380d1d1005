"""The interaction loop under each algorithm: learning, resuming, refusing what does not fit."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from fabula_proto import Story, Verdict, VerdictStatus
from services.student_trainer import checkpoints
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.rewards import UnknownCriterionError
from tests.interaction_helpers import Following, go
from tests.trainer_helpers import make_run, teacher_thread, tiny_settings, vowel_verdict


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


LEARNING: dict[str, dict[str, object]] = {
    "rloo": {"rloo": {"learning_rate": 1e-3, "group_size": 3}},
    "grpo": {"grpo": {"learning_rate": 1e-3, "epochs": 2}, "reward": {"per_criterion": True}},
    "reinforce++": {"reinforce_plus_plus": {"learning_rate": 1e-3, "epochs": 2, "minibatch_size": 3}},
    "bon": {"bon": {"learning_rate": 1e-3, "best_share": 0.5}},
}


@pytest.mark.parametrize("algorithm", list(LEARNING))
def test_each_algorithm_learns_and_resumes_bit_identical(redis_url: str, tmp_path: Path, algorithm: str) -> None:
    """One verdict a batch is missing, in the middle of a group. No value head, in memory or on the disk."""
    settings = tiny_settings(algorithm=algorithm, max_failed_share=0.5, word_budget=40, **LEARNING[algorithm])
    folder, start = make_run(tmp_path / "runs" / "whole", settings)
    stopped, stopped_start = make_run(tmp_path / "runs" / "stopped", settings)

    def judge(story: Story) -> Verdict:
        if story.id.endswith("-1"):
            return Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason="the model was away")
        return vowel_verdict(story)

    following = Following()
    with teacher_thread(redis_url, judge):
        whole = go(redis_url, folder, start, settings, following)
        with pytest.raises(StopRequestedError):
            go(redis_url, stopped, stopped_start, settings, Following(stop_after_updates=1))
        (point,) = stopped.interact_resume.iterdir()
        final = go(redis_url, stopped, stopped_start, settings, Following())
    assert point.name == "1"  # of two updates
    weights = [(path / "model.safetensors").read_bytes() for path in (start, whole, final)]
    assert weights[0] != weights[1] == weights[2]
    assert stopped.ledger.read_bytes() == folder.ledger.read_bytes()
    tables = [pq.read_table(f.stories).drop_columns(["run"]) for f in (folder, stopped)]
    assert tables[0].equals(tables[1])
    assert "value_head" not in checkpoints.load_state(final)
    assert all(line.value_loss is None and line.gradient_norm > 0 for line in following.lines)


def test_another_algorithm_does_not_go_on_from_a_saved_state(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with teacher_thread(redis_url), pytest.raises(StopRequestedError):
        go(redis_url, folder, start, settings, Following(stop_after_updates=1))
    with pytest.raises(checkpoints.CheckpointError, match=r"written by ppo, and interact\.algorithm is grpo"):
        go(redis_url, folder, start, tiny_settings(algorithm="grpo"), Following())


def test_weights_that_do_not_fit_the_rubric_stop_the_run_with_its_state_saved(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(reward={"weights": {"grammar": 2.0}})
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with teacher_thread(redis_url), pytest.raises(UnknownCriterionError, match="names grammar"):
        go(redis_url, folder, start, settings, Following())
    assert checkpoints.is_complete(folder.interact_resume / "0")
