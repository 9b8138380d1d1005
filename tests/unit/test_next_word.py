"""Corpus batches between updates: which ones, what they cost, and a step against a formula written out."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.student_trainer.algorithms.updating import make_optimizer
from services.student_trainer.dataset import Blocks
from services.student_trainer.learning_settings import MixedSettings
from services.student_trainer.next_word import NextWord
from services.student_trainer.settings import InteractSettings
from tests.unit.test_algorithms_update import algorithm, fresh_policy


def next_word(blocks: int = 7, **mixed: Any) -> NextWord:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 300, (blocks, 9), generator=generator, dtype=torch.int32)
    return NextWord(Blocks(tokens, torch.arange(blocks)), MixedSettings.model_validate(mixed), seed=3)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_every_epoch_reads_each_block_once(blocks: int, batches: int, size: int, updates: int) -> None:
    words = next_word(blocks, batches_per_update=batches, batch_size=size)
    stream = torch.cat([words.batches(update).flatten() for update in range(updates)])
    assert len(stream) == updates * batches * size
    for epoch in stream.split(blocks):
        assert len(set(epoch.tolist())) == len(epoch)
    assert words.words(range(updates)) == int(stream.sum())  # block i holds i words
    assert torch.equal(words.batches(updates - 1).flatten(), stream[-batches * size :])


def test_another_seed_is_another_order() -> None:
    words = next_word(40, batches_per_update=1, batch_size=20)
    assert not torch.equal(words.batches(0), replace(words, seed=4).batches(0))


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_a_step_is_gradient_descent_on_the_cross_entropy(micro_batch_size: int | None) -> None:
    policy, other = fresh_policy(), fresh_policy()
    start = [p.detach().clone() for p in policy.parameters()]
    words = replace(next_word(batches_per_update=2, batch_size=3, learning_rate=0.5), micro_batch_size=micro_batch_size)
    optimizer = torch.optim.SGD(policy.parameters(), lr=9.0)
    loss = words.learn(policy, optimizer, algorithm("rloo"), update=1)
    plain = []
    for rows in words.batches(1):
        terms = []
        for tokens in words.blocks.tokens_NT[rows].long():
            logprobs = torch.log_softmax(other.model(tokens[None]).logits[0], dim=-1)
            terms += [-logprobs[i, tokens[i + 1]] for i in range(len(tokens) - 1)]
        mean = torch.stack(terms).mean()
        gradients = torch.autograd.grad(mean, list(other.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(other.parameters(), gradients, strict=True):
                parameter.sub_(0.5 * gradient)
        plain.append(mean.item())
    assert loss == pytest.approx(sum(plain) / 2, abs=1e-5)
    for ours, theirs in zip(policy.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)
    assert max(float((a - b.detach()).abs().max()) for a, b in zip(start, policy.parameters(), strict=True)) > 1e-3
    assert optimizer.param_groups[0]["lr"] == 9.0


def test_a_value_head_is_left_alone() -> None:
    policy, chosen = fresh_policy(value_head=True), algorithm("ppo")
    assert policy.value_head is not None
    head = copy.deepcopy(policy.value_head.state_dict())
    next_word(batches_per_update=1, batch_size=2).learn(policy, make_optimizer(policy, chosen.settings), chosen, 0)
    assert all(torch.equal(tensor, head[name]) for name, tensor in policy.value_head.state_dict().items())


def test_mixed_as_an_algorithm_is_explained() -> None:
    with pytest.raises(ValidationError, match=r"goes with any algorithm.*interact\.mixed\.batches_per_update"):
        InteractSettings.model_validate({"algorithm": "mixed"})
