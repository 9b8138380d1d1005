"""Whole updates of RLOO, GRPO, REINFORCE++ and best-of-n against plain references: a story at a time, from full logits.

PPO's own is in test_ppo_update.py.
"""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from services.student_trainer.algorithms import make_algorithm
from services.student_trainer.algorithms.experience import Algorithm, JudgedStories
from services.student_trainer.algorithms.updating import NotFiniteError, UpdateStats, make_optimizer, update
from services.student_trainer.policy import Policy
from services.student_trainer.rollout import write_stories
from services.student_trainer.settings import InteractSettings, StudentSettings
from services.student_trainer.student import build_student
from tests.trainer_helpers import tiny_tokenizer

KL, TEMPERATURE, MAX_NEW_TOKENS = 0.1, 0.8, 10
REWARDS = torch.tensor([0.3, 0.9, 0.5, 0.2, 0.6, 0.1])
USABLE = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
LENGTHS = torch.tensor([10, 7, 9, 1, 4, 6])
SECTIONS = {"ppo": "ppo", "rloo": "rloo", "grpo": "grpo", "reinforce++": "reinforce_plus_plus", "bon": "bon"}
CRITIC_FREE = pytest.mark.parametrize("name", ["rloo", "grpo", "reinforce++", "bon"])


def algorithm(name: str, **own: Any) -> Algorithm:
    """With a micro-batch that does not divide the batch."""
    block = {"learning_rate": 1e-2, "micro_batch_size": 4} | own
    options = {"algorithm": name, SECTIONS[name]: block, "batch_size": 6, "max_new_tokens": MAX_NEW_TOKENS}
    return make_algorithm(InteractSettings.model_validate(options))


@cache
def _student() -> Any:
    student = StudentSettings(layers=2, heads=2, width=16, context=64, dropout=0.1)
    return build_student(student, tiny_tokenizer(), seed=1)


def fresh_policy(*, moved: bool = True, value_head: bool = False) -> Policy:
    """`moved`: a reference that differs, so that the KL is not zero."""
    policy = Policy.from_student(copy.deepcopy(_student()), seed=2, value_head=value_head)
    if moved:
        with torch.no_grad():
            for p in policy.model.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return policy


@cache
def stories(rewards: tuple[float, ...] | None = None, usable: tuple[float, ...] | None = None) -> JudgedStories:
    """Six stories of 10, 7, 9, 1, 4 and 6 tokens; what follows a story's end is padding."""
    policy = fresh_policy()
    written = write_stories(
        policy.model, tiny_tokenizer(), "Once upon a time,", seed=3, step=0, indices=range(6), max_new_tokens=10
    )
    mask = written.mask_BT * (torch.arange(written.mask_BT.shape[1]) < LENGTHS[:, None])
    written = replace(written, mask_BT=mask, responses_BT=torch.where(mask > 0, written.responses_BT, 1))
    return JudgedStories(
        written.sequences_BS,
        mask,
        REWARDS if rewards is None else torch.tensor(rewards),
        USABLE if usable is None else torch.tensor(usable),
    )


