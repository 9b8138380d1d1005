"""One pass through a Hugging Face model, and only the logits that are needed."""

from collections.abc import Callable, Sequence
from threading import Lock, get_ident
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax, pad
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from services.evaluator.errors import CheckpointError

_ALIGNED = 64  # floats: rows of a matrix that begin where the CPU's widest loads and stores like it
_HOOKS = Lock()  # torch numbers hooks without one
_ROWS_AT_ONCE, _GPU_ROWS_AT_ONCE = 32, 256  # of log softmax: a larger block leaves the CPU's caches

Work = TypeVar("Work")
Result = TypeVar("Result")

Wanted = list[tuple[int, int, int]]
"""(row, column, token): the log-probability of `token` as predicted at that place of the batch."""


def join_gelu(model: PreTrainedModel) -> None:
    """Compute GPT-2's tanh GELU in one kernel instead of eight: a fifth of a CPU's time; equal to 3e-7."""
    _replace(model, lambda child: isinstance(child, NewGELUActivation), lambda: nn.GELU(approximate="tanh"))


class AlignedHead(nn.Module):
    """A language-model head whose product has rows of a multiple of 64, cut to the vocabulary; equal logits.

    Into rows of odd length, such as GPT-2's 50,257, a CPU's matrix product takes a quarter longer.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self._vocabulary = head.out_features
        missing = -head.out_features % _ALIGNED
        self.weight = nn.Parameter(pad(head.weight.detach(), (0, 0, 0, missing)), requires_grad=False)
        self.bias: nn.Parameter | None = None
        if head.bias is not None:
            self.bias = nn.Parameter(pad(head.bias.detach(), (0, missing)), requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., H)."""
        return linear(hidden, self.weight, self.bias)[..., : self._vocabulary]


def align_head(model: PreTrainedModel) -> None:
    """Let a model on a CPU compute its logits by an AlignedHead, at the cost of a copy of the head's weights."""
    head = model.get_output_embeddings()
    if model.device.type != "cpu" or type(head) is not nn.Linear or head.out_features % _ALIGNED == 0:
        return
    _replace(model, lambda child: child is head, lambda: AlignedHead(head))


def _replace(model: PreTrainedModel, meant: Callable[[nn.Module], bool], new: Callable[[], nn.Module]) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if meant(child):
                setattr(module, name, new())


def log_probabilities(model: PreTrainedModel, wanted: Wanted, *, whole: bool, **inputs: Tensor | bool) -> list[float]:
    """Natural log-probabilities in fp32, one for each of `wanted`.

    Args:
        model: A causal or masked language model in evaluation mode.
        wanted: What to look up, in any order.
        whole: Let the model compute all logits. Otherwise its head sees the hidden states of the wanted places alone,
            whatever that head is: a hook takes them out where the head's input is made.
        inputs: What the model is called with, tensors of shape (B, T) or a 4-D mask.

    Raises:
        RuntimeError: the model's head is not fed by its base model alone (with `whole` false).
    """
    places = {place: n for n, place in enumerate(sorted({(row, column) for row, column, _ in wanted}))}
    rows, columns = (torch.tensor([place[axis] for place in places], device=model.device) for axis in (0, 1))
    if whole or model.base_model is model:
        logits_NV = model(**inputs).logits[rows, columns]
    else:
        logits_NV = _logits_at(model, rows, columns, inputs)
    return _looked_up(logits_NV, [(places[row, column], token) for row, column, token in wanted])


def _logits_at(model: PreTrainedModel, rows: Tensor, columns: Tensor, inputs: dict[str, Any]) -> Tensor:
    thread = get_ident()

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        if get_ident() != thread:
            return None  # another thread's batch, which has a hook of its own
        picked_1NH = output[0][rows, columns][None]
        if isinstance(output, tuple):
            return (picked_1NH, *output[1:])
        output.last_hidden_state = picked_1NH
        return output

    with _HOOKS:
        handle = model.base_model.register_forward_hook(keep)
    try:
        logits: Tensor = model(**inputs).logits
    finally:
        with _HOOKS:
            handle.remove()
    if logits.shape[:2] != (1, len(rows)):
        raise RuntimeError(f"{type(model).__name__} made logits of shape {tuple(logits.shape)} for {len(rows)} places")
    return logits[0]


def _looked_up(logits_NV: Tensor, pairs: Sequence[tuple[int, int]]) -> list[float]:
    order = sorted(range(len(pairs)), key=lambda i: pairs[i])
    at_P, token_P = torch.tensor([pairs[i] for i in order], device=logits_NV.device).unbind(1)
    size = _ROWS_AT_ONCE if logits_NV.device.type == "cpu" else _GPU_ROWS_AT_ONCE
    values = []
    for start in range(0, len(logits_NV), size):
        logp_NV = log_softmax(logits_NV[start : start + size].float(), dim=-1)
        here = (at_P >= start) & (at_P < start + size)
        values.append(logp_NV[at_P[here] - start, token_P[here]])
    found = dict(zip(order, torch.cat(values).tolist(), strict=True))
    return [found[i] for i in range(len(pairs))]


def halving(work: list[Work], run: Callable[[list[Work]], list[Result]]) -> list[Result]:
    """Results of `run(work)`; where the device's memory is too small for it, of its two halves.

    Raises:
        CheckpointError: half of the work does not fit either.
    """
    try:
        return run(work)
    except torch.OutOfMemoryError:
        pass  # and out of this block, or else the error would hold what was computed so far
    torch.cuda.empty_cache()
    try:
        half = len(work) // 2
        return [*run(work[:half]), *run(work[half:])] if half else run(work)
    except torch.OutOfMemoryError as error:
        raise CheckpointError(
            f"the device's memory is too small for half a batch of {len(work)} rows ({error}); lower token_budget, "
            "or set dtype to bfloat16 or device to cpu"
        ) from error
