"""What `algorithms/ppo.py` does differently from TRL 0.9.4's PPOTrainer: a test for each of its numbered points."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from services.student_trainer.advantages import masked_mean, masked_whiten
from services.student_trainer.algorithms.ppo import PPO
from services.student_trainer.algorithms.updating import NotFiniteError, make_optimizer, update
from services.student_trainer.learning_settings import PPOSettings
from services.student_trainer.policy import Policy
from services.student_trainer.rollout import write_stories
from tests.trainer_helpers import tiny_tokenizer
from tests.unit.test_ppo_update import SETTINGS, experience, learn, policy, rollout

__all__ = ["policy"]  # the fixture

REWARDS = torch.linspace(0.0, 1.0, 6)


def weights(policy: Policy) -> list[Tensor]:
    return [p.detach().clone() for p in policy.parameters()]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def twin(policy: Policy) -> Policy:
    return Policy(copy.deepcopy(policy.model), copy.deepcopy(policy.value_head), policy.reference)


def test_1_dropout_is_off_from_the_second_batch_on_as_well(policy: Policy) -> None:
    """The student has dropout 0.1: on, stories and ratios would differ from call to call."""

    def write() -> list[Tensor]:
        written = write_stories(
            policy.model, tiny_tokenizer(), "Once upon a time,", seed=3, step=1, indices=range(6), max_new_tokens=10
        )
        return [written.responses_BT, written.logprobs_BT]

    learn(policy, experience(policy, rollout(policy), REWARDS, torch.ones(6)))
    assert not any(module.training for module in policy.model.modules())
    assert same(write(), write())
    second = experience(policy, rollout(policy), REWARDS, torch.ones(6))
    assert learn(policy, second).ratio_first_pass == 1.0


def test_2_a_skipped_pass_is_no_step_of_momentum(policy: Policy) -> None:
    algorithm, adam = PPO(SETTINGS, "k1"), make_optimizer(policy, SETTINGS)
    gathered = experience(policy, rollout(policy), REWARDS, torch.ones(6))
    update(algorithm, policy, adam, gathered, 1.0, torch.Generator())
    before = weights(policy)
    gathered = experience(policy, rollout(policy), REWARDS, torch.ones(6))
    shifted = replace(gathered, logprobs_RT=gathered.logprobs_RT - 3.0)  # every ratio becomes e^3 = 20
    stats = update(algorithm, policy, adam, shifted, 1.0, torch.Generator())
    assert stats.passes_skipped == SETTINGS.epochs
    assert same(before, weights(policy))


def test_3_a_story_without_verdict_is_in_no_mean(policy: Policy) -> None:
    """Not in the whitening, not in the controller's KL, not in the losses: as if it had not been written."""
    written, usable = rollout(policy), torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    rest = torch.tensor([0, 2, 3, 4, 5])
    gathered = experience(policy, written, REWARDS, usable)
    without = experience(
        policy,
        replace(
            written,
            responses_BT=written.responses_BT[rest],
            mask_BT=written.mask_BT[rest],
            texts=tuple(written.texts[i] for i in rest.tolist()),
        ),
        REWARDS[rest],
        torch.ones(5),
    )
    torch.testing.assert_close(gathered.advantages_RT[rest], without.advantages_RT)
    assert not gathered.advantages_RT[1].any()
    assert gathered.kl_per_story == pytest.approx(without.kl_per_story, rel=1e-5)
    assert (gathered.stories, without.stories) == (5, 5)
    other = twin(policy)
    learn(policy, gathered, sgd=1.0)
    learn(other, without, sgd=1.0)
    for ours, theirs in zip(weights(policy), weights(other), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_4_micro_batches_give_the_minibatchs_gradient(policy: Policy) -> None:
    """Stories of 1 to 10 tokens in micro-batches of 1: a mean of their means would be another gradient."""
    written, other = rollout(policy), twin(policy)
    for learner, size in ((policy, 1), (other, 6)):
        options = SETTINGS.model_copy(update={"micro_batch_size": size})
        learn(learner, experience(learner, written, REWARDS, torch.ones(6)), options, sgd=1.0)
    for small, large in zip(weights(policy), weights(other), strict=True):
        torch.testing.assert_close(small, large, atol=1e-6, rtol=1e-4)


def test_5_entropy_is_of_the_distribution(policy: Policy) -> None:
    written = rollout(policy)
    gathered = experience(policy, written, REWARDS, torch.ones(6))
    with torch.no_grad():
        logits = policy.model(written.sequences_BS).logits[:, len(written.prompt_P) - 1 : -1]
    logprobs = torch.log_softmax(logits, dim=-1)
    exact = float(masked_mean(-(logprobs.exp() * logprobs).sum(-1), written.mask_BT))
    sampled = float(-gathered.logprobs_RT.sum() / 6)  # what TRL calls entropy
    assert gathered.entropy == pytest.approx(exact, rel=1e-5)
    assert abs(sampled - exact) > 1.0


def test_6_a_gradient_that_is_not_finite_raises_before_the_weights(policy: Policy) -> None:
    before = weights(policy)
    rewards = torch.tensor([0.1, float("nan"), 0.3, 0.4, 0.5, 0.6])
    gathered = experience(policy, rollout(policy), rewards, torch.ones(6))
    with pytest.raises(NotFiniteError, match=r"interact\.ppo\.learning_rate"):
        learn(policy, gathered)
    assert same(before, weights(policy))


def test_7_stories_of_an_earlier_policy_are_weighted(policy: Policy) -> None:
    """One pass: the gradient of the policy loss is the weighted sum, that of the value loss has no weight."""
    written = rollout(policy)
    gathered = experience(policy, written, REWARDS, torch.ones(6))
    factors = torch.linspace(0.5, 2.0, 6)[:, None].expand_as(gathered.mask_RT)
    once, other = PPOSettings(epochs=1, micro_batch_size=6), twin(policy)
    learn(policy, replace(gathered, importance_RT=factors, first_pass=None), once, sgd=1.0)
    learn(other, replace(gathered, advantages_RT=gathered.advantages_RT * factors, first_pass=None), once, sgd=1.0)
    for ours, theirs in zip(weights(policy), weights(other), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(  # and nothing else depends on who wrote
        gathered.advantages_RT,
        masked_whiten(gathered.returns_RT - gathered.values_RT, gathered.mask_RT),  # type: ignore[operator]
    )
