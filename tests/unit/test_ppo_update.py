"""A whole PPO update against a plain reference that works story by story, unpadded, from full logits."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from services.student_trainer.algorithms.experience import Experience, JudgedStories
from services.student_trainer.algorithms.ppo import PPO
from services.student_trainer.algorithms.updating import UpdateStats, make_optimizer, update
from services.student_trainer.learning_settings import PPOSettings
from services.student_trainer.policy import Policy
from services.student_trainer.rollout import Rollout, write_stories
from services.student_trainer.settings import StudentSettings
from services.student_trainer.student import build_student
from tests.trainer_helpers import tiny_tokenizer

SETTINGS = PPOSettings(learning_rate=1e-2, epochs=3, micro_batch_size=4)
KL = 0.1


@pytest.fixture
def policy() -> Policy:
    student = StudentSettings(layers=2, heads=2, width=16, context=64, dropout=0.1)
    policy = Policy.from_student(build_student(student, tiny_tokenizer(), seed=1), seed=2)
    with torch.no_grad():  # a reference that differs, so that the KL is not zero
        for parameter in policy.model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.add_(0.05 * noise)
    return policy


def rollout(policy: Policy, stories: int = 6) -> Rollout:
    """Stories of 10, 7, 9, 1, ... tokens; what follows a story's end is padding."""
    written = write_stories(
        policy.model, tiny_tokenizer(), "Once upon a time,", seed=3, step=0, indices=range(stories), max_new_tokens=10
    )
    lengths = torch.tensor([10, 7, 9, 1, 4, 6])[:stories]
    mask = written.mask_BT * (torch.arange(written.mask_BT.shape[1]) < lengths[:, None])
    return replace(written, mask_BT=mask, responses_BT=torch.where(mask > 0, written.responses_BT, 1))


def experience(policy: Policy, written: Rollout, rewards: Tensor, usable: Tensor) -> Experience:
    judged = JudgedStories(written.sequences_BS, written.mask_BT, rewards, usable)
    return PPO(SETTINGS, "k1").gather(policy, judged, KL, 1.0)


def learn(
    policy: Policy, gathered: Experience, settings: PPOSettings = SETTINGS, sgd: float | None = None
) -> UpdateStats:
    """One update: Adam as in runs, or plain SGD at the rate `sgd`."""
    adam = make_optimizer(policy, settings)
    optimizer = adam if sgd is None else torch.optim.SGD(policy.parameters(), lr=sgd)
    return update(PPO(settings, "k1"), policy, optimizer, gathered, 1.0, torch.Generator().manual_seed(0))


def reference_update(policy: Policy, written: Rollout, rewards: Tensor, usable: Tensor) -> None:
    """TRL 0.9.4's step written plainly: one story at a time, no padding, means over all response tokens."""
    prompt = len(written.prompt_P)
    stories = [
        (torch.cat([written.prompt_P, written.responses_BT[b][written.mask_BT[b] > 0]]), float(rewards[b]))
        for b in range(len(rewards))
        if usable[b] > 0
    ]

    def scores(model: torch.nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
        assert policy.value_head is not None
        output = model(ids[None], output_hidden_states=True)
        logprobs = torch.log_softmax(output.logits[0], dim=-1)
        chosen = torch.stack([logprobs[i - 1, ids[i]] for i in range(prompt, len(ids))])
        return chosen, policy.value_head(output.hidden_states[-1][:, prompt - 1 : -1])[0]

    old = []
    for ids, reward in stories:
        with torch.no_grad():
            logprobs, values = scores(policy.model, ids)
            reference, _ = scores(policy.reference, ids)
        token_rewards = -KL * (logprobs - reference)
        token_rewards[-1] += reward
        advantages = torch.zeros_like(values)
        following = 0.0
        for t in reversed(range(len(values))):
            after = float(values[t + 1]) if t + 1 < len(values) else 0.0
            following = float(token_rewards[t] + after - values[t]) + 0.95 * following
            advantages[t] = following
        old.append((logprobs, values, advantages, advantages + values))
    every = torch.cat([a for _, _, a, _ in old])
    mean, deviation = every.mean(), (every.var() + 1e-8).sqrt()

    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    for _ in range(SETTINGS.epochs):
        losses = []
        for (ids, _), (old_logprobs, old_values, advantages, returns) in zip(stories, old, strict=True):
            logprobs, values = scores(policy.model, ids)
            ratio = (logprobs - old_logprobs).exp()
            white = (advantages - mean) / deviation
            surrogate = -torch.min(white * ratio, white * ratio.clamp(0.8, 1.2))
            clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
            value = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)
            losses.append(surrogate + 0.1 * value)
        optimizer.zero_grad()
        torch.cat(losses).mean().backward()
        optimizer.step()


def test_optimizer_is_the_papers(policy: Policy) -> None:
    optimizer = make_optimizer(policy, PPOSettings())
    options = {name: group[name] for group in optimizer.param_groups for name in ("lr", "betas", "eps", "weight_decay")}
    assert options == {"lr": 1e-6, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}


def test_update_equals_the_plain_reference(policy: Policy) -> None:
    """With SGD: Adam divides by the gradient's size, which turns rounding noise into steps where a gradient is zero."""
    written = rollout(policy)
    rewards, usable = torch.linspace(0.0, 1.0, 6), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    other = Policy(copy.deepcopy(policy.model), copy.deepcopy(policy.value_head), copy.deepcopy(policy.reference))
    learn(policy, experience(policy, written, rewards, usable), sgd=1.0)
    reference_update(other, written, rewards, usable)
    for ours, theirs in zip(policy.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)


def test_first_ratio_is_exactly_one(policy: Policy) -> None:
    written = rollout(policy)
    gathered = experience(policy, written, torch.rand(6), torch.ones(6))
    stats = learn(policy, gathered)
    assert stats.ratio_first_pass == 1.0


def test_kl_is_zero_against_oneself() -> None:
    student = StudentSettings(layers=1, heads=1, width=8, context=64, dropout=0.5)
    policy = Policy.from_student(build_student(student, tiny_tokenizer(), seed=1), seed=2)
    gathered = experience(policy, rollout(policy), torch.rand(6), torch.ones(6))
    assert gathered.kl_per_story == 0.0


def test_stories_without_verdict_change_nothing(policy: Policy) -> None:
    """Whatever reward stands in a masked row, the weights after the update are the same."""
    written = rollout(policy)
    usable = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    after = []
    for bogus in (0.0, 1e6):
        twin = Policy(copy.deepcopy(policy.model), copy.deepcopy(policy.value_head), policy.reference)
        rewards = torch.linspace(0.0, 1.0, 6)
        rewards[1] = bogus
        gathered = experience(twin, written, rewards, usable)
        learn(twin, gathered)
        after.append([p.detach().clone() for p in twin.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))


def test_a_value_head_may_start_at_the_mean(policy: Policy) -> None:
    assert policy.value_head is not None
    policy.value_head.start_at(0.25)
    gathered = experience(policy, rollout(policy), torch.rand(6), torch.ones(6))
    torch.testing.assert_close(gathered.values_RT, 0.25 * gathered.mask_RT)


def test_minibatches_visit_every_story_once(policy: Policy) -> None:
    settings = PPOSettings(learning_rate=0.01, epochs=1, minibatch_size=2)
    gathered = experience(policy, rollout(policy), torch.rand(6), torch.ones(6))
    stats = learn(policy, gathered, settings)
    assert stats.passes_skipped == 0
    assert stats.ratio_first_pass == pytest.approx(1.0, abs=1e-5)
