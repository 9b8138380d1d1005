"""Stories that an earlier policy wrote: importance weights and AReaL's decoupled objective."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.student_trainer.losses import importance_weights, policy_loss_terms
from tests.unit.test_algorithms_update import (
    KL,
    SECTIONS,
    PlainStory,
    algorithm,
    clipped,
    fresh_policy,
    learn,
    plain_stories,
    stories,
    token_logprobs,
)

WEIGHTED = ["ppo", "rloo", "grpo", "reinforce++"]


def behaviour(judged_mask: Tensor, logprobs: Tensor) -> Tensor:
    """Log-probabilities of a policy that is not the learning one; something else where the mask is 0."""
    noise = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(5))
    return torch.where(judged_mask > 0, logprobs + 0.3 * noise, -7.0)


def before_update() -> Tensor:
    judged, policy = stories(), fresh_policy()
    with torch.no_grad():
        return policy.token_scores(judged.sequences_BS, judged.mask_BT, 0.8).logprobs_BT


def test_weights_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, 0.0, 0.0]])
    wrote = torch.tensor([[-1.5, -1.0, -9.0], [-1.0, -9.0, -9.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    by_token = importance_weights(logprobs, wrote, mask, whole_story=False)
    torch.testing.assert_close(by_token, torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0]]).exp())
    by_story = importance_weights(logprobs, wrote, mask, whole_story=True)
    torch.testing.assert_close(by_story, torch.tensor([[-0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]).exp())


@given(st.integers(0, 10_000), st.floats(0.5, 3.0))
@settings(max_examples=40, deadline=None)
def test_a_weight_leads_from_the_writer_to_the_policy_before_the_update(seed: int, spread: float) -> None:
    """Summed over all tokens that could be drawn: the loss and its gradient are those of on-policy learning."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return (spread * torch.randn(1, 7, generator=generator, dtype=torch.float64)).log_softmax(-1)

    wrote, before, advantages = drawn(), drawn(), drawn()
    logits = torch.randn(1, 7, generator=generator, dtype=torch.float64).requires_grad_()
    terms = policy_loss_terms((logits.log_softmax(-1) - before).exp(), advantages, 0.2)
    weights = importance_weights(before, wrote, torch.ones(1, 7), whole_story=False)
    found = (wrote.exp() * weights * terms).sum()
    wanted = (before.exp() * terms).sum()
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", list(SECTIONS))
def test_a_writer_that_is_the_learner_changes_no_bit(name: str) -> None:
    after = []
    for wrote in (None, before_update()):
        policy = fresh_policy(value_head=name == "ppo")
        stats = learn(algorithm(name), policy, replace(stories(), behaviour_BT=wrote))
        after.append([p.detach().clone() for p in policy.parameters()])
        weighted = wrote is not None and name in WEIGHTED
        assert (stats.importance_mean, stats.importance_max) == ((1.0, 1.0) if weighted else (None, None))
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))


def test_best_of_n_learns_the_same_whoever_wrote() -> None:
    judged, after = stories(), []
    for wrote in (None, behaviour(judged.mask_BT, before_update())):
        policy = fresh_policy()
        learn(algorithm("bon"), policy, replace(judged, behaviour_BT=wrote))
        after.append([p.detach().clone() for p in policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))


PlainLoss = Callable[[Any, Sequence[PlainStory], Tensor], Tensor]


def plain_grpo(model: Any, written: Sequence[PlainStory], wrote: Tensor) -> Tensor:
    rewards = torch.tensor([s.reward for s in written])
    losses = []
    for s in written:
        advantage = (s.reward - rewards.mean()) / (rewards.std() + 1e-4)
        logprobs = token_logprobs(model, s.ids, s.prompt)
        away = s.reference - logprobs
        weights = (s.old - wrote[s.index, : len(s.old)]).exp()
        losses.append((weights * (clipped((logprobs - s.old).exp(), advantage) + KL * (away.exp() - away - 1))).mean())
    return torch.stack(losses).mean()


def plain_rloo(model: Any, written: Sequence[PlainStory], wrote: Tensor) -> Tensor:
    rewards = torch.stack([s.reward - KL * (s.old - s.reference).sum() for s in written])
    losses = []
    for i, s in enumerate(written):
        advantage = rewards[i] - (rewards.sum() - rewards[i]) / (len(rewards) - 1)
        weight = (s.old.sum() - wrote[s.index, : len(s.old)].sum()).exp()
        losses.append(-weight * advantage * token_logprobs(model, s.ids, s.prompt).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("name", "plain", "epochs"), [("grpo", plain_grpo, 3), ("rloo", plain_rloo, 1)])
def test_update_equals_the_plain_reference(name: str, plain: PlainLoss, epochs: int) -> None:
    policy, other = fresh_policy(), fresh_policy()
    wrote = behaviour(stories().mask_BT, before_update())
    own = {"epochs": epochs} if epochs > 1 else {}
    stats = learn(algorithm(name, **own), policy, replace(stories(), behaviour_BT=wrote))
    written = plain_stories(other, stories())
    optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
    for _ in range(epochs):
        optimizer.zero_grad()
        plain(other.model, written, wrote).backward()
        optimizer.step()
    for ours, theirs in zip(policy.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)
    assert stats.importance_max is not None
    assert stats.importance_max > 1.1
    assert stats.ratio_first_pass == 1.0  # the clip is around the policy before the update, not around the writer


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_masked_story_has_no_weight(name: str) -> None:
    """Whatever its writer is said to have thought of it."""
    after = []
    for bogus in (-7.0, -500.0):
        policy = fresh_policy(value_head=name == "ppo")
        wrote = behaviour(stories().mask_BT, before_update())
        wrote[2] = bogus
        stats = learn(algorithm(name), policy, replace(stories(), behaviour_BT=wrote))
        after.append((stats.importance_max, [p.detach().clone() for p in policy.parameters()]))
    assert after[0][0] == after[1][0]
    assert all(torch.equal(a, b) for a, b in zip(after[0][1], after[1][1], strict=True))
