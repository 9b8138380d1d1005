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
    """

    def __init__(self, model: GPT2LMHeadModel, prompts: Prompts, cache: DynamicCache, new_tokens: int) -> None:
        config = model.config
        self.heads = config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.model = model
        self.output = _output_layer(model.lm_head.weight, len(prompts))
        self.slot = prompts.width
        self.rows = len(prompts)
        self.positions_N = None if prompts.gap_BP is None else prompts.lengths_B.clone()
        self.gap_NP = None if prompts.gap_BP is None else prompts.gap_BP.clone()
        shape = (2, config.num_hidden_layers, self.rows, self.heads, prompts.width + new_tokens, self.head_width)
        self.cache = torch.empty(shape, dtype=model.dtype, device=model.device)
        layers: list[Any] = list(cache.layers)
        for number, layer in enumerate(layers):  # one row of keys and values is copied to all where prompts are shared
            self.cache[0, number, :, :, : self.slot] = layer.keys
            self.cache[1, number, :, :, : self.slot] = layer.values

    def __call__(self, tokens_N: Tensor) -> Tensor:
        """Logits [N, V] after `tokens_N`."""
        body = self.model.transformer
        hidden_ND = F.embedding(tokens_N, body.wte.weight) + self._position()
        blocks: list[Any] = list(body.h)
        for number, block in enumerate(blocks):
            attention, mlp = block.attn, block.mlp
            attended_ND = self._attend(number, attention, _norm(block.ln_1, hidden_ND))
            hidden_ND.add_(attention.c_proj.bias).addmm_(attended_ND, attention.c_proj.weight)
            inner_NF = torch.addmm(mlp.c_fc.bias, _norm(block.ln_2, hidden_ND), mlp.c_fc.weight)
            hidden_ND.add_(mlp.c_proj.bias).addmm_(self._activate(mlp, inner_NF), mlp.c_proj.weight)
        self.slot += 1
        if self.positions_N is not None:
            self.positions_N += 1
        return self.output(_norm(body.ln_f, hidden_ND))

    def _position(self) -> Tensor:
        weight_SD = self.model.transformer.wpe.weight
        return weight_SD[self.slot] if self.positions_N is None else F.embedding(self.positions_N, weight_SD)

    def _attend(self, number: int, attention: Any, normed_ND: Tensor) -> Tensor:
        """One layer's attention of the newest token to everything before it and itself, [N, D]."""
        rows, heads, seen = self.rows, self.heads, self.slot + 1
        qkv_ND = torch.addmm(attention.c_attn.bias, normed_ND, attention.c_attn.weight)
        query_NHW, key_NHW, value_NHW = qkv_ND.view(rows, 3, heads, self.head_width).unbind(1)
        keys_NHSW, values_NHSW = self.cache[:, number, :rows].unbind(0)
        keys_NHSW[:, :, self.slot] = key_NHW
        values_NHSW[:, :, self.slot] = value_NHW
        query_M1W = (query_NHW * attention.scaling).view(rows * heads, 1, self.head_width)
        weights_M1S = torch.bmm(query_M1W, keys_NHSW.flatten(0, 1)[:, :seen].mT)
        if self.gap_NP is not None:
            gap_N1P = self.gap_NP[:, None]
            weights_M1S.view(rows, heads, seen)[:, :, : gap_N1P.shape[-1]].masked_fill_(gap_N1P, float("-inf"))
        weights_M1S = torch.softmax(weights_M1S, dim=-1)
        return torch.bmm(weights_M1S, values_NHSW.flatten(0, 1)[:, :seen]).view(rows, heads * self.head_width)

    def _activate(self, mlp: Any, inner_NF: Tensor) -> Tensor:
        if self.model.config.activation_function in _TANH_GELU:
            return F.gelu(inner_NF, approximate="tanh")
        activated_NF: Tensor = mlp.act(inner_NF)
        return activated_NF

    def keep(self, rows_N: Tensor) -> None:
        """Go on with these rows, in this order; only rows that change place are copied."""
        moved_M = (rows_N != torch.arange(len(rows_N), device=rows_N.device)).nonzero().squeeze(-1)
        if len(moved_M):
            self.cache[:, :, moved_M, :, : self.slot] = self.cache[:, :, rows_N[moved_M], :, : self.slot]
        self.rows = len(rows_N)
        if self.positions_N is not None and self.gap_NP is not None:
            self.positions_N, self.gap_NP = self.positions_N[rows_N], self.gap_NP[rows_N]


def _norm(norm: Any, hidden_ND: Tensor) -> Tensor:
    return F.layer_norm(hidden_ND, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _output_layer(weight_VD: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """Hidden states [N, D] to logits [N, V]."""
    if weight_VD.device.type != "cpu" or weight_VD.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return lambda hidden_ND: F.linear(hidden_ND, weight_VD)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_VD, rows)
    return lambda hidden_ND: cast(Tensor, torch.ops.mkldnn._linear_pointwise(hidden_ND, packed, None, "none", [], ""))
