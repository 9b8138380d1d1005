"""Our PPO on the tensors and the model of `record_ppo`, beside what TRL 0.9.4 made of them."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from services.student_trainer.advantages import gae, masked_whiten
from services.student_trainer.algorithms.experience import JudgedStories
from services.student_trainer.algorithms.ppo import PPO
from services.student_trainer.algorithms.updating import update
from services.student_trainer.kl import KLController
from services.student_trainer.learning_settings import KLSettings, PPOSettings
from services.student_trainer.losses import policy_loss_terms, value_loss_terms
from services.student_trainer.policy import Policy, ValueHead
from services.student_trainer.rewards import token_rewards
from tests.trl.record_ppo import KL, MODEL, PROMPT, RESPONSES, SCORES, fill, tensors

TOLERANCE = 1e-6
STEPS = {"one_epoch": 1, "four_epochs": 4}


def assert_losses_are_trls(recorded: dict[str, Any]) -> None:
    """Rewards, advantages, returns, both losses and their gradients on the same tensors; padding aside."""
    given, options = tensors(), PPOSettings()
    mask = given["mask"].float()
    rewards = token_rewards(given["scores"], given["logprobs"], given["reference"], mask, KL)
    advantages, returns = gae(rewards, given["values"], mask, options.gamma, options.gae_lambda)
    advantages = masked_whiten(advantages, mask)
    logprobs, values = given["new_logprobs"].requires_grad_(), given["new_values"].requires_grad_()
    ratio = (logprobs - given["logprobs"]).exp()
    policy = (policy_loss_terms(ratio, advantages, options.ratio_clip) * mask).sum() / mask.sum()
    value_terms = value_loss_terms(values, given["values"], returns, options.value_clip)
    value = options.value_weight * (value_terms * mask).sum() / mask.sum()
    (policy + value).backward()
    assert ((ratio - 1.0).abs() > options.ratio_clip)[mask > 0].any()  # the clips are in use
    assert ((values - given["values"]).abs() > options.value_clip)[mask > 0].any()
    ours = {
        "rewards": rewards,
        "advantages": advantages,
        "returns": returns,
        "policy_loss": policy,
        "weighted_value_loss": value,
        "logprobs_gradient": logprobs.grad,
        "values_gradient": values.grad,
    }
    for name, found in ours.items():
        assert found is not None
        scope = mask if found.dim() else torch.ones(())
        _close(found * scope, torch.tensor(recorded[name]) * scope, name)


def assert_step_is_trls(recorded: dict[str, Any], epochs: int) -> None:
    """Weights and KL controller after a whole step on the same model and stories."""
    policy = _policy()
    start = [copy.deepcopy(p.detach()) for p in policy.parameters()]
    judged, options, kl = _judged(), PPOSettings(epochs=epochs), KLSettings(coefficient=KL)
    algorithm = PPO(options, "k1")
    gathered = algorithm.gather(policy, judged, KL, 1.0)
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    stats = update(algorithm, policy, optimizer, gathered, 1.0, torch.Generator())
    controller = KLController(KL, adaptive=True, target=kl.target, horizon=kl.horizon)
    controller.update(gathered.kl_per_story, gathered.stories)
    assert stats.passes_skipped == 0
    for number, (found, theirs) in enumerate(zip(policy.parameters(), recorded["weights"], strict=True)):
        _close(found.detach().flatten(), torch.tensor(theirs), f"parameter {number}")
    assert max(float((p.detach() - s).abs().max()) for p, s in zip(policy.parameters(), start, strict=True)) > 0.01
    _close(torch.tensor(gathered.kl_per_story), torch.tensor(recorded["kl"]), "kl")
    _close(torch.tensor(controller.coefficient), torch.tensor(recorded["kl_coefficient"]), "KL coefficient")


def _policy() -> Policy:
    models, head = [], ValueHead(MODEL["n_embd"], seed=0)
    for shift in (0, 100):
        model = GPT2LMHeadModel(GPT2Config(**MODEL | {"attn_implementation": "eager"}))
        fill(model, shift)
        models.append(model)
    fill(head, 50)
    return Policy(models[0], head, models[1])


def _judged() -> JudgedStories:
    width = max(map(len, RESPONSES))
    rows = [[*PROMPT, *story, *[0] * (width - len(story))] for story in RESPONSES]
    lengths = torch.tensor([len(story) for story in RESPONSES])
    mask = (torch.arange(width) < lengths[:, None]).float()
    return JudgedStories(torch.tensor(rows), mask, torch.tensor(SCORES), torch.ones(len(rows)))


def _close(ours: Tensor, theirs: Tensor, name: str) -> None:
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE, msg=lambda text: f"{name}: {text}")
