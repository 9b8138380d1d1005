"""Batched decoding: every row's tokens, and their log-probabilities from the same forward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedModel

from services.student_trainer.decoding_general import GeneralSteps
from services.student_trainer.decoding_gpt2 import Gpt2Steps, is_plain_gpt2
from services.student_trainer.decoding_graph import GraphSteps
from services.student_trainer.decoding_prompts import Prompts, evaluating
from services.student_trainer.sampling import draw_tokens


@dataclass(frozen=True)
class Decoded:
    """B responses; T is the longest. `tokens_BT` holds padding, and `logprobs_BT` zeros, from a row's length on.

    A response's end token counts to its length. Log-probabilities are in nats, at the sampling temperature.
    """

    tokens_BT: Tensor
    logprobs_BT: Tensor
    lengths_B: Tensor
    ended_B: Tensor


class Steps(Protocol):
    """A model between two tokens: its key/value cache for N rows."""

    def __call__(self, tokens_N: Tensor) -> Tensor: ...

    def keep(self, rows_N: Tensor) -> None: ...


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms_BT: Tensor,
    *,
    temperature: float,
    eos_token_id: int,
    pad_token_id: int,
    cuda_graph: bool = False,
) -> Decoded:
    """Continue each prompt until its end token or for T tokens, with dropout off and outside autograd and autocast.

    Row b's token t is the inverse of the model's distribution at `uniforms_BT[b, t]`. Rows that have ended are dropped
    from the computation at once. A GPT-2 goes through `Gpt2Steps`, on request as a CUDA graph; any other model through
    its own forward.

    Raises:
        ValueError: a prompt is empty, prompt and response do not fit the model's positions, or prompts differ in length
            and the model sees a window only.
        FloatingPointError: the model's logits are not numbers.
    """
    device = model.device
    room, width = uniforms_BT.shape[1], max(map(len, prompts), default=0)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and width + room > context:
        raise ValueError(
            f"a prompt of {width} tokens and {room} new ones do not fit the model's {context} positions; "
            f"shorten the prompt, or write at most {max(0, context - width)} tokens"
        )
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), evaluating(model):
        aligned = Prompts.align(prompts, device)
        cache, logits_BV = aligned.read(model)
        steps: Steps
        if not isinstance(model, GPT2LMHeadModel) or not is_plain_gpt2(model):
            steps = GeneralSteps(model, aligned, cache, room)
        elif cuda_graph:
            steps = GraphSteps(Gpt2Steps(model, aligned, cache, room, fixed=True))
        else:
            steps = Gpt2Steps(model, aligned, cache, room)
        decoded = _sample(steps, logits_BV, uniforms_BT.to(device), temperature, eos_token_id, pad_token_id)
    # Tensors of inference mode cannot be saved for a backward pass; copies made outside it can.
    tokens_BT, logprobs_BT, lengths_B, ended_B = (tensor.clone() for tensor in decoded)
    if not bool(logprobs_BT.isfinite().all()):
        raise FloatingPointError("the model's logits are not finite, so nothing can be sampled; its weights are broken")
    return Decoded(tokens_BT, logprobs_BT, lengths_B, ended_B)


def _sample(
    steps: Steps, logits_NV: Tensor, uniforms_BT: Tensor, temperature: float, eos_token_id: int, pad_token_id: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, room = uniforms_BT.shape
    device = uniforms_BT.device
    tokens_TB = torch.full((room, rows), pad_token_id, device=device)
    logprobs_TB = torch.zeros(room, rows, device=device)
    lengths_B = torch.zeros(rows, dtype=torch.long, device=device)
    ended_B = torch.zeros(rows, dtype=torch.bool, device=device)
    rows_N, uniforms_TN = torch.arange(rows, device=device), uniforms_BT.T.contiguous()
    for position in range(room):
        tokens_N, logprobs_N = draw_tokens(logits_NV, uniforms_TN[position], temperature)
        tokens_TB[position, rows_N] = tokens_N
        logprobs_TB[position, rows_N] = logprobs_N
        ended_N = tokens_N == eos_token_id
        if ended_N.any():
            lengths_B[rows_N[ended_N]] = position + 1
            ended_B[rows_N[ended_N]] = True
            kept_N = _fill_holes(ended_N)
            rows_N, tokens_N, uniforms_TN = rows_N[kept_N], tokens_N[kept_N], uniforms_TN[:, kept_N]
            if len(rows_N) == 0:
                break
            steps.keep(kept_N)
        if position + 1 < room:
            logits_NV = steps(tokens_N)
    lengths_B[rows_N] = room
    longest = position + 1
    return tokens_TB[:longest].T, logprobs_TB[:longest].T, lengths_B, ended_B


def _fill_holes(ended_N: Tensor) -> Tensor:
    """The rows that go on, the last of them moved to the places of rows that ended: few rows move."""
    going = int((~ended_N).sum())
    rows_N = torch.arange(going, device=ended_N.device)
    rows_N[ended_N[:going]] = going + (~ended_N[going:]).nonzero().squeeze(-1)
    return rows_N
