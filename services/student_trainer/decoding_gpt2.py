"""Decoding steps of a GPT-2 on its module's own weights, with a preallocated key/value cache.

The weights are read where they are, so a step sees every update; only the output embedding is laid out anew, once a
call and on a CPU, in oneDNN's order: it is by far the largest matrix, and otherwise each product would reorder it.
Numbers agree with the module's own forward up to rounding: a residual is added by the product itself, queries are
scaled before the product, and `gelu_new` is computed by one kernel.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import DynamicCache, GPT2LMHeadModel, PreTrainedModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block
from transformers.pytorch_utils import Conv1D

from services.student_trainer.decoding_prompts import Prompts

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")


def is_plain_gpt2(model: PreTrainedModel) -> bool:
    """Whether `Gpt2Steps` computes what `model` does: GPT-2 as transformers builds it, with no part replaced."""
    if type(model) is not GPT2LMHeadModel or model.config.reorder_and_upcast_attn or model.config.add_cross_attention:
        return False
    blocks: list[Any] = list(model.transformer.h)
    products = [part for b in blocks for part in (b.attn.c_attn, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)]
    return (
        type(model.lm_head) is nn.Linear
        and all(type(block) is GPT2Block and type(block.attn) is GPT2Attention for block in blocks)
        and all(type(product) is Conv1D for product in products)
        and len({parameter.device for parameter in model.parameters()}) == 1
    )


class Gpt2Steps:
    """The next token's logits, one token a row and call; rows can be dropped.

    The cache is [2, layers, B, heads, S, head width] with room for every token of prompt and story; N rows of it live.
    With `fixed`, every call does the same operations on the same memory, as a CUDA graph needs it: the place in the
    cache is then read from a tensor, and attention goes over all S slots, those to come masked.
    """

    def __init__(
        self, model: GPT2LMHeadModel, prompts: Prompts, cache: DynamicCache, new_tokens: int, *, fixed: bool = False
    ) -> None:
        config = model.config
        self.fixed = fixed
        self.heads = config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.model = model
        self.output = _output_layer(model.lm_head.weight, len(prompts))
        self.rows = len(prompts)
        slots = prompts.width + new_tokens
        self.slot = prompts.width
        self.slot_1 = torch.tensor([self.slot], device=model.device)
        self.slots_S = torch.arange(slots, device=model.device)
        self.positions_B = self.gap_BS = None
        if prompts.gap_BP is not None:
            self.positions_B = prompts.lengths_B.clone()
            self.gap_BS = F.pad(prompts.gap_BP, (0, new_tokens))
        shape = (2, config.num_hidden_layers, self.rows, self.heads, slots, self.head_width)
        # Slots to come are multiplied by zero where they are masked, so they must hold numbers.
        self.cache = (torch.zeros if fixed else torch.empty)(shape, dtype=model.dtype, device=model.device)
        layers: list[Any] = list(cache.layers)
        for number, layer in enumerate(layers):  # one row of keys and values is copied to all where prompts are shared
            self.cache[0, number, :, :, : self.slot] = layer.keys
            self.cache[1, number, :, :, : self.slot] = layer.values

    def __call__(self, tokens_N: Tensor) -> Tensor:
        """Logits [N, V] after `tokens_N`."""
        body = self.model.transformer
        hidden_ND = F.embedding(tokens_N, body.wte.weight) + self._position()
        unseen = self._unseen()
        blocks: list[Any] = list(body.h)
        for number, block in enumerate(blocks):
            attention, mlp = block.attn, block.mlp
            attended_ND = self._attend(number, attention, _norm(block.ln_1, hidden_ND), unseen)
            hidden_ND.add_(attention.c_proj.bias).addmm_(attended_ND, attention.c_proj.weight)
            inner_NF = torch.addmm(mlp.c_fc.bias, _norm(block.ln_2, hidden_ND), mlp.c_fc.weight)
            hidden_ND.add_(mlp.c_proj.bias).addmm_(self._activate(mlp, inner_NF), mlp.c_proj.weight)
        self.slot += 1
        self.slot_1 += 1
        if self.positions_B is not None:
            self.positions_B += 1
        return self.output(_norm(body.ln_f, hidden_ND))

    def _position(self) -> Tensor:
        positions = self.slot_1 if self.positions_B is None else self.positions_B[: self.rows]
        return F.embedding(positions, self.model.transformer.wpe.weight)

    def _unseen(self) -> Tensor | None:
        """True on slots that no query of this step may attend to, broadcastable to [N, 1, S]; None for nothing."""
        gap_N1S = None if self.gap_BS is None else self.gap_BS[: self.rows, None]
        if not self.fixed:
            return None if gap_N1S is None else gap_N1S[:, :, : self.slot + 1]
        to_come_S = self.slots_S > self.slot_1
        return to_come_S if gap_N1S is None else gap_N1S | to_come_S

    def _attend(self, number: int, attention: Any, normed_ND: Tensor, unseen: Tensor | None) -> Tensor:
        """One layer's attention of the newest token to everything before it and itself, [N, D]."""
        rows, heads = self.rows, self.heads
        qkv_ND = torch.addmm(attention.c_attn.bias, normed_ND, attention.c_attn.weight)
        query_NHW, key_NHW, value_NHW = qkv_ND.view(rows, 3, heads, self.head_width).unbind(1)
        keys_NHSW, values_NHSW = self.cache[:, number, :rows].unbind(0)
        seen = len(self.slots_S) if self.fixed else self.slot + 1
        if self.fixed:
            keys_NHSW.index_copy_(2, self.slot_1, key_NHW[:, :, None])
            values_NHSW.index_copy_(2, self.slot_1, value_NHW[:, :, None])
        else:
            keys_NHSW[:, :, self.slot] = key_NHW
            values_NHSW[:, :, self.slot] = value_NHW
        query_M1W = (query_NHW * attention.scaling).view(rows * heads, 1, self.head_width)
        weights_M1S = torch.bmm(query_M1W, keys_NHSW.flatten(0, 1)[:, :seen].mT)
        if unseen is not None:
            weights_M1S.view(rows, heads, seen).masked_fill_(unseen, float("-inf"))
        weights_M1S = torch.softmax(weights_M1S, dim=-1)
        return torch.bmm(weights_M1S, values_NHSW.flatten(0, 1)[:, :seen]).view(rows, heads * self.head_width)

    def _activate(self, mlp: Any, inner_NF: Tensor) -> Tensor:
        if self.model.config.activation_function in _TANH_GELU:
            return F.gelu(inner_NF, approximate="tanh")
        activated_NF: Tensor = mlp.act(inner_NF)
        return activated_NF

    def keep(self, rows_N: Tensor) -> None:
        """Go on with these rows, in this order; only rows that change place are copied, and all stays in its memory."""
        moved_M = (rows_N != torch.arange(len(rows_N), device=rows_N.device)).nonzero().squeeze(-1)
        self.rows = len(rows_N)
        if len(moved_M) == 0:
            return
        self.cache[:, :, moved_M] = self.cache[:, :, rows_N[moved_M]]
        if self.positions_B is not None and self.gap_BS is not None:
            self.positions_B[moved_M] = self.positions_B[rows_N[moved_M]]
            self.gap_BS[moved_M] = self.gap_BS[rows_N[moved_M]]


def _norm(norm: Any, hidden_ND: Tensor) -> Tensor:
    return F.layer_norm(hidden_ND, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _output_layer(weight_VD: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """Hidden states [N, D] to logits [N, V]."""
    if weight_VD.device.type != "cpu" or weight_VD.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return lambda hidden_ND: F.linear(hidden_ND, weight_VD)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_VD, rows)
    return lambda hidden_ND: cast(Tensor, torch.ops.mkldnn._linear_pointwise(hidden_ND, packed, None, "none", [], ""))
