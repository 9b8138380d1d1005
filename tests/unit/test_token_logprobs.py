"""Chunked log-probabilities against plain autograd over the whole table."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.student_trainer import token_logprobs as module
from services.student_trainer.algorithms.updating import update
from services.student_trainer.token_logprobs import token_logprobs
from tests.unit.test_algorithms_update import KL, TEMPERATURE, algorithm, fresh_policy, stories


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    rows = torch.log_softmax(torch.nn.functional.linear(hidden, weight, bias) / temperature, dim=-1)
    return rows.gather(-1, tokens[:, None]).squeeze(-1), -(rows.exp() * rows).sum(-1) if entropy else None


@given(
    seed=st.integers(0, 10_000),
    count=st.sampled_from([0, 1, module.ROWS, module.ROWS + 3, 2 * module.ROWS]),
    temperature=st.sampled_from([1.0, 0.7, 1.5]),
    biased=st.booleans(),
    entropy=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_values_and_gradients_are_those_of_the_whole_table(
    seed: int, count: int, temperature: float, biased: bool, entropy: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, offset = (torch.randn(shape, generator=generator) for shape in ((count, 5), (11, 5), (11,)))
    leaves = [hidden, 3.0 * weight, *([offset] if biased else [])]
    tokens = torch.randint(0, 11, (count,), generator=generator)
    factors = torch.randn(2, count, generator=generator)
    results = []
    for way in (token_logprobs, plain):
        inputs = [leaf.clone().requires_grad_() for leaf in leaves]
        bias = inputs[2] if biased else None
        logprobs, entropies = way(inputs[0], inputs[1], bias, tokens, temperature, entropy=entropy)
        assert (entropies is not None) == entropy
        loss = (factors[0] * logprobs).sum()
        found = [logprobs]
        if entropies is not None:
            loss = loss + (factors[1] * entropies).sum()
            found.append(entropies)
        results.append([*found, *torch.autograd.grad(loss, inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_a_token_of_no_probability_leaves_its_entropy_and_gradient_finite() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [-500.0]], requires_grad=True)
    logprobs, entropies = token_logprobs(hidden, weight, None, torch.tensor([1]), 1.0, entropy=True)
    assert entropies is not None
    assert (logprobs.item(), entropies.item()) == (-500.0, 0.0)
    (logprobs + entropies).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[-1.0], [1.0]]


def test_a_second_backward_pass_is_refused() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    loss = token_logprobs(hidden, weight, None, torch.tensor([0, 1, 2]), 1.0, entropy=False)[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        loss.backward()


def test_a_frozen_head_needs_no_gradient() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    token_logprobs(hidden, weight, None, torch.tensor([0, 1, 2]), 1.0, entropy=False)[0].sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo"])
def test_the_kept_forward_is_the_one_that_the_first_pass_would_compute(name: str) -> None:
    """Same bits with the kept forward and without it."""
    start, after = fresh_policy(value_head=name == "ppo"), []
    chosen = algorithm(name, micro_batch_size=6)
    for kept in (True, False):
        policy = copy.deepcopy(start)
        gathered = chosen.gather(policy, stories(), KL, TEMPERATURE)
        assert gathered.first_pass is not None
        gathered = gathered if kept else replace(gathered, first_pass=None)
        optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
        stats = update(chosen, policy, optimizer, gathered, TEMPERATURE, torch.Generator())
        after.append((stats, [p.detach().clone() for p in policy.parameters()]))
    assert after[0][0] == after[1][0]
    assert all(torch.equal(a, b) for a, b in zip(after[0][1], after[1][1], strict=True))


@pytest.mark.parametrize(
    ("name", "own"),
    [("ppo", {"micro_batch_size": 4}), ("ppo", {"micro_batch_size": 6, "minibatch_size": 3}), ("bon", {})],
    ids=["micro-batches", "minibatches", "bon"],
)
def test_a_forward_that_no_pass_repeats_is_not_kept(name: str, own: dict[str, int]) -> None:
    gathered = algorithm(name, **own).gather(fresh_policy(value_head=name == "ppo"), stories(), KL, TEMPERATURE)
    assert gathered.first_pass is None
    assert not gathered.logprobs_RT.requires_grad


def test_stories_of_different_prompts_are_refused() -> None:
    judged = stories()
    sequences = judged.sequences_BS.clone()
    sequences[3, 1] += 1
    with pytest.raises(ValueError, match="prompts differ"):
        fresh_policy().token_scores(sequences, judged.mask_BT, 1.0)
