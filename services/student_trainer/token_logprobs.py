"""Log-probabilities of chosen tokens from hidden states, some rows at a time.

A table of all tokens' log-probabilities is by far the largest thing in a small model's update, and plain autograd makes
five of it: logits, logits over temperature, log-softmax, its gradient, the logits' gradient. Here there is one, of
probabilities, which the backward pass turns into the gradient in place; what is done to each entry is done while its
rows are in the processor's cache. `torch.nn.functional.linear_cross_entropy` has no entropy.
"""

from typing import Any

import torch
from torch import Tensor

ROWS, GPU_ROWS = 128, 2048  # 8 and 131 MB of fp32 with a vocabulary of 16,000


def token_logprobs(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, tokens_N: Tensor, temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities [N] of `tokens_N`, and if wanted the entropies [N] of their distributions; nats, fp32.

    The distributions are softmax((hidden @ weight.T + bias) / temperature). Differentiable once.
    """
    keep = torch.is_grad_enabled()
    found: tuple[Tensor, Tensor | None] = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, tokens_N, temperature, keep, entropy
    )
    return found


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        tokens_N: Tensor,
        temperature: float,
        keep: bool,
        entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        count, size = len(hidden_ND), len(weight_VD)
        logprobs_N = hidden_ND.new_empty(count, dtype=torch.float32)
        entropy_N = torch.empty_like(logprobs_N) if entropy else None
        at_once = _rows_at_once(hidden_ND)
        table_NV = hidden_ND.new_empty(count if keep else min(count, at_once), size, dtype=torch.float32)
        for first in range(0, count, at_once):
            rows = slice(first, first + at_once)
            logits_RV = torch.nn.functional.linear(hidden_ND[rows], weight_VD, bias_V).float()
            if temperature != 1.0:
                logits_RV = logits_RV / temperature
            all_RV = torch.log_softmax(logits_RV, dim=-1)
            logprobs_N[rows] = all_RV.gather(-1, tokens_N[rows, None]).squeeze(-1)
            if keep or entropy_N is not None:
                probabilities_RV = torch.exp(all_RV, out=table_NV[rows if keep else slice(len(all_RV))])
            if entropy_N is not None:
                entropy_N[rows] = -torch.linalg.vecdot(probabilities_RV, all_RV)
        if keep:
            ctx.save_for_backward(hidden_ND, weight_VD, tokens_N, entropy_N)
            ctx.table_NV, ctx.temperature, ctx.bias = table_NV, temperature, bias_V is not None
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, tokens_N, entropy_N = ctx.saved_tensors
        table_NV, ctx.table_NV = ctx.table_NV, None
        if table_NV is None:
            raise RuntimeError("token_logprobs can be differentiated once; call it again for a second backward pass")
        of_logprobs_N, of_entropy_N = (torch.zeros(()) if g is None else g / ctx.temperature for g in gradients)
        entropy_counts = bool(of_entropy_N.any())
        hidden_gradient_ND = torch.empty_like(hidden_ND)
        at_once = _rows_at_once(hidden_ND)
        for first in range(0, len(hidden_ND), at_once):
            rows = slice(first, first + at_once)
            p_RV, own_R1 = table_NV[rows], of_logprobs_N[rows, None]
            if entropy_counts:
                slope_RV = torch.special.entr(p_RV) - p_RV * entropy_N[rows, None]
                p_RV.mul_(-own_R1).addcmul_(slope_RV, of_entropy_N[rows, None])
            else:
                p_RV.mul_(-own_R1)
            p_RV.scatter_add_(-1, tokens_N[rows, None], own_R1)
            hidden_gradient_ND[rows] = p_RV.to(weight_VD.dtype) @ weight_VD
        weight_gradient_VD = table_NV.T.to(hidden_ND.dtype) @ hidden_ND if ctx.needs_input_grad[1] else None
        bias_gradient_V = table_NV.sum(0) if ctx.bias else None
        return hidden_gradient_ND, weight_gradient_VD, bias_gradient_V, None, None, None, None


def _rows_at_once(hidden_ND: Tensor) -> int:
    return ROWS if hidden_ND.device.type == "cpu" else GPU_ROWS
