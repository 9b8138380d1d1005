"""A student divided among the processes (FSDP2 of torch): each holds its part of weights, gradients, optimiser state.

A block's weights are gathered where it computes and let go of afterwards. What is saved is whole, so that a run may go
on with any number of processes, divided or not. Functions here are called by all processes together.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from fabula_proto.allocator import return_freed_memory
from services.student_trainer.ranks import Ranks

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(module: nn.Module, ranks: Ranks, *methods: str) -> None:
    """Divide the weights in place, block by block; the optimiser is made afterwards.

    They are gathered for `forward` and for these `methods`. The gradient of a backward pass is the sum over the
    processes. From now on freed memory goes back to the system.
    """
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    blocks = max((m for m in module.modules() if isinstance(m, nn.ModuleList)), key=len, default=())
    for part in (*blocks, module):
        divided = fully_shard(part, mesh=mesh, reshard_after_forward=True)
        divided.set_gradient_divide_factor(1.0)
        divided.set_force_sum_reduction_for_comms(True)  # gloo knows no other way not to divide
    for method in methods:
        register_fsdp_forward_method(module, method)
    return_freed_memory()


class Hollow:
    """A copy of a model without its weights, made before the model is divided; in eval mode."""

    def __init__(self, model: PreTrainedModel) -> None:
        empty = {id(p): nn.Parameter(p.detach().new_empty(0), requires_grad=False) for p in model.parameters()}
        self._model = copy.deepcopy(model, empty).eval()

    @contextmanager
    def filled_from(self, divided: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """The copy with all the weights of `divided`, in every process."""
        try:
            for parameter, part in zip(self._model.parameters(), divided.parameters(), strict=True):
                parameter.data = cast(DTensor, part.detach()).full_tensor()
            yield self._model
        finally:
            for parameter in self._model.parameters():
                parameter.data = parameter.data.new_empty(0)


def whole_model(model: PreTrainedModel, hollow: Hollow | None) -> AbstractContextManager[PreTrainedModel]:
    """The model, which is divided where there is a hollow copy of it, with all the weights; not to be learned with."""
    return nullcontext(model) if hollow is None else hollow.filled_from(model)


def whole_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """What `module.state_dict()` would be, were it not divided; of use in the main process only."""
    return cast(dict[str, torch.Tensor], get_model_state_dict(module, options=_WHOLE))


def whole_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `optimizer.state_dict()` would be, were the model not divided; of use in the main process only."""
    if not optimizer.state:  # before the first step: torch would take one to fill it
        return optimizer.state_dict()
    by_name = cast(dict[str, Any], get_optimizer_state_dict(module, optimizer, options=_WHOLE))
    numbers = _numbers(module, optimizer)
    state = {numbers[name]: value for name, value in by_name.get("state", {}).items()}
    groups: list[dict[str, Any]] = by_name.get("param_groups", [])
    numbered = [group | {"params": sorted(numbers[name] for name in group["params"])} for group in groups]
    return {"state": state, "param_groups": numbered}


def load_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over a whole state, that of an undivided module's optimiser or what `whole_optimizer_state` gave."""
    if not saved["state"]:  # before the first step
        return
    names = {number: name for name, number in _numbers(module, optimizer).items()}
    by_name: dict[str, Any] = {
        "state": {names[number]: value for number, value in saved["state"].items()},
        "param_groups": [
            group | {"params": [names[number] for number in group["params"]]} for group in saved["param_groups"]
        ],
    }
    set_optimizer_state_dict(module, optimizer, by_name, options=StateDictOptions(full_state_dict=True))


def _numbers(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """The optimiser's number of each parameter by its name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {names[id(parameter)]: number for number, parameter in enumerate(parameters)}
