"""Decoding steps of any causal language model of transformers, by its own forward pass.

Keys and values have their memory from the start. Layers that do not keep them all, as with a sliding window, stay as
transformers makes them.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from services.student_trainer.decoding_prompts import Prompts


class GeneralSteps:
    """The next token's logits, one token a row and call; rows can be dropped."""

    def __init__(self, model: PreTrainedModel, prompts: Prompts, cache: DynamicCache, new_tokens: int) -> None:
        """Begin after the prompts; `cache` is theirs, and goes on as the steps'.

        Raises:
            ValueError: prompts of several lengths, and a window that ends before the slots do: gaps would count.
        """
        layers: list[Any] = list(cache.layers)
        slots = prompts.width + new_tokens
        window = min(getattr(layer, "sliding_window", slots) for layer in layers)
        if prompts.gap_BP is not None and window < slots:
            raise ValueError(
                f"the model sees a window of {window} tokens, and prompts of several lengths with up to {slots} tokens "
                "each do not go with it; decode prompts of one length at a time"
            )
        for number, layer in enumerate(layers):
            if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
                cache.layers[number] = RoomyLayer(layer.keys, layer.values, len(prompts), new_tokens)
            elif prompts.shared:
                layer.batch_repeat_interleave(len(prompts))
        self.model = model
        self.cache = cache
        gap_BP = prompts.gap_BP
        # Where all prompts are equally long the model counts positions by itself, from the cache's length.
        self.positions_N = None if gap_BP is None else prompts.lengths_B
        self.seen_NS = torch.ones_like(prompts.ids_BP) if gap_BP is None else (~gap_BP).long()

    def __call__(self, tokens_N: Tensor) -> Tensor:
        """Logits [N, V] after `tokens_N`."""
        self.seen_NS = torch.nn.functional.pad(self.seen_NS, (0, 1), value=1)
        positions = {} if self.positions_N is None else {"position_ids": self.positions_N[:, None]}
        output = self.model(
            tokens_N[:, None], attention_mask=self.seen_NS, past_key_values=self.cache, use_cache=True, **positions
        )
        if self.positions_N is not None:
            self.positions_N = self.positions_N + 1
        logits_NV: Tensor = output.logits[:, -1]
        return logits_NV

    def keep(self, rows_N: Tensor) -> None:
        """Go on with these rows, in this order."""
        self.cache.batch_select_indices(rows_N)
        self.seen_NS = self.seen_NS[rows_N]
        if self.positions_N is not None:
            self.positions_N = self.positions_N[rows_N]


class RoomyLayer(DynamicLayer):
    """One layer's keys and values [N, heads, S, width], views of memory in which `new_tokens` more have room."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int, new_tokens: int) -> None:
        """Begin with these; where that is one row, it is copied to all `rows`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.rows, self.slot = rows, keys.shape[-2]
        self.room = [_with_room(states, rows, new_tokens) for states in (keys, values)]
        self.keys, self.values = self._filled()

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write into the next slots; all keys and values so far."""
        start, self.slot = self.slot, self.slot + key_states.shape[-2]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[: self.rows, :, start : self.slot] = states
        self.keys, self.values = self._filled()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these rows, in this order; only rows that change place are copied."""
        moved_M = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(-1)
        for states in self._filled():
            states[moved_M] = states[indices[moved_M]]
        self.rows = len(indices)
        self.keys, self.values = self._filled()

    def _filled(self) -> tuple[Tensor, Tensor]:
        keys, values = (room[: self.rows, :, : self.slot] for room in self.room)
        return keys, values


def _with_room(states: Tensor, rows: int, new_tokens: int) -> Tensor:
    _, heads, slots, width = states.shape
    room = states.new_empty(rows, heads, slots + new_tokens, width)
    room[:, :, :slots] = states
    return room
