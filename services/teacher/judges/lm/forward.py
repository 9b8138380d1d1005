"""The forward pass behind exact joint scoring: one for a batch of stories, on top of a prefix computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from services.teacher.judges.joint import AnswerTree, attention_BQK, positions_BQ

KeysAndValues = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Prefix:
    """Tokens that every prompt begins with, and their keys and values a layer, each (1, heads, P, width)."""

    tokens: tuple[int, ...]
    layers: KeysAndValues


class TreeForward:
    """Runs `model` (a transformers causal LM in evaluation mode) on prompts with an answer tree behind them.

    Prompts longer than `chunk` tokens go alone and in chunks, since a mask over all of their tokens would grow with
    the square of their length; their last token and the tree follow in a pass of their own.
    """

    def __init__(self, model: Any, tree: AnswerTree, *, chunk: int = 2048) -> None:
        self._model = model
        self.tree = tree
        self._device = model.device
        self.chunk = chunk

    @property
    def full_precision(self) -> bool:
        """Whether the model computes in float32 or better."""
        return bool(torch.finfo(self._model.dtype).bits >= 32)

    @torch.inference_mode()
    def prefix(self, tokens: Sequence[int]) -> Prefix:
        """Compute the keys and values of `tokens` once, for any number of prompts that begin with them."""
        return Prefix(tuple(tokens), self._extend((), 0, tokens))

    @torch.inference_mode()
    def tree_logits(self, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None) -> list[Tensor]:
        """A story's logits (1+M, V) each, at the end of its prompt and at the inner nodes of the tree behind it.

        Args:
            prompts: at least one; without the prefix's tokens where a prefix is given, and never empty.
            prefix: what comes before each prompt.
        """
        layers = prefix.layers if prefix else ()
        past = len(prefix.tokens) if prefix else 0
        short = [i for i, prompt in enumerate(prompts) if len(prompt) <= self.chunk]
        rows = (
            dict(zip(short, self._tree_pass(layers, past, [prompts[i] for i in short]), strict=True)) if short else {}
        )
        for i, prompt in enumerate(prompts):
            if i not in rows:
                grown = self._extend(layers, past, prompt[:-1])
                (rows[i],) = self._tree_pass(grown, past + len(prompt) - 1, [prompt[-1:]])
        return [rows[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def sequence_logits(self, tokens: Sequence[int]) -> Tensor:
        """Logits (T, V) of plain teacher forcing, with neither cache nor mask: what the tree must agree with."""
        ids = torch.tensor([list(tokens)], device=self._device)
        logits: Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return logits

    def _extend(self, layers: KeysAndValues, past: int, tokens: Sequence[int]) -> KeysAndValues:
        """The keys and values of one text after `tokens` more, computed a chunk at a time."""
        cache: Any = _cache(layers, 1)
        for start in range(0, len(tokens), self.chunk):
            part = list(tokens[start : start + self.chunk])
            ids = torch.tensor([part], device=self._device)
            positions = torch.arange(past + start, past + start + len(part), device=self._device).unsqueeze(0)
            cache = self._model(
                input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).past_key_values
        return tuple((layer.keys, layer.values) for layer in cache.layers)

    def _tree_pass(self, layers: KeysAndValues, past: int, prompts: Sequence[Sequence[int]]) -> Tensor:
        tree, lengths = self.tree, [len(prompt) for prompt in prompts]
        S = max(lengths)
        nodes = list(tree.tokens[: tree.inner])
        ids = [[0] * (S - len(prompt)) + list(prompt) + nodes for prompt in prompts]
        allowed = attention_BQK(lengths, tree, past).to(self._device)
        dtype = self._model.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype, device=self._device)
        mask.masked_fill_(~allowed, torch.finfo(dtype).min)
        kept = torch.arange(S - 1, S + tree.inner, device=self._device)
        logits: Tensor = self._model(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=mask.unsqueeze(1),
            position_ids=positions_BQ(lengths, tree, past).to(self._device),
            past_key_values=_cache(layers, len(prompts)),
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        return logits


def _cache(layers: KeysAndValues, stories: int) -> DynamicCache:
    """A cache that begins with `layers` for each story; they are shared, not copied, until the model appends to it."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)  # handed to the cache as data, they would be copied for each story
        layer.keys, layer.values = keys.expand(stories, -1, -1, -1), values.expand(stories, -1, -1, -1)
        cache.layers.append(layer)
    return cache