def learn(
    chosen: Algorithm, policy: Policy, judged: JudgedStories, kl: float = KL, optimizer: Any = None
) -> UpdateStats:
    """Gather and update, with SGD at rate 1: Adam turns rounding noise into steps where a gradient is zero."""
    experience = chosen.gather(policy, judged, kl, TEMPERATURE)
    optimizer = optimizer or torch.optim.SGD(policy.parameters(), lr=1.0)
    return update(chosen, policy, optimizer, experience, TEMPERATURE, torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class PlainStory:
    """A usable story without padding, with what policy and reference said of its tokens before the update."""

    ids: Tensor
    prompt: int
    index: int
    reward: float
    old: Tensor
    reference: Tensor


def token_distributions(model: Any, ids: Tensor, prompt: int) -> Tensor:
    return torch.log_softmax(model(ids[None]).logits[0] / TEMPERATURE, dim=-1)[prompt - 1 : -1]


def token_logprobs(model: Any, ids: Tensor, prompt: int) -> Tensor:
    rows = token_distributions(model, ids, prompt)
    return torch.stack([rows[t, ids[prompt + t]] for t in range(len(ids) - prompt)])


def plain_stories(policy: Policy, judged: JudgedStories) -> list[PlainStory]:
    prompt = judged.sequences_BS.shape[1] - judged.mask_BT.shape[1]
    found = []
    for b in range(len(judged.rewards_B)):
        if judged.usable_B[b] > 0:
            ids = judged.sequences_BS[b, : prompt + int(judged.mask_BT[b].sum())]
            with torch.no_grad():
                old = token_logprobs(policy.model, ids, prompt)
                reference = token_logprobs(policy.reference, ids, prompt)
            found.append(PlainStory(ids, prompt, b, float(judged.rewards_B[b]), old, reference))
    return found


PlainLoss = Callable[[Any, Sequence[PlainStory]], Tensor]


def clipped(ratio: Tensor, advantage: Tensor | float) -> Tensor:
    return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


def plain_rloo(size: int) -> PlainLoss:
    def loss(model: Any, written: Sequence[PlainStory]) -> Tensor:
        rewards = {s.index: s.reward - KL * float((s.old - s.reference).sum()) for s in written}
        losses = []
        for s in written:
            others = [r for i, r in rewards.items() if i != s.index and i // size == s.index // size]
            advantage = rewards[s.index] - statistics.fmean(others) if others else 0.0
            losses.append(-advantage * token_logprobs(model, s.ids, s.prompt).sum())
        return torch.stack(losses).mean()

    return loss


def plain_grpo(scale: bool, constant: bool, entropy: float = 0.0) -> PlainLoss:
    def loss(model: Any, written: Sequence[PlainStory]) -> Tensor:
        rewards = [s.reward for s in written]
        losses = []
        for s in written:
            advantage = s.reward - statistics.fmean(rewards)
            if scale:
                advantage /= statistics.stdev(rewards) + 1e-4
            logprobs = token_logprobs(model, s.ids, s.prompt)
            away = s.reference - logprobs
            terms = clipped((logprobs - s.old).exp(), advantage) + KL * (away.exp() - away - 1)
            if entropy:
                rows = token_distributions(model, s.ids, s.prompt)
                terms = terms + entropy * (rows.exp() * rows).sum(-1)
            losses.append(terms.sum() / MAX_NEW_TOKENS if constant else terms.mean())
        return torch.stack(losses).mean()

    return loss


def plain_reinforce_plus_plus(model: Any, written: Sequence[PlainStory]) -> Tensor:
    sums = []
    for s in written:
        rewards = -KL * (s.old - s.reference)
        rewards[-1] += s.reward
        sums.append(torch.stack([rewards[t:].sum() for t in range(len(rewards))]))
    every = torch.cat(sums)
    losses = []
    for s, rewards in zip(written, sums, strict=True):
        ratio = (token_logprobs(model, s.ids, s.prompt) - s.old).exp()
        losses.append(clipped(ratio, (rewards - every.mean()) / (every.var() + 1e-8).sqrt()))
    return torch.cat(losses).mean()


def plain_bon(model: Any, written: Sequence[PlainStory]) -> Tensor:
    best = sorted(written, key=lambda s: -s.reward)[:2]
    return -torch.cat([token_logprobs(model, s.ids, s.prompt) for s in best]).mean()


@pytest.mark.parametrize(
    ("chosen", "plain", "epochs"),
    [
        pytest.param(algorithm("rloo"), plain_rloo(6), 1, id="rloo"),
        pytest.param(algorithm("rloo", group_size=3), plain_rloo(3), 1, id="rloo-groups"),
        pytest.param(algorithm("grpo", epochs=3), plain_grpo(True, False), 3, id="grpo"),
        pytest.param(
            algorithm("grpo", epochs=3, scale_by_std=False, length_norm="constant"),
            plain_grpo(False, True),
            3,
            id="dr-grpo",
        ),
        pytest.param(algorithm("grpo", entropy_weight=0.3), plain_grpo(True, False, 0.3), 1, id="entropy"),
        pytest.param(algorithm("reinforce++", epochs=3), plain_reinforce_plus_plus, 3, id="reinforce++"),
        pytest.param(algorithm("bon", epochs=2, best_share=0.4), plain_bon, 2, id="bon"),
    ],
)
def test_update_equals_the_plain_reference(chosen: Algorithm, plain: PlainLoss, epochs: int) -> None:
    policy, other = fresh_policy(), fresh_policy()
    start = [p.detach().clone() for p in policy.parameters()]
    learn(chosen, policy, stories())
    written = plain_stories(other, stories())
    optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
    for _ in range(epochs):
        optimizer.zero_grad()
        plain(other.model, written).backward()
        optimizer.step()
    for ours, theirs in zip(policy.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)
    assert max(float((a - b.detach()).abs().max()) for a, b in zip(start, policy.parameters(), strict=True)) > 1e-3


@pytest.mark.parametrize("name", list(SECTIONS))
def test_micro_batches_change_nothing_but_rounding(name: str) -> None:
    after = []
    for size in (2, 64):
        policy = fresh_policy(value_head=name == "ppo")
        learn(algorithm(name, micro_batch_size=size), policy, stories())
        after.append(list(policy.parameters()))
    for small, large in zip(*after, strict=True):
        torch.testing.assert_close(small, large, atol=1e-6, rtol=1e-4)


@CRITIC_FREE
def test_there_is_no_value_head(name: str) -> None:
    chosen, policy = algorithm(name), fresh_policy()
    assert not chosen.needs_value_head
    stats = learn(chosen, policy, stories(), optimizer=make_optimizer(policy, chosen.settings))
    assert (stats.value_loss, stats.value_clip_fraction, stats.explained_variance) == (None, None, None)
    assert stats.ratio_first_pass == (pytest.approx(1.0, abs=1e-6) if name == "bon" else 1.0)
    assert stats.passes_skipped == 0


def test_ppo_without_a_value_head_says_so() -> None:
    with pytest.raises(ValueError, match="ppo learns with a value head"):
        algorithm("ppo").gather(fresh_policy(), stories(), KL, TEMPERATURE)


@pytest.mark.parametrize("name", list(SECTIONS))
def test_a_story_without_verdict_changes_nothing(name: str) -> None:
    """Whatever reward stands there, the weights after the update are the same bits."""
    after = []
    for bogus in (0.0, 1e6, float("-inf")):
        policy = fresh_policy(value_head=name == "ppo")
        rewards = REWARDS.clone()
        rewards[2] = bogus
        judged = replace(stories(), rewards_B=rewards)
        learn(algorithm(name), policy, judged)
        after.append([p.detach().clone() for p in policy.parameters()])
    assert all(torch.equal(a, b) for other in after[1:] for a, b in zip(after[0], other, strict=True))


@pytest.mark.parametrize("name", list(SECTIONS))
def test_no_usable_story_is_refused(name: str) -> None:
    policy = fresh_policy(value_head=name == "ppo")
    with pytest.raises(ValueError, match="empty mask"):
        algorithm(name).gather(policy, stories(usable=(0.0,) * 6), KL, TEMPERATURE)


@pytest.mark.parametrize("name", list(SECTIONS))
def test_one_usable_story_leaves_finite_weights(name: str) -> None:
    policy = fresh_policy(value_head=name == "ppo")
    stats = learn(algorithm(name), policy, stories(usable=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)))
    assert all(bool(p.isfinite().all()) for p in policy.parameters())
    assert stats.gradient_norm >= 0.0


@pytest.mark.parametrize("name", ["rloo", "grpo", "reinforce++"])
def test_equal_rewards_move_nothing(name: str) -> None:
    """Not even by the momentum of an earlier batch."""
    chosen, policy = algorithm(name), fresh_policy(moved=False)
    optimizer = make_optimizer(policy, chosen.settings)
    learn(chosen, policy, stories(), 0.0, optimizer)
    before = [p.detach().clone() for p in policy.parameters()]
    stats = learn(chosen, policy, stories(rewards=(0.7,) * 6), 0.0, optimizer)
    assert (stats.gradient_norm, stats.passes_skipped) == (0.0, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_the_best_are_chosen_and_ties_go_to_the_earlier() -> None:
    judged = stories(rewards=(0.5, 0.2, 0.9, 0.5, 0.5, 0.1))  # story 2 has no verdict
    gathered = algorithm("bon", best_share=0.4).gather(fresh_policy(), judged, KL, TEMPERATURE)
    assert gathered.mask_RT.sum(dim=1).tolist() == [10, 1]  # stories 0 and 3, not 4
    assert gathered.stories == 5
    assert gathered.kl_B.shape == (6,)


@CRITIC_FREE
def test_a_nan_cannot_reach_the_weights(name: str) -> None:
    policy = fresh_policy()
    chosen = algorithm(name)
    gathered = chosen.gather(policy, stories(), KL, TEMPERATURE)
    gathered = replace(gathered, advantages_RT=gathered.advantages_RT * float("nan"))
    before = [p.detach().clone() for p in policy.parameters()]
    with pytest.raises(NotFiniteError, match=rf"interact\.{SECTIONS[name]}\.learning_rate"):
        update(chosen, policy, make_optimizer(policy, chosen.settings), gathered, 1.0, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


@pytest.mark.parametrize("name", ["ppo", "reinforce++"])
def test_the_estimator_of_the_settings_is_used(name: str) -> None:
    options = {"algorithm": name, "kl": {"estimator": "k2"}, "batch_size": 6}
    policy = fresh_policy(value_head=name == "ppo")
    with_k2 = make_algorithm(InteractSettings.model_validate(options)).gather(policy, stories(), KL, TEMPERATURE)
    with_k1 = algorithm(name).gather(policy, stories(), KL, TEMPERATURE)
    assert not torch.equal(with_k1.advantages_RT, with_k2.advantages_RT)
    assert with_k1.kl_per_story == with_k2.kl_per_story  # what is recorded is k1 always
