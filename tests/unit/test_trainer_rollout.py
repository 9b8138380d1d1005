"""Decoding: the right tokens from the right distribution, the same whatever the batch."""

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import GPT2LMHeadModel

from services.student_trainer.policy import Policy
from services.student_trainer.rollout import Rollout, join, write_stories
from services.student_trainer.sampling import draw_tokens, story_uniforms
from services.student_trainer.settings import StudentSettings
from services.student_trainer.student import build_student
from tests.trainer_helpers import tiny_tokenizer

PROMPT = "Once upon a time,"


@pytest.fixture(scope="module")
def student() -> GPT2LMHeadModel:
    torch.set_num_threads(1)
    settings = StudentSettings(layers=2, heads=2, width=16, context=64, dropout=0.3)
    model = cast(GPT2LMHeadModel, build_student(settings, tiny_tokenizer(), seed=1))
    with torch.no_grad():
        model.transformer.wte.weight.mul_(8.0)  # a peaked distribution: mistakes in position or mask would show
    return model.eval()  # type: ignore[no-any-return]


@given(st.integers(0, 2**31), st.lists(st.floats(-20, 20), min_size=2, max_size=30), st.floats(0.0, 0.9999999))
@settings(max_examples=100, deadline=None)
def test_pick_is_the_inverse_cdf(seed: int, logits: list[float], uniform: float) -> None:
    probabilities = torch.softmax(torch.tensor(logits), dim=-1).double().numpy()
    picked = int(draw_tokens(torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64), 1.0)[0])
    cdf = np.cumsum(probabilities) / probabilities.sum()
    below = cdf[picked - 1] if picked else 0.0
    assert below - 1e-5 <= uniform <= cdf[picked] + 1e-5


def test_a_token_of_probability_zero_is_never_picked() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]]).expand(5, -1)
    picked, _ = draw_tokens(logits, torch.tensor([0.0, 0.4999, 0.5, 0.75, 1.0 - 1e-12], dtype=torch.float64), 1.0)
    assert set(picked.tolist()) == {1, 3}


def test_the_largest_uniform_draws_the_last_token_that_is_possible() -> None:
    """However the sums of single precision round."""
    logits = torch.full((200, 300), float("-inf"))
    logits[:, 10:200] = torch.randn(200, 190, generator=torch.Generator().manual_seed(0))
    below_one = torch.full((200,), 1.0 - 2.0**-53, dtype=torch.float64)
    assert (draw_tokens(logits, below_one, 1.0)[0] == 199).all()
    assert (draw_tokens(logits, below_one * 0, 1.0)[0] == 10).all()


def test_sampled_frequencies_match_the_distribution() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    uniforms = story_uniforms(42, 0, range(40), 500).flatten()
    picked, _ = draw_tokens(logits.expand(len(uniforms), -1), uniforms, 0.7)
    counts = torch.bincount(picked, minlength=4).numpy()
    expected = torch.softmax(logits / 0.7, dim=-1).numpy().astype(np.float64)
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-4


def test_streams_differ_between_stories_steps_and_seeds() -> None:
    rows = [story_uniforms(seed, step, [index], 8) for seed in (0, 1) for step in (0, 1) for index in (0, 1)]
    assert len({tuple(row.flatten().tolist()) for row in rows}) == len(rows)
    assert torch.equal(story_uniforms(5, 3, [2, 9], 8)[1], story_uniforms(5, 3, [9], 8)[0])


def test_a_story_does_not_depend_on_its_batch(student: GPT2LMHeadModel) -> None:
    def write(indices: list[int]) -> Rollout:
        return write_stories(student, tiny_tokenizer(), PROMPT, seed=3, step=1, indices=indices, max_new_tokens=20)

    together, alone = write([0, 1, 2, 3, 4]), [write([i]) for i in range(5)]
    assert together.texts == tuple(r.texts[0] for r in alone)
    joined = join(alone, tiny_tokenizer().pad_token_id)
    assert torch.equal(joined.mask_BT, together.mask_BT)
    assert torch.equal(joined.responses_BT * joined.mask_BT.long(), together.responses_BT * together.mask_BT.long())


