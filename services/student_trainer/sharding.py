"""A student divided among the processes (FSDP2 of torch): each holds its part of weights, gradients, optimiser state.

A block's weights are gathered where it computes and let go of afterwards. What is saved is whole, so that a run may go
on with any number of processes, divided or not. Functions here are called by all processes together.
"""

from typing import Any, cast

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, PreTrainedModel

from services.student_trainer.ranks import Ranks

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: PreTrainedModel, ranks: Ranks) -> None:
    """Divide the model in place, block by block; its optimiser is made afterwards.

    The gradient of a backward pass is the mean over the processes.
    """
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    blocks = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len, default=())
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole_model(model: PreTrainedModel) -> PreTrainedModel:
    """An ordinary model with all the weights, on the CPU; of use in the main process only."""
    weights = get_model_state_dict(model, options=_WHOLE)
    whole: PreTrainedModel = AutoModelForCausalLM.from_config(model.config)
    whole.generation_config = model.generation_config
    if weights:  # empty in the other processes
        whole.load_state_dict(weights)
    return whole


def whole_optimizer_state(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `optimizer.state_dict()` would be, were the model not divided; of use in the main process only."""
    by_name = cast(dict[str, Any], get_optimizer_state_dict(model, optimizer, options=_WHOLE))
    numbers = _numbers(model, optimizer)
    state = {numbers[name]: value for name, value in by_name.get("state", {}).items()}
    groups: list[dict[str, Any]] = by_name.get("param_groups", [])
    numbered = [group | {"params": sorted(numbers[name] for name in group["params"])} for group in groups]
    return {"state": state, "param_groups": numbered}


def load_optimizer_state(model: PreTrainedModel, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over a whole state, as `optimizer.state_dict()` of an undivided model or `whole_optimizer_state` gave it."""
    names = {number: name for name, number in _numbers(model, optimizer).items()}
    by_name: dict[str, Any] = {
        "state": {names[number]: value for number, value in saved["state"].items()},
        "param_groups": [
            group | {"params": [names[number] for number in group["params"]]} for group in saved["param_groups"]
        ],
    }
    set_optimizer_state_dict(model, optimizer, by_name, options=StateDictOptions(full_state_dict=True))


def _numbers(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """The optimiser's number of each parameter by its name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {names[id(parameter)]: number for number, parameter in enumerate(parameters)}
