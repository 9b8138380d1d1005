"""Learning in bfloat16: what is scored is what is learned, near to what was sampled."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from services.student_trainer.policy import Policy
from services.student_trainer.rollout import write_stories
from services.student_trainer.student import load_student
from tests.interaction_helpers import Following, go
from tests.trainer_helpers import make_run, teacher_thread, tiny_settings, tiny_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_run_learns_in_bfloat16_with_a_first_ratio_of_one(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(dtype="bfloat16", word_budget=4 + 2 * 18)
    folder, start = make_run(tmp_path / "a", settings)
    following = Following()
    with teacher_thread(redis_url):
        final = go(redis_url, folder, start, settings, following)
    assert [line.ratio_first_pass for line in following.lines] == [1.0, 1.0]
    before, after = (load_file(path / "model.safetensors") for path in (start, final))
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_scores_in_bfloat16_are_near_to_what_was_sampled(tmp_path: Path) -> None:
    _, start = make_run(tmp_path / "a", tiny_settings())
    policy = Policy.from_student(load_student(start), seed=0)
    rollout = write_stories(
        policy.model, tiny_tokenizer(), "Once upon a time,", seed=1, step=0, indices=range(8), max_new_tokens=12
    )
    errors = []
    for bfloat16 in (False, True):
        policy.bfloat16 = bfloat16
        with torch.no_grad():
            scored_BT = policy.token_scores(rollout.sequences_BS, rollout.mask_BT, 1.0).logprobs_BT
        assert scored_BT.dtype == torch.float32
        errors.append(float((scored_BT - rollout.logprobs_BT).abs().max()))
    assert errors[0] < 1e-4
    assert 1e-4 < errors[1] < 0.05