def test_tokens_follow_from_a_full_forward(student: GPT2LMHeadModel) -> None:
    """Each token is the one that an uncached forward pass over the whole sequence picks with the same number."""
    written = write_stories(student, tiny_tokenizer(), PROMPT, seed=3, step=1, indices=range(4), max_new_tokens=20)
    prompt = len(written.prompt_P)
    with torch.no_grad():
        logits = student(written.sequences_BS, attention_mask=torch.ones_like(written.sequences_BS)).logits
    uniforms = story_uniforms(3, 1, range(4), 20)
    for t in range(written.responses_BT.shape[1]):
        picked, _ = draw_tokens(logits[:, prompt + t - 1], uniforms[:, t], 1.0)
        alive = written.mask_BT[:, t] > 0
        assert torch.equal(picked[alive], written.responses_BT[alive, t])


def test_mask_counts_the_end_token_and_nothing_after_it(student: GPT2LMHeadModel) -> None:
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        before = student.transformer.wte.weight[tokenizer.eos_token_id].clone()
        student.transformer.wte.weight[tokenizer.eos_token_id] *= 0
        written = write_stories(student, tokenizer, PROMPT, seed=3, step=0, indices=range(30), max_new_tokens=25)
        student.transformer.wte.weight[tokenizer.eos_token_id] = before
    assert written.ended_B.any()
    for row, mask, ended in zip(written.responses_BT, written.mask_BT, written.ended_B, strict=True):
        length = int(mask.sum())
        assert mask[:length].all()
        assert (row[:length] == tokenizer.eos_token_id).sum() == int(ended)
        assert not ended or row[length - 1] == tokenizer.eos_token_id
        assert (row[length:] == tokenizer.pad_token_id).all()


def test_special_tokens_do_not_reach_the_text(student: GPT2LMHeadModel) -> None:
    written = write_stories(student, tiny_tokenizer(), PROMPT, seed=3, step=0, indices=range(40), max_new_tokens=25)
    assert not any(token in text for text in written.texts for token in ("<s>", "</s>", "<pad>", "<unk>", "<mask>"))


def test_temperature_reaches_log_probabilities(student: GPT2LMHeadModel) -> None:
    """Log-probabilities are those of the distribution that was sampled from: temperature is applied to both."""
    written = write_stories(
        student, tiny_tokenizer(), PROMPT, seed=3, step=1, indices=range(3), max_new_tokens=9, temperature=0.5
    )
    prompt = len(written.prompt_P)
    policy = Policy.from_student(student, seed=0)
    scores = policy.token_scores(written.sequences_BS, written.mask_BT, temperature=0.5)
    logits = student(written.sequences_BS, attention_mask=torch.ones_like(written.sequences_BS)).logits
    expected = torch.log_softmax(logits[:, prompt - 1 : -1] / 0.5, dim=-1)
    expected = expected.gather(-1, written.responses_BT[..., None]).squeeze(-1)
    torch.testing.assert_close(scores.logprobs_BT, expected * written.mask_BT)
    torch.testing.assert_close(written.logprobs_BT, expected * written.mask_BT, atol=1e-4, rtol=0)


def test_joined_rollouts_keep_their_log_probabilities(student: GPT2LMHeadModel) -> None:
    parts = [
        write_stories(student, tiny_tokenizer(), PROMPT, seed=3, step=1, indices=[i], max_new_tokens=length)
        for i, length in ((0, 4), (1, 9))
    ]
    joined = join(parts, tiny_tokenizer().pad_token_id)
    assert joined.logprobs_BT.shape == joined.mask_BT.shape
    for row, part in zip(joined.logprobs_BT, parts, strict=True):
        width = part.logprobs_BT.shape[1]
        assert torch.equal(row[:width], part.logprobs_BT[0])
        assert (row[width:] == 0).all()
