"""What TRL 0.9.4's PPOTrainer makes of given tensors and of a whole step, as JSON.

    python3.11 -m venv OLD && OLD/bin/pip install torch==2.13.0 trl==0.9.4 transformers==4.53.3 rich
    OLD/bin/python tests/trl/record_ppo.py > tests/trl/ppo.json

Runs in that environment and imports nothing of ours. The model is tiny and its weights are a formula, `weights`, that
the tests use too.
"""

import json
import math
import sys
from typing import Any

import torch

PROMPT, RESPONSES = [3, 1, 4], [[1, 5, 9, 2, 6, 5], [3, 5, 8, 9], [7, 9], [10]]
SCORES, KL = [0.9, 0.2, 0.6, 0.4], 0.2
MODEL: dict[str, Any] = {
    "vocab_size": 13,
    "n_positions": 12,
    "n_embd": 4,
    "n_layer": 1,
    "n_head": 2,
    "activation_function": "gelu_new",
}


def weights(shape: tuple[int, ...], number: int) -> torch.Tensor:
    """The start of the `number`-th parameter: smooth, different everywhere, of about the size of 0.5."""
    size = math.prod(shape)
    return (torch.sin(torch.arange(size, dtype=torch.float64) * 1.7 + number) * 0.5).float().reshape(shape)


def fill(model: torch.nn.Module, shift: int) -> None:
    """Give a model the weights of the formula; tied parameters count once."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(weights(tuple(parameter.shape), number + shift))


def tensors() -> dict[str, torch.Tensor]:
    """Four stories of at most six tokens: ratios and values in and out of their clip ranges."""
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float) -> torch.Tensor:
        return scale * torch.randn(4, 6, generator=generator)

    logprobs, values = -2.0 - draw(0.5), draw(0.5)
    lengths = torch.tensor([6, 4, 2, 1])
    return {
        "scores": torch.tensor(SCORES),
        "mask": (torch.arange(6) < lengths[:, None]).long(),
        "logprobs": logprobs,
        "reference": logprobs + draw(0.3),
        "values": values,
        "new_logprobs": logprobs + draw(0.3),
        "new_values": values + draw(0.3),
    }


def trainer_of(epochs: int) -> Any:
    """A PPOTrainer with TRL's defaults but for plain gradient descent at rate 1, on the tiny model."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl import (  # type: ignore[import-not-found,unused-ignore]
        AutoModelForCausalLMWithValueHead,
        PPOConfig,
        PPOTrainer,
    )

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({str(i): i for i in range(13)}, unk_token="0")),  # noqa: S106
        pad_token="0",  # noqa: S106
    )
    pair = []
    for shift in (0, 100):
        model = AutoModelForCausalLMWithValueHead.from_pretrained(GPT2LMHeadModel(GPT2Config(**MODEL)))
        fill(model.pretrained_model, shift)
        fill(model.v_head, 50)
        pair.append(model)
    return PPOTrainer(
        PPOConfig(batch_size=4, mini_batch_size=4, ppo_epochs=epochs, init_kl_coef=KL),
        *pair,
        tokenizer,
        optimizer=torch.optim.SGD(pair[0].parameters(), lr=1.0),
    )


def losses() -> dict[str, Any]:
    """Rewards, advantages, returns, losses, and the gradient of their sum."""
    trainer, given = trainer_of(1), tensors()
    rewards, _, _ = trainer.compute_rewards(given["scores"], given["logprobs"], given["reference"], given["mask"])
    values, advantages, returns = trainer.compute_advantages(given["values"], rewards, given["mask"])
    new_logprobs = given["new_logprobs"].clone().requires_grad_()
    new_values = given["new_values"].clone().requires_grad_()
    policy, value, _ = trainer.loss(
        given["logprobs"],
        values,
        torch.zeros(4, 6, 13),
        new_values,
        new_logprobs,
        given["mask"],
        advantages,
        returns,
    )
    (policy + value).backward()
    found = {
        "rewards": rewards,
        "advantages": advantages,
        "returns": returns,
        "policy_loss": policy,
        "weighted_value_loss": value,
        "logprobs_gradient": new_logprobs.grad,
        "values_gradient": new_values.grad,
    }
    return {name: tensor.detach().tolist() for name, tensor in found.items() if tensor is not None}


def step(epochs: int) -> dict[str, Any]:
    """The weights after a step, in the order of the parameters, and the KL that its controller saw."""
    trainer = trainer_of(epochs)
    queries = [torch.tensor(PROMPT)] * len(RESPONSES)
    stats = trainer.step(queries, [torch.tensor(r) for r in RESPONSES], [torch.tensor(s) for s in SCORES])
    parameters = [*trainer.model.pretrained_model.parameters(), *trainer.model.v_head.parameters()]
    return {
        "weights": [p.detach().flatten().tolist() for p in parameters],
        "kl": float(stats["objective/kl"]),
        "kl_coefficient": float(trainer.kl_ctl.value),
    }


if __name__ == "__main__":
    record = {"losses": losses(), "one_epoch": step(1), "four_epochs": step(4)}
    json.dump(record, sys.stdout)
    sys.stdout.write("\n")
